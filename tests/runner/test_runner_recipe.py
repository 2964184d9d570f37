"""Runs with mixed images, averaged weights and label smoothing: what is refused, and what their results say."""

import json

import pytest
from safetensors.torch import load_file

from distail.config.schema import Experiment
from distail.errors import ConfigError
from distail.runner.checks import problems_of
from helpers.whole_runs import experiment, run

TRAINING = {"epochs": 2, "batch_size": 128, "learning_rate": 0.05, "schedule": "one-cycle"}
MIX = {"name": "cutmix", "labels": "distillation_only"}


def problems(**changes):
    return problems_of(Experiment.from_mapping(experiment("run", **changes)))


def test_mixing_what_is_stored_or_remembered_of_single_images_is_refused():
    training = {**TRAINING, "mix": "cutmix"}
    [views] = problems(method="kd", training=training, teacher={"model": "same", "views": 2})
    assert views.startswith("training.mix: cutmix, but with teacher.views: 2")
    [memory] = problems(method="ipwd", training=training, teacher="previous_epoch")
    assert memory.startswith("training.mix: cutmix, but teacher: previous_epoch stores")
    [by_method] = problems(method={"name": "ipwd", "teacher": "previous_epoch"}, training=training)
    assert by_method == memory
    only_features = {"representation": "balanced_prototypes", "divergence": None}
    [nothing_left] = problems(method=only_features, training={**TRAINING, "mix": MIX})
    assert nothing_left.startswith("training.mix.labels: distillation_only")
    assert "'mixed'" in nothing_left
    assert not problems(method="kd", training={**TRAINING, "mix": MIX})
    assert not problems(method="ce", training={**TRAINING, "mix": MIX})
    late = {**training, "classifier_stage": {"epochs": 1, "method": "kd"}}
    assert not problems(method="ce", training=late, teacher={"model": "same", "views": 2}), "that stage mixes nothing"
    assert problems(method="kd", training=late, teacher={"model": "same", "views": 2}) == [views]


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"mix": {"name": "cutmx"}}, "training.mix.name: 'cutmx' is not valid. Did you mean 'cutmix'?"),
        ({"mix": {"name": "mixup", "shar": 1}}, "training.mix.shar: unknown key. Did you mean 'share'?"),
        ({"mix": {"name": "mixup", "share": 1.5}}, "training.mix.share: input should be less than or equal to 1"),
        ({"mix": {"name": "mixup", "alpha": 0}}, "training.mix.alpha: input should be greater than 0"),
        ({"ema_decay": 1}, "training.ema_decay: input should be less than 1"),
        ({"accumulation_steps": 0}, "training.accumulation_steps: input should be greater than or equal to 1"),
    ],
)
def test_wrong_values_are_told_by_key(training, said):
    with pytest.raises(ConfigError) as caught:
        Experiment.from_mapping(experiment("run", training=training))
    assert said in str(caught.value)


def test_a_teacher_may_be_trained_otherwise():
    both = Experiment.from_mapping(
        experiment("run", training={"mix": "cutmix"}, teacher={"model": "same", "training": {"mix": None}})
    )
    assert both.training.mix.name == "cutmix"
    assert both.teacher_training.mix is None
    named = Experiment.from_mapping(experiment("run", teacher={"model": "same", "training": {"mix": "mixup"}}))
    assert named.teacher_training.mix.name == "mixup"


@pytest.mark.integration
def test_a_result_says_of_which_weights_it_is(tmp_path):
    teacher = {"model": "same", "training": {"epochs": 1, "ema_decay": None}}
    averaged = run(experiment(tmp_path / "run", "kd", teacher=teacher, training={**TRAINING, "ema_decay": 0.9}))
    figures = averaged.figures
    assert (figures["student"]["weights"], figures["teacher"]["weights"]) == ("averaged", "last")
    (said,) = [note for note in figures["notes"] if "averaged weights (training.ema_decay: 0.9)" in note]
    assert "10 steps of a training of" in said, "a short training is told that the average covers most of it"
    stored = json.loads((averaged.folder / "result.json").read_text())
    assert stored["student"]["weights"] == "averaged"


@pytest.mark.integration
def test_without_a_teacher_nothing_is_mixed_for_distillation_alone(tmp_path):
    plain, mixed = (
        run(experiment(tmp_path / name, "ce", teacher=None, training={**TRAINING, "epochs": 1, "mix": mix}))
        for name, mix in (("plain", None), ("mixed", MIX))
    )
    one, other = (load_file(result.folder / "student.safetensors") for result in (plain, mixed))
    assert all((one[name] == other[name]).all() for name in one)
    told = [[note for note in result.figures["notes"] if "nothing is mixed" in note] for result in (plain, mixed)]
    assert [len(notes) for notes in told] == [0, 1]
