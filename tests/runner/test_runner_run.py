"""Whole runs on digits: what they leave, and that nothing is lost when they stop."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import distail
from distail.compare.metrics import metrics_of
from distail.config.schema import Experiment
from distail.data.prepare import prepare_data
from distail.errors import CheckpointError, ConfigError, ModelError, TrainingError
from distail.evaluation.metrics import evaluate_predictions, metric_at
from distail.evaluation.predictions import load_predictions
from distail.models.weights import load_weights, read_metadata
from distail.runner.checks import check
from distail.runner.networks import build_network
from distail.runner.run_folder import RunFolder
from distail.training.device import RuntimeDevice
from distail.training.predict import predict
from distail.training.signals import Interrupted
from helpers.whole_runs import Killed, Recorder, experiment, run

METRICS = metrics_of(multi_label=False)

pytestmark = pytest.mark.integration

COSINE = {"model": "resnet8", "classifier": "cosine"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    return run(experiment(folder))


def test_the_result_has_every_key_of_the_contract(finished):
    result = json.loads((finished.folder / "result.json").read_text())
    assert result == finished.figures
    assert {"schema_version", "subset_sha256", "class_counts", "parameters", "macs", "versions"} <= result.keys()
    for stage in ("teacher", "student"):
        test = result[stage]["test"]
        assert {"top1", "balanced_accuracy", "macro_f1", "worst_class", "ece", "per_class_recall"} <= set(test)
        assert all(metric_at(test, path) is not None for path in METRICS if not path.startswith("groups."))
        assert set(test["groups"]["shots"]) == {"many", "medium", "few"}
        assert set(test["groups"]["thirds"]) == {"head", "medium", "tail"}
        assert result["timing"][stage]["seconds"] > 0
        assert result["timing"][stage]["images_per_second"] > 0
        assert result["parameters"][stage] == 77754
        assert result["macs"][stage] > 0
        deployed = result["deployment"][stage]
        assert deployed["bytes"] == (finished.folder / f"{stage}.safetensors").stat().st_size
        assert (deployed["latency"]["batch"], deployed["latency"]["threads"]) == (1, 1)
        assert 0 < deployed["latency"]["median_ms"] <= deployed["latency"]["p95_ms"]
        assert deployed["processor"]
    assert set(result["student"]["best_on_validation"]) == {"epoch", "validation", "test"}
    assert len(result["class_counts"]) == 10
    assert min(result["class_counts"]) >= 1


def test_the_folder_holds_what_the_design_says(finished):
    names = {path.name for path in finished.folder.iterdir()}
    assert {
        "config.yaml",
        "metrics.jsonl",
        "result.json",
        "predictions.safetensors",
        "samples.safetensors",
        "teacher.safetensors",
        "student.safetensors",
        "checkpoints",
        "report.html",
        "tensorboard",
    } <= names


def test_any_metric_can_be_computed_again_from_the_predictions(finished):
    stored, counts = load_predictions(finished.folder / "predictions.safetensors"), finished.figures["class_counts"]
    assert len(stored.target) == 359
    assert evaluate_predictions(stored.logits, stored.target, counts) == finished.student
    assert evaluate_predictions(stored.teacher_logits, stored.target, counts) == finished.teacher


def test_the_stored_student_gives_the_stored_predictions(finished):
    network = distail.models.create_model("resnet8", num_classes=10, in_channels=1)
    network.load_state_dict(load_file(finished.folder / "student.safetensors"))
    assert sum(p.numel() for p in network.parameters()) == finished.figures["parameters"]["student"]
    described = read_metadata(finished.folder / "student.safetensors")
    assert described["model"] == "resnet8"
    assert len(json.loads(described["class_names"])) == 10


def test_a_finished_run_returns_at_once_and_changes_nothing(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*") if path.name != ".lock"}
    recorder = Recorder()
    again = run(experiment(finished.folder), recorder)
    assert again.figures == finished.figures
    assert recorder.started == []
    assert before == {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*") if path.name != ".lock"}


def test_the_same_config_and_seed_give_the_same_numbers(finished, tmp_path):
    again = run(experiment(tmp_path / "again"))
    assert again.student == finished.student
    assert again.teacher == finished.teacher
    for name in ("teacher.safetensors", "student.safetensors"):
        assert (again.folder / name).read_bytes() == (finished.folder / name).read_bytes()


def test_another_seed_gives_another_subset_and_other_numbers(finished, tmp_path):
    other = run(experiment(tmp_path / "other", seed=1))
    assert other.figures["subset_sha256"] != finished.figures["subset_sha256"]
    assert other.student != finished.student


@pytest.mark.parametrize(("stage", "step"), [("teacher", 1), ("teacher", 5), ("student", 4)])
def test_a_stopped_run_ends_with_the_same_files_byte_for_byte(finished, tmp_path, stage, step):
    with pytest.raises(Interrupted):
        run(experiment(tmp_path / "run"), Killed(stage, step))
    assert not (tmp_path / "run" / "result.json").exists()
    recorder = Recorder()
    again = run(experiment(tmp_path / "run"), recorder)
    assert dict(recorder.started)[stage] == step
    for name in ("teacher.safetensors", "student.safetensors"):
        assert (again.folder / name).read_bytes() == (finished.folder / name).read_bytes()
    assert again.student == finished.student
    lines = [json.loads(line) for line in (again.folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["epoch"]) for line in lines] == [
        ("teacher", 0),
        ("teacher", 1),
        ("student", 0),
        ("student", 1),
    ]


def test_one_stage_checkpoints_stay_small(tmp_path):
    result = run(experiment(tmp_path / "run", method="ipwd", teacher="previous_epoch"))
    steps = list((result.folder / "checkpoints" / "student").glob("*.safetensors"))
    assert steps
    assert all("memory" not in name for path in steps for name in load_file(path))
    assert list((result.folder / "checkpoints" / "student" / "memory").glob("*.safetensors"))


def test_a_memory_above_the_limit_stops_the_run_before_training(tmp_path):
    changes = {"method": {"name": "ipwd", "num_samples": 10**6}, "teacher": "previous_epoch"}
    recorder = Recorder()
    with pytest.raises(ConfigError, match=r"1,000,000 images: 43 MB .* trainer\.cache_limit_mb: 42"):
        run(experiment(tmp_path / "run", trainer={"device": "cpu", "cache_limit_mb": 42}, **changes), recorder)
    assert recorder.started == []
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_lost_memory_sends_the_run_back_to_the_checkpoint_before(tmp_path):
    changes = {"method": "ipwd", "teacher": "previous_epoch"}
    whole = run(experiment(tmp_path / "whole", **changes))
    with pytest.raises(Interrupted):
        run(experiment(tmp_path / "parts", **changes), Killed("student", 5))
    newest = sorted((tmp_path / "parts" / "checkpoints" / "student" / "memory").iterdir())[-1]
    newest.write_bytes(b"damaged")
    recorder = Recorder()
    parts = run(experiment(tmp_path / "parts", **changes), recorder)
    assert recorder.started == [("student", 3)]
    assert any("damaged" in message for message in recorder.messages)
    assert (parts.folder / "student.safetensors").read_bytes() == (whole.folder / "student.safetensors").read_bytes()


def test_a_loaded_teacher_is_used_as_it_is(finished, tmp_path):
    teacher = {"model": "same", "checkpoint": str(finished.folder / "teacher.safetensors")}
    result = run(experiment(tmp_path / "run", teacher=teacher))
    assert result.teacher == finished.teacher
    assert result.figures["timing"]["teacher"] is None
    assert result.student == finished.student


def test_a_stopped_run_with_a_loaded_teacher_goes_on_with_that_teacher(finished, tmp_path):
    teacher = {"model": "same", "checkpoint": str(finished.folder / "teacher.safetensors")}
    with pytest.raises(Interrupted):
        run(experiment(tmp_path / "run", teacher=teacher), Killed("student", 4))
    recorder = Recorder()
    result = run(experiment(tmp_path / "run", teacher=teacher), recorder)
    assert recorder.started == [("student", 4)]
    assert result.teacher == finished.teacher
    assert result.student == finished.student


def test_cross_entropy_needs_no_teacher_and_ignores_one(tmp_path):
    without = run(experiment(tmp_path / "without", "ce", teacher=None))
    ignored = run(experiment(tmp_path / "ignored", "ce"))
    assert without.teacher is None
    assert without.figures["macs"]["teacher"] is None
    assert without.student == ignored.student


def test_no_validation_uses_every_image_and_has_no_best_epoch(tmp_path):
    data = {"name": "digits", "imbalance_factor": 20, "validation": 0}
    result = run(experiment(tmp_path / "run", "ce", data=data))
    assert result.figures["student"]["best_on_validation"] is None
    assert json.loads((result.folder / "metrics.jsonl").read_text().splitlines()[0])["validation"] is None


def test_a_student_starts_from_its_checkpoint(finished, tmp_path):
    student = {"model": "resnet8", "checkpoint": str(finished.folder / "student.safetensors")}
    result = run(experiment(tmp_path / "run", "ce", student=student, training={"epochs": 1, "learning_rate": 1e-9}))
    first = json.loads((result.folder / "metrics.jsonl").read_text().splitlines()[0])
    last_before = json.loads((finished.folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert first["validation"]["top1"] == pytest.approx(last_before["validation"]["top1"], abs=10)


def test_dive_trains_its_teacher_as_its_paper_does(tmp_path):
    own = run(experiment(tmp_path / "own", "dive"))
    shared = run(
        experiment(
            tmp_path / "shared", "dive", teacher={"model": "same", "supervised": "ce", "training": {"epochs": 2}}
        )
    )
    assert own.teacher != shared.teacher


def test_a_free_composition_runs(tmp_path):
    method = {
        "supervised": "balanced_softmax",
        "targets": ["swap", {"name": "reweigh", "beta": 0.99}],
        "temperature": 2.0,
    }
    result = run(experiment(tmp_path / "run", method))
    assert result.figures["method"] == "composition"
    assert set(json.loads((result.folder / "metrics.jsonl").read_text().splitlines()[-1])["terms"]) == {
        "supervised",
        "distillation",
    }


def test_a_folder_of_another_experiment_is_refused_with_every_difference(finished):
    other = experiment(finished.folder, "kd", seed=3)
    with pytest.raises(ConfigError) as caught:
        run(other)
    assert "method.name: 'bkd' there, 'kd' asked for" in str(caught.value)
    assert "seed: 0 there, 3 asked for" in str(caught.value)


def test_the_trainer_section_may_change_between_starts(finished):
    again = run(experiment(finished.folder, trainer={"device": "cpu", "checkpoint_every_steps": 50}))
    assert again.figures == finished.figures


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_what_would_change_the_rest_of_a_run_may_not_change_between_starts(finished, device):
    changed = {"device": device, "precision": "bf16", "sync_batch_norm": True}
    with pytest.raises(ConfigError) as caught:
        RunFolder(finished.folder).stored_experiment(
            Experiment.from_mapping(experiment(finished.folder, trainer=changed))
        )
    assert str(caught.value).splitlines()[1:] == [
        "  - trainer.precision: 'fp32' there, 'bf16' asked for",
        "  - trainer.sync_batch_norm: False there, True asked for",
    ]


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_a_begun_run_keeps_its_number_format(tmp_path, precision):
    """What was chosen then is what `auto` means now; anything else is refused, also before the run is finished."""

    def asked(precision):
        trainer = {"device": "cpu", "precision": precision, "checkpoint_every_steps": 3}
        return experiment(tmp_path / "run", "ce", teacher=None, trainer=trainer)

    with pytest.raises(Interrupted):
        run(asked("fp32"), Killed("student", 2))
    with pytest.raises(ConfigError, match=r"trainer\.precision: 'fp32' there, 'bf16' asked for"):
        run(asked("bf16"))
    result = run(asked(precision))
    assert result.figures["versions"]["precision"] == "fp32"
    assert result.figures["config"]["trainer"]["precision"] == precision
    with pytest.raises(ConfigError, match=r"trainer\.precision"):
        run(asked("bf16"))


@pytest.mark.parametrize(
    ("method", "validation", "said"),
    [("kd", 0.1, "teacher, after epoch 1: validation: "), ("ce", 0, "student, after epoch 1: test: ")],
)
def test_a_network_that_diverged_in_its_last_step_is_no_fault_of_the_images(
    tmp_path, monkeypatch, method, validation, said
):
    (tmp_path / "diverging.py").write_text(
        "from torch import nn\n"
        "class Network(nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.classifier = nn.Linear(64, num_classes)\n"
        "    def forward(self, images):\n"
        "        logits = self.classifier(images.flatten(1))\n"
        "        if not self.training:\n"
        "            logits[3:4, 2] = float('nan')\n"
        "        return logits\n"
    )
    monkeypatch.chdir(tmp_path)
    changes = {"student": "diverging:Network", "training": {"epochs": 1, "batch_size": 256}}
    data = {"name": "digits", "imbalance_factor": 20, "validation": validation}
    with pytest.raises(TrainingError, match=said + r"the logits of 1 of \d+ images are not finite.*another output"):
        run(experiment(tmp_path / "run", method, teacher={"model": "same"}, data=data, **changes))


def test_every_problem_with_methods_networks_and_files_is_told_before_images_are_read(tmp_path):
    wrong = experiment(
        tmp_path / "run",
        {"name": "bkd", "betta": 0.9, "temperature": -1},
        student={"model": "resnet9", "checkpoint": "nowhere.safetensors"},
        teacher={"model": "resnet33", "checkpoint": str(tmp_path), "supervised": "focall"},
        data={"name": "no-such-data"},
    )
    with pytest.raises(ConfigError) as caught:
        run(wrong)
    message = str(caught.value)
    assert message.startswith("8 problems in try:")
    for part in ("no-such-data", "resnet9", "betta", "method: temperature is -1", "resnet33", "focall"):
        assert part in message
    assert "student.checkpoint: no file 'nowhere.safetensors'" in message
    assert f"teacher.checkpoint: '{tmp_path}' is a folder; expected a file of weights" in message
    assert "Did you mean 'beta'" in message
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_wrong_keys_are_told_together_with_what_is_wrong_with_the_rest(tmp_path):
    wrong = experiment(
        tmp_path / "run",
        {"name": "bkd", "beta": 2},
        seed=-1,
        student={"model": "resnet9", "clasifier": "linear"},
        teacher={"model": "same", "views": "many", "training": {"epoch": 3}},
        data={"name": "no-such-data", "augment": ["crop", "flp"]},
    )
    with pytest.raises(ConfigError) as caught:
        run(wrong)
    message = str(caught.value)
    assert message.startswith("9 problems in the experiment:")
    for part in (
        "seed: ",
        "student.clasifier: unknown key. Did you mean 'classifier'?",
        "teacher.views: ",
        "teacher.training.epoch: unknown key. Did you mean 'epochs'?",
        "data.augment.1: 'flp' is not valid. Did you mean 'flip'?",
        "data.name: unknown data set 'no-such-data'",
        "student.model: ",
        "teacher.model: ",
        "method: beta is 2",
    ):
        assert f"  - {part}" in message


def test_what_stands_in_for_a_wrong_key_is_not_complained_about(tmp_path):
    """The method needs the teacher that cannot be read: it is not missing."""
    with pytest.raises(ConfigError) as caught:
        run(experiment(tmp_path / "run", "bkd", teacher=3, seed="x"))
    message = str(caught.value)
    assert message.startswith("2 problems in the experiment:")
    assert "needs a teacher" not in message


def foreign(finished, path, **changes):
    """The finished run's teacher as a file of its own, with other words about its data."""
    told = {**read_metadata(finished.folder / "teacher.safetensors"), **changes}
    save_file(load_file(finished.folder / "teacher.safetensors"), path, {k: v for k, v in told.items() if v})
    return {"model": "resnet8", "checkpoint": str(path)}


