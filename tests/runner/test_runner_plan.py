"""A dry run: it says what the run then does, and leaves nothing."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from distail.data.prepare import prepare_data
from distail.errors import ConfigError, DistailError
from distail.methods import list_methods
from distail.runner.plan import plan_run
from distail.training.signals import Interrupted
from helpers.commands import distail
from helpers.whole_runs import Killed, experiment, run

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_a_plan_counts_images_steps_and_files_as_the_run_does_and_leaves_nothing(tmp_path, ema_decay):
    config = experiment(tmp_path / "out", method="krdistill")
    config["training"] = {**config["training"], "ema_decay": ema_decay}
    plan = plan_run(config)
    assert list(tmp_path.iterdir()) == []
    assert plan.standing is None
    assert plan.seconds > 0
    result = run(config)
    splits = plan.class_counts
    assert list(splits["training"]) == result.figures["class_counts"]
    data = prepare_data("digits", imbalance_factor=20, validation=0.1)
    assert splits["test"] == tuple(data.test.labels.bincount().tolist())
    assert splits["validation"] == tuple(data.validation.labels.bincount(minlength=10).tolist())
    assert [(stage.name, stage.steps) for stage in plan.stages] == [("teacher", 8), ("student", 8)]
    assert {stage.name: stage.macs for stage in plan.stages} == result.figures["macs"]
    assert {stage.name: stage.parameters for stage in plan.stages} == result.figures["parameters"]
    written = {path for path in (tmp_path / "out").iterdir() if path.name not in (".lock", "checkpoints")}
    written |= set((tmp_path / "out" / "checkpoints").iterdir())
    assert set(plan.files) == written
    for path, megabytes in plan.files.items():
        if megabytes is not None:
            found = [path] if path.is_file() else [each for each in path.iterdir() if each.suffix == ".safetensors"]
            size = sum(each.stat().st_size for each in found) / 2**20
            assert megabytes == pytest.approx(size, rel=0.3, abs=0.05), path
    assert "finished" in plan_run(config).standing


def test_a_plan_of_a_stopped_run_says_where_it_stands_and_another_experiment_is_refused(tmp_path):
    config = experiment(tmp_path / "out")
    with pytest.raises(Interrupted):
        run(config, Killed("student", 5))
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert "student after step 5" in plan_run(config).standing
    with pytest.raises(ConfigError, match=r"seed: 0 there, 1 asked for"):
        plan_run({**config, "seed": 1})
    with pytest.raises(DistailError, match="nowhere"):  # the data first: no other output would help
        plan_run({**config, "data": {"name": "folder", "root": str(tmp_path / "nowhere")}})
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_an_output_that_the_run_could_not_write_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    for output, said in (("file", "is a file"), ("file/run", "lies in .*, which is a file")):
        with pytest.raises(ConfigError, match=said):
            plan_run(experiment(tmp_path / output, "ce"))
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # as root may write anywhere
    with pytest.raises(ConfigError, match="no permission to write"):
        plan_run(experiment(tmp_path / "new", "ce"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("method", list_methods())
def test_every_method_can_be_planned(tmp_path, method):
    plan = plan_run(experiment(tmp_path / "out", method=method))
    assert plan.stages[-1].name == "student"


def test_a_plan_with_stored_views_or_itself_as_teacher(tmp_path):
    stored = plan_run(experiment(tmp_path / "out", teacher={"model": "same", "views": 1}))
    assert any("views" in warning for warning in stored.warnings)
    alone = plan_run(experiment(tmp_path / "out", method="kd", teacher="previous_epoch"))
    assert [stage.name for stage in alone.stages] == ["student"]


def test_what_is_odd_about_the_data_is_told(tmp_path):
    plan = plan_run(experiment(tmp_path / "out", data={"name": "digits", "imbalance_factor": 1000}))
    assert set(plan.data.notes) <= set(plan.warnings)
    assert plan.warnings


def write_photos(root, seed):
    for number in range(24):
        part, kind = ("train", "test")[number % 2], ("cat", "cat", "dog")[number // 2 % 3]
        (root / part / kind).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng([seed, number]).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(root / part / kind / f"{number}.png")


def test_other_data_than_the_folders_run_had_is_told_and_so_is_what_the_run_says_of_its_losses(tmp_path):
    write_photos(tmp_path / "photos", seed=0)
    photos = {"name": "folder", "root": str(tmp_path / "photos")}
    teacher = {"model": "resnet8", "supervised": "balanced_softmax"}
    config = experiment(tmp_path / "out", "kd", data=photos, teacher=teacher, training={"epochs": 1, "batch_size": 4})
    said = run(config).figures["notes"]
    assert any("equal class priors" in note for note in said)
    assert list(plan_run(config).warnings) == said
    write_photos(tmp_path / "photos", seed=1)
    changes = [each for each in plan_run(config).warnings if "whose data have changed" in each]
    assert [kind in " ".join(changes) for kind in ("training images", "test images")] == [True, True]


def test_data_that_is_not_there_is_told_with_everything_else(tmp_path):
    missing = {"name": "folder", "root": str(tmp_path / "nope")}
    with pytest.raises(ConfigError, match=r"(?s)method: .*Did you mean.*data\.root: .*nope' does not exist"):
        plan_run(experiment(tmp_path / "out", "bdk", data=missing))


def test_the_plan_on_the_terminal_and_its_exit_codes(tmp_path):
    config = {**experiment("out"), "output": "out"}
    Path(tmp_path / "c.yaml").write_text(yaml.safe_dump(config))

    done = distail("run", "c.yaml", "--plan", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for part in ("Training", "Validation", "Test", "MACs", "minute", "out/student.safetensors", "out/ is new"):
        assert part in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]
    wrong = distail("run", "c.yaml", "--plan", "method.beta=-1", "student=resnte8", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "resnet8" in wrong.stderr
    assert "beta" in wrong.stderr
