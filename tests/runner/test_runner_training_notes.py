"""What a configuration asks for and does not get is told before any work, and again in the result."""

from dataclasses import replace

import pytest
import torch

from distail.config.schema import Experiment
from distail.data.arrays import LabeledArrays
from distail.data.prepare import prepare_data
from distail.errors import DataError
from distail.evaluation.adjustment import corrects_twice
from distail.report.results_table import caption
from distail.report.views import RunView
from distail.runner.checks import check_fits_data, read_experiment
from distail.runner.evaluate import evaluate_run
from distail.runner.plan import plan_run
from distail.runner.run_folder import RunFolder
from distail.runner.training_notes import training_notes
from helpers.whole_runs import experiment, run

pytestmark = pytest.mark.integration


SMALL = {"model": {"name": "mlp", "hidden": 8, "depth": 1}}


def warnings(tmp_path, method="bkd", **changes):
    """Those of a plan, which takes ten steps: of a network that is quick."""
    return plan_run(experiment(tmp_path / "run", method, student=SMALL, **changes)).warnings


def training(**changes):
    return {"epochs": 3, "batch_size": 128, "learning_rate": 0.05, **changes}


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"schedule": {"name": "cosine", "warmup_epochs": 10}}, "training.schedule.warmup_epochs: 10 of 3 epochs"),
        (
            {"schedule": {"name": "step", "milestones": [2, 30], "factors": [0.1, 0.01]}},
            "training.schedule.milestones: 30 of 3 epochs",
        ),
        ({"schedule": {"name": "one-cycle", "warmup_epochs": 1}}, "training.schedule.warmup_epochs: 1, but one-cycle"),
        (
            {"classifier_stage": {"epochs": 1, "schedule": {"name": "step", "milestones": [5], "factors": [0.1]}}},
            "training.classifier_stage.schedule.milestones: 5 of 1 epoch",
        ),
        ({"accumulation_steps": 100}, "training.accumulation_steps: 100, but a batch of 128"),
    ],
)
def test_what_few_epochs_and_small_batches_do_not_allow_is_told_once(tmp_path, changes, start):
    told = warnings(tmp_path, training=training(**changes), teacher={"model": "same"})
    assert sum(start in each for each in told) == 1, "not once more of the teacher, which is trained alike"


def test_what_the_optimizer_or_the_schedule_does_not_have_is_told():
    schedule = {"milestones": [2], "factors": [0.1], "rise": 0.2}
    data = prepare_data("digits", validation=0.1)

    def told(**changes):
        config = experiment("run", "ce", teacher=None, student=SMALL, training=training(**changes))
        notes = training_notes(Experiment.from_mapping(config), data)
        return [note.partition(":")[0] for note in notes if "not used, since only" in note]

    momentum, milestones, rise = "training.momentum", "training.schedule.milestones", "training.schedule.rise"
    sgd = {"momentum": 0.8, "nesterov": True}
    assert told(**sgd) == told(optimizer="adamw") == told(schedule="one-cycle") == []
    assert told(optimizer="adamw", **sgd) == [momentum, "training.nesterov"]
    assert told(schedule={"name": "cosine", **schedule}) == [milestones, rise]
    assert told(schedule={"name": "one-cycle", **schedule}) == [milestones]
    assert told(schedule={"name": "step", **schedule}) == [rise]


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"data": {"name": "digits", "profile": "step"}}, "data.profile: step, but without data.imbalance_factor"),
        ({"mix": {"name": "mixup", "share": 0.003}}, "training.mix.share: 0.003 of a batch of 128 is no image"),
        ({"freeze": "backbone", "layer_decay": 0.8}, "training.layer_decay: not used, since training.freeze"),
        (
            {"freeze": "backbone", "backbone_learning_rate_factor": 0.1, "classifier_stage": {"epochs": 1}},
            "training.backbone_learning_rate_factor: not used",
        ),
        (
            {"classifier_stage": {"epochs": 1, "supervised": "ce", "method": {"supervised": "balanced_softmax"}}},
            "training.classifier_stage.method.supervised: not used",
        ),
        ({"teacher": {"model": "previous_epoch", "training": {"epochs": 5}}}, "teacher.training: not used"),
        # All of these have an effect.
        ({"data": {"name": "digits", "profile": "step", "imbalance_factor": 10}}, None),
        ({"mix": {"name": "mixup", "share": 0.004}}, None),
        ({"mix": {"name": "mixup", "share": 0}}, None),
        ({"freeze": {"name": "backbone", "epochs": 2}, "layer_decay": 0.8}, None),
        ({"freeze": "backbone", "classifier_stage": {"epochs": 1, "supervised": "balanced_softmax"}}, None),
    ],
)
def test_what_has_no_effect_beside_another_key_is_told(changes, start):
    data = {"data": changes["data"]} if "data" in changes else {}
    others = {key: value for key, value in changes.items() if key not in ("data", "teacher")}
    teacher = changes.get("teacher")
    method = "ipwd" if teacher else "ce"
    config = experiment("run", method, teacher=teacher, student=SMALL, training=training(**others), **data)
    notes = training_notes(Experiment.from_mapping(config), prepare_data("digits", validation=0.1))
    if start is None:
        assert notes == []
    else:
        assert [note.startswith(start) for note in notes] == [True]