def test_a_loaded_teacher_sees_images_normalized_as_it_was_trained_on(finished, tmp_path):
    own = finished.figures["teacher"]["test"]
    short = {"training": {"epochs": 1, "batch_size": 256}}
    same = run(experiment(tmp_path / "same", "kd", teacher=foreign(finished, tmp_path / "a.safetensors"), **short))
    assert same.figures["teacher"]["test"] == own
    elsewhere = foreign(finished, tmp_path / "b.safetensors", mean="[0.9]", std="[0.05]", subset_sha256="cafe")
    other = run(experiment(tmp_path / "other", "kd", teacher=elsewhere, **short))
    trained = Experiment.from_yaml(other.folder / "config.yaml")
    data = prepare_data(trained.data, seed=trained.seed)
    network = build_network(trained.teacher.model, "linear", data)
    load_weights(network.model, tmp_path / "b.safetensors", what="teacher")
    expected = predict(network, data.test, [0.9], [0.05], RuntimeDevice(torch.device("cpu"), "fp32"))
    found = load_predictions(other.folder / "predictions.safetensors").teacher_logits
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert other.figures["teacher"]["test"] != own
    told = read_metadata(tmp_path / "other" / "teacher.safetensors")
    assert (told["mean"], told["std"], told["subset_sha256"]) == ("[0.9]", "[0.05]", "cafe")


