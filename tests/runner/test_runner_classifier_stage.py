"""The classifier stage of whole runs: what stays, what is trained, and resuming within it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from distail.audit.target import load_target
from distail.config.schema import Experiment
from distail.errors import ConfigError
from distail.methods.method import Method
from distail.runner import train_network
from distail.runner.checks import problems_of
from distail.runner.compositions import needs_of
from distail.training.signals import Interrupted
from helpers.whole_runs import Killed, Recorder, experiment, run

LATE = {"epochs": 2, "supervised": "balanced_softmax", "sampler": "class_balanced", "learning_rate": 0.02}
TRAINING = {"epochs": 4, "batch_size": 128, "learning_rate": 0.05}
integration = pytest.mark.integration


def config(folder, method="ce", *, late=LATE, teacher=None, **training):
    training = {**TRAINING, **training, "classifier_stage": late}
    return experiment(folder, method, teacher=teacher, training=training)


def student(folder):
    return load_file(folder / "student.safetensors")


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    recorder = Recorder()
    return run(config(tmp_path_factory.mktemp("late") / "run"), recorder).folder, recorder


@integration
def test_the_backbone_and_its_statistics_stay_as_the_first_epochs_left_them(whole, tmp_path):
    folder, recorder = whole
    # The same first two epochs: their schedule is over two epochs, since the last two have one of their own.
    before = student(run(config(tmp_path / "early", late=None, epochs=2)).folder)
    after = student(folder)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {name for name in after if name.startswith("classifier.")} != set()
    assert [stage for stage, _ in recorder.started] == ["student", "student-classifier"]


@integration
def test_its_epochs_count_on_in_the_history_of_the_student(whole):
    folder, _ = whole
    history = rows(folder)
    assert [(row["stage"], row["epoch"]) for row in history] == [("student", epoch) for epoch in range(4)]
    assert history[2]["learning_rate"] < 0.021 < history[1]["learning_rate"] + 0.05
    assert all(row["validation"] is not None for row in history)
    best = json.loads((folder / "result.json").read_text())["student"]["best_on_validation"]
    assert best["validation"]["balanced_accuracy"] == max(row["validation"]["balanced_accuracy"] for row in history)


@integration
@pytest.mark.parametrize(("stage", "step"), [("student", 5), ("student-classifier", 1), ("student-classifier", 8)])
def test_a_run_that_is_killed_in_either_part_ends_bit_for_bit_alike(whole, tmp_path, stage, step):
    folder, _ = whole
    with pytest.raises(Interrupted):
        run(config(tmp_path / "run"), Killed(stage, step))
    again = run(config(tmp_path / "run")).folder
    one, other = student(folder), student(again)
    assert all(torch.equal(one[name], other[name]) for name in one)
    timeless = ("seconds", "images_per_second")
    histories = [
        [{k: v for k, v in row.items() if k not in timeless} for row in rows(each)] for each in (folder, again)
    ]
    assert histories[0] == histories[1]


@integration
def test_its_terms_and_its_sampler_are_its_own(tmp_path, monkeypatch):
    seen, samplers = [], []
    real = train_network.TrainingBatches

    def batches(*given, **options):
        samplers.append((options["sampler"], options["mix"] and options["mix"].name))
        return real(*given, **options)

    class Watch(Recorder):
        def epoch(self, row, epochs):
            seen.append((row["stage"], sorted(row["terms"]), epochs))

    monkeypatch.setattr(train_network, "TrainingBatches", batches)
    late = {"epochs": 1, "method": {"name": "ce"}, "supervised": "focal", "sampler": "square_root"}
    teacher = {"model": "same", "training": {"epochs": 1, "mix": None}}
    run(config(tmp_path / "run", "kd", late=late, teacher=teacher, epochs=2, mix="mixup", ema_decay=0.9), Watch())
    assert seen == [
        ("teacher", ["supervised"], 1),
        ("student", ["distillation", "supervised"], 2),
        ("student", ["supervised"], 2),
    ]
    assert samplers == [("instance", None), ("instance", "mixup"), ("square_root", None)]


@integration
def test_a_repair_of_its_own_hears_the_teacher(tmp_path):
    late = {"epochs": 1, "method": {"supervised": "balanced_softmax", "targets": ["debias"]}}
    teacher = {"model": "same", "training": {"epochs": 1, "classifier_stage": {"epochs": 1, "supervised": "focal"}}}
    wrong = Experiment.from_mapping(config(tmp_path / "run", "kd", late=late, teacher={"model": "same"}))
    assert wrong.teacher_training.classifier_stage is None
    with pytest.raises(ConfigError, match=r"teacher\.training.*classifier_stage\.epochs is 1 of 1"):
        Experiment.from_mapping(config(tmp_path / "run", "kd", late=late, teacher=teacher))
    teacher["training"]["epochs"] = 2
    folder = run(config(tmp_path / "run", "kd", late=late, teacher=teacher, epochs=2)).folder
    assert [(row["stage"], row["epoch"]) for row in rows(folder)] == [
        *(("teacher", epoch) for epoch in range(2)),
        *(("student", epoch) for epoch in range(2)),
    ]
    assert sorted(rows(folder)[-1]["terms"]) == ["distillation", "supervised"]


@integration
def test_progress_goes_by_all_epochs_of_the_run(tmp_path, monkeypatch):
    begun = []
    real = Method.begin_epoch

    def begin_epoch(method, epoch, epochs):
        begun.append((epoch, epochs))
        real(method, epoch, epochs)

    monkeypatch.setattr(Method, "begin_epoch", begin_epoch)
    run(config(tmp_path / "run", late={"epochs": 1, "method": {"name": "ce"}}))
    assert begun == [(epoch, 4) for epoch in range(4)]


@integration
def test_a_ramp_of_its_method_has_begun_with_the_run(tmp_path):
    late = {"epochs": 1, "method": {"name": "dkd", "warmup": 0.5}}
    folder = run(config(tmp_path / "run", late=late, teacher={"model": "same", "training": {"epochs": 1}})).folder
    assert rows(folder)[-1]["terms"]["distillation"] > 0


@integration
def test_what_the_student_predicted_before_is_remembered_and_resumed(tmp_path):
    def itself(name):
        late = {"epochs": 2, "method": {"name": "kd"}}
        return config(tmp_path / name, "ipwd", late=late, teacher="previous_epoch", epochs=3)

    whole = run(itself("whole")).folder
    assert [row["terms"]["distillation"] > 0 for row in rows(whole)] == [False, True, True]
    with pytest.raises(Interrupted):
        run(itself("run"), Killed("student-classifier", 2))
    again = run(itself("run")).folder
    assert all(torch.equal(value, student(again)[name]) for name, value in student(whole).items())


@integration
def test_what_a_weight_has_learned_before_goes_on_and_is_resumed(tmp_path):
    """The second head of ipwd, by which samples are weighed: not one of random numbers."""

    def heads(name):
        return config(tmp_path / name, "ipwd", late={"epochs": 2}, teacher="same", epochs=8)

    def losses(folder):
        return [row["terms"]["auxiliary"] for row in rows(folder) if row["stage"] == "student"]

    whole = run(heads("whole")).folder
    before, first = losses(whole)[5:7]
    assert first < before + 0.1 < losses(whole)[0] - 0.5
    with pytest.raises(Interrupted):
        run(heads("run"), Killed("student-classifier", 2))
    again = run(heads("run")).folder
    assert losses(again) == losses(whole)
    assert torch.equal(load_target(again).student.label_only, load_target(whole).student.label_only)
    before_stage = load_target(whole).student.label_only
    shutil.rmtree(whole / "checkpoints" / "student-classifier")
    assert not torch.equal(load_target(whole).student.label_only, before_stage), "an audit reads the last head"


@integration
@pytest.mark.filterwarnings("error::UserWarning")
def test_it_may_be_the_first_that_remembers(tmp_path):
    late = {"epochs": 2, "method": {"divergence": "kl"}}
    folder = run(config(tmp_path / "run", late=late, teacher="previous_epoch", epochs=3)).folder
    assert [row["terms"].get("distillation", 0) > 0 for row in rows(folder)] == [False, False, True]


def test_parameters_go_with_their_entries():
    def problems(method, late, teacher="same"):
        changes = config("run", method, late={"epochs": 1, **late}, teacher=teacher)
        return problems_of(Experiment.from_mapping(changes))

    assert not problems({"name": "kd", "label_smoothing": 0.1}, {"supervised": "class_balanced"})
    assert not problems({"name": "bkd", "beta": 0.999}, {"method": {"targets": ["debias"]}})
    assert not problems({"name": "bkd", "beta": 0.999}, {"method": {"targets": [{"name": "reweigh", "beta": 0.9}]}})
    assert not problems({"name": "ipwd", "final_weight": 0.5}, {"supervised": "focal"}, "previous_epoch")
    [own] = problems({"name": "bkd", "beta": 0.999}, {"method": {"targets": ["debias"], "beta": 0.9}})
    assert own.startswith("training.classifier_stage: unknown parameter 'beta'")
    [features] = problems("ipwd", {"method": {"name": "krdistill"}}, "previous_epoch")
    assert features.startswith("training.classifier_stage: representation")


def test_what_it_needs_is_known_and_checked_beforehand():
    def problems(late, method="ce", teacher=None):
        return problems_of(Experiment.from_mapping(config("run", method, late=late, teacher=teacher)))

    assert not problems(LATE)
    [unknown] = problems({"epochs": 1, "supervised": "balanced_softmx"})
    assert unknown.startswith("training.classifier_stage: ")
    assert "'balanced_softmax'" in unknown
    [alone] = problems({"epochs": 1, "method": "kd"})
    assert alone.startswith("teacher: the classifier stage's method 'kd' needs a teacher")
    [whole] = problems({"epochs": 1, "supervised": "focal"}, method="kd")
    assert whole.startswith("teacher: method 'kd' needs a teacher")
    [cosine] = problems({"epochs": 1, "supervised": "ldam"})
    assert cosine.startswith("student.classifier: ")
    late = {"epochs": 1, "method": "kd"}
    teacher = {"model": "same", "training": {"classifier_stage": late}}
    assert "teacher.training.classifier_stage: its method needs a teacher" in " ".join(problems(None, "kd", teacher))
    features = Experiment.from_mapping(config("run", "kd", late={"epochs": 1, "method": "krdistill"}, teacher="same"))
    assert needs_of(features).student_features


def test_it_must_leave_epochs_before_it():
    with pytest.raises(ConfigError, match=r"training: classifier_stage\.epochs is 4 of 4 epochs"):
        Experiment.from_mapping(config("run", late={"epochs": 4}))
    with pytest.raises(ConfigError, match=r"training\.classifier_stage\.samplr: unknown key.*'sampler'"):
        Experiment.from_mapping(config("run", late={"epochs": 1, "samplr": "instance"}))