def test_a_schedule_without_a_name_is_told_to_be_constant():
    data = prepare_data("digits", validation=0.1)

    def told(**changes):
        config = experiment("run", "kd", teacher={"model": "same"}, student=SMALL, training=training(**changes))
        notes = training_notes(Experiment.from_mapping(config), data)
        return [note.partition(":")[0] for note in notes if "constant" in note]

    nameless = {"warmup_epochs": 1}
    assert told(schedule=nameless) == ["training.schedule.name"]
    late = {"epochs": 1, "schedule": {"warmup_epochs": 0.5}}
    assert told(classifier_stage=late) == ["training.classifier_stage.schedule.name"]
    assert told() == told(schedule="constant") == told(schedule={"name": "constant", **nameless}) == []


def test_what_fits_is_not_told(tmp_path):
    fitting = training(accumulation_steps=64, schedule={"name": "step", "milestones": [2], "factors": [0.1]})
    assert not any(each.startswith("training") for each in warnings(tmp_path, training=fitting))


def test_a_teachers_own_training_is_told_where_it_happens(tmp_path):
    teacher = {"model": "same", "training": {"epochs": 1, "schedule": {"name": "cosine", "warmup_epochs": 5}}}
    start = "teacher.training.schedule.warmup_epochs: 5 of 1 epoch"
    assert any(each.startswith(start) for each in warnings(tmp_path, teacher=teacher))
    assert not any(each.startswith(start) for each in warnings(tmp_path, "ce", teacher=teacher))


@pytest.mark.parametrize(
    ("late", "said"), [(None, 0), ({"epochs": 1, "method": "kd"}, 1), ({"epochs": 2, "method": "kd"}, 0)]
)
def test_a_student_of_itself_that_distills_nothing_is_told(tmp_path, late, said):
    method = "kd" if late is None else "ce"
    told = warnings(tmp_path, method, teacher="previous_epoch", training=training(classifier_stage=late))
    assert sum("nothing is distilled" in each for each in told) == said


def test_what_is_the_teachers_own_is_called_by_its_own_key(tmp_path):
    training = {"epochs": 1, "freeze": {"name": "backbone", "epochs": 9}, "mix": "mixup"}
    config = experiment(tmp_path / "run", "kd", student=SMALL, teacher={"model": "same", "training": training})
    told = plan_run(config).warnings
    assert {each.partition(":")[0] for each in told if "freeze" in each} == {
        "teacher.training.freeze",
        "teacher.training.freeze.epochs",
    }
    weighted = LabeledArrays(torch.zeros(2, 3), torch.tensor([0, 1]), weights=torch.tensor([1.0, 3.0]))
    with pytest.raises(DataError, match=r"leave out teacher\.training\.mix or the weights"):
        check_fits_data(read_experiment(config), weighted)