def test_what_a_loaded_teacher_was_trained_on_is_not_made_up(finished, tmp_path):
    silent = foreign(finished, tmp_path / "a.safetensors", mean=None, std=None, subset_sha256=None)
    short = {"training": {"epochs": 1, "batch_size": 256}}
    done = run(experiment(tmp_path / "run", "kd", teacher=silent, **short))
    assert done.figures["teacher"]["test"] == finished.figures["teacher"]["test"]
    assert not {"mean", "std", "subset_sha256"} & read_metadata(tmp_path / "run" / "teacher.safetensors").keys()


def test_a_normalization_that_is_none_is_told(finished, tmp_path):
    damaged = foreign(finished, tmp_path / "a.safetensors", mean="half")
    with pytest.raises(CheckpointError, match=r"a\.safetensors'?: mean: it says 'half'; expected"):
        run(experiment(tmp_path / "run", "kd", teacher=damaged))


def test_a_teacher_of_which_only_the_weights_are_left_is_not_trained_again(tmp_path):
    asked = experiment(tmp_path / "run")
    with pytest.raises(Interrupted):
        run(asked, Killed("student", 4))
    folder = RunFolder(tmp_path / "run")
    before = folder.weights("teacher").read_bytes()
    shutil.rmtree(folder.checkpoints("teacher"))
    recorder = Recorder()
    run(asked, recorder)
    assert [stage for stage, _ in recorder.started] == ["student"]
    assert any("the teacher's checkpoints are missing" in message for message in recorder.messages)
    assert folder.weights("teacher").read_bytes() == before