def test_a_teacher_that_the_student_itself_stands_in_for_is_told(tmp_path):
    itself = {"name": "ipwd", "teacher": "previous_epoch"}
    told = [warnings(tmp_path, method, teacher={"model": "same"}) for method in (itself, "ipwd")]
    assert [any(each.startswith("teacher: not used") for each in said) for said in told] == [True, False]


def test_a_tau_that_few_images_choose_is_told(tmp_path):
    told = "of the validation images belong"
    method = {"name": "kd", "adjust": "auto"}
    assert any(told in each for each in warnings(tmp_path, method))
    assert not any(told in each for each in warnings(tmp_path, "kd"))
    finished = run(experiment(tmp_path / "run", "kd"))
    assert sum(told in note for note in evaluate_run(RunFolder(finished.folder), "auto").notes) == 1
    assert not any(told in note for note in evaluate_run(RunFolder(finished.folder), 1.0).notes)


def test_a_teacher_that_has_diverged_is_told(tmp_path):
    teacher = {"model": "same", "training": {"epochs": 1, "learning_rate": 1000.0, "gradient_clip": 5.0}}
    short = training(epochs=1)
    config = experiment(tmp_path / "run", "kd", teacher=teacher, training=short)
    assert not any("diverged" in each for each in plan_run(config).warnings)  # of a few steps it would be no wonder
    notes = run(config).figures["notes"]
    assert any(note.startswith("the teacher recalls") and "diverged" in note for note in notes)


def test_a_plan_speaks_of_stored_views_only_where_a_teacher_is_asked(tmp_path):
    teacher = {"model": "same", "views": 1}
    said = [
        any("the estimate runs the teacher" in each for each in warnings(tmp_path, method, teacher=teacher))
        for method in ("kd", "ce")
    ]
    assert said == [True, False]


@pytest.mark.parametrize(
    ("method", "changes", "told"),
    [
        ({"name": "bkd", "defer_until": 0.8}, {"epochs": 4}, True),
        ({"name": "bkd", "defer_until": 0.8}, {"epochs": 5}, False),
        ({"name": "bkd", "defer_until": 1.0}, {"epochs": 4}, False),
        ("bkd", {"epochs": 1}, False),
        ({"name": "bkd", "defer_until": 0.8}, {"epochs": 10, "classifier_stage": {"epochs": 2}}, False),
        (
            {"name": "bkd", "defer_until": 0.8},
            {"epochs": 10, "classifier_stage": {"epochs": 2, "method": {"name": "ce"}}},
            True,
        ),
        ({"name": "ipwd", "start": 0.5}, {"epochs": 1}, True),
    ],
)
def test_what_is_deferred_for_good_is_told(method, changes, told):
    config = Experiment.from_mapping(experiment("run", method, teacher={"model": "same"}, training=training(**changes)))
    notes = training_notes(config, prepare_data("digits", imbalance_factor=20))
    assert sum("what is deferred never begins" in note for note in notes) == told


def test_of_equal_classes_nothing_is_told_of_priors():
    config = Experiment.from_mapping(experiment("run", "bkd", teacher={"model": "same"}, training=training()))
    assert any("priors" in note for note in training_notes(config, prepare_data("digits", imbalance_factor=20)))
    data = replace(prepare_data("digits"), class_counts=(140,) * 10)
    assert not any("priors" in note for note in training_notes(config, data))
    assert corrects_twice("the student", "balanced", data.class_counts) == []
    equal, tailed = (caption(runs=[RunView("kd", "student", class_counts=c)]) for c in (data.class_counts, (9, 3, 1)))
    assert ("same number of training images" in equal, "same number" in tailed) == (True, False)