def test_ldam_takes_margins_off_cosines(tmp_path):
    margins = {"name": "ce", "supervised": "ldam"}
    with pytest.raises(ConfigError, match=r"student\.classifier: 'linear', but ldam"):
        run(experiment(tmp_path / "run", margins, teacher=None))
    with pytest.raises(ConfigError, match=r"teacher\.classifier: 'linear', but ldam") as caught:
        run(experiment(tmp_path / "run", "kd", teacher={"model": "resnet8", "supervised": "ldam"}))
    assert str(caught.value).startswith("1 problem")
    check(Experiment.from_mapping(experiment(tmp_path / "run", margins, teacher=None, student=COSINE)))
    own = {"model": "os:getcwd"}
    check(Experiment.from_mapping(experiment(tmp_path / "run", margins, teacher=None, student=own)))


def test_what_is_measured_is_measured_in_float32(finished):
    """In bf16 several logits are often the highest, and the most frequent class among them would win."""
    trained = Experiment.from_yaml(finished.folder / "config.yaml")
    data = prepare_data(trained.data, seed=trained.seed)
    network = build_network(trained.student.model, "linear", data)
    load_weights(network.model, finished.folder / "student.safetensors", what="student")
    exact, from_bf16 = (
        predict(network, data.test, data.mean, data.std, RuntimeDevice(torch.device("cpu"), precision))
        for precision in ("fp32", "bf16")
    )
    assert torch.equal(exact, from_bf16)


def test_a_method_without_its_teacher_is_a_clear_error(tmp_path):
    with pytest.raises(ConfigError, match="method 'bkd' needs a teacher"):
        run(experiment(tmp_path / "run", teacher=None))


def test_a_teacher_of_other_classes_is_refused(finished, tmp_path):
    from safetensors.torch import save_file

    tensors = load_file(finished.folder / "teacher.safetensors")
    names = [str(i) for i in range(10)]
    for changed, said in (([*names[:9], "ten"], "only in the data: ['9']"), (names[::-1], "in another order")):
        path = tmp_path / "teacher.safetensors"
        save_file(tensors, path, {"class_names": json.dumps(changed)})
        with pytest.raises(ModelError) as caught:
            run(experiment(tmp_path / "run", teacher={"model": "same", "checkpoint": str(path)}))
        assert said in str(caught.value)
    right = {"model": "same", "checkpoint": str(finished.folder / "teacher.safetensors")}
    assert run(experiment(tmp_path / "run", teacher=right, training={"epochs": 1})).student, "the folder is still free"


def test_a_user_network_by_import_path(tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text(
        "from torch import nn\n"
        "def tiny(num_classes, in_channels):\n"
        "    body = nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, 16), nn.ReLU())\n"
        "    return nn.Sequential(body, nn.Linear(16, num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    result = run(experiment(tmp_path / "run", "ce", student="my_networks:tiny", teacher=None))
    assert result.figures["parameters"]["student"] == 64 * 16 + 16 + 160 + 10


def test_results_are_returned_for_an_experiment_a_mapping_and_a_path_alike(finished, tmp_path):
    as_experiment = Experiment.from_mapping(experiment(finished.folder))
    path = tmp_path / "x.yaml"
    path.write_text(as_experiment.to_yaml())
    assert run(as_experiment).figures == run(str(path)).figures == finished.figures


def test_training_leaves_torchs_generator_alone(tmp_path):
    torch.manual_seed(123)
    expected = torch.rand(1)
    torch.manual_seed(123)
    run(experiment(tmp_path / "run", "ce", training={"epochs": 1, "batch_size": 512}))
    assert torch.equal(torch.rand(1), expected)
