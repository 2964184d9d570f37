"""Whole runs on images that stay on disk: the very files that a run in memory leaves."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from torch import nn

import distail
from distail.errors import ConfigError, DataError, TrainingError
from distail.training.progress import Silent
from distail.training.signals import Interrupted

pytestmark = pytest.mark.integration

LEFT = ("teacher.safetensors", "student.safetensors", "predictions.safetensors")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for label, name in enumerate(("ant", "bee", "cow")):
        for number in range(24):
            levels = np.random.default_rng(100 * label + number).integers(0, 120, (4, 5, 3), dtype=np.uint8)
            levels[..., label] += 100
            (root / name).mkdir(exist_ok=True)
            image = Image.fromarray(levels).resize((30 + number, 50 - number), Image.Resampling.BICUBIC)
            image.save(root / name / f"{number}.{'jpg' if number % 3 else 'png'}")
    return root


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTAIL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def experiment(root: Path, folder: Path, stream: str = "always", **changes: Any) -> dict[str, Any]:
    data = {"name": "folder", "root": str(root), "image_size": 16, "imbalance_factor": 4, "validation": 0.2}
    return {
        "name": "try",
        "output": str(folder),
        "data": {**data, "augment": ["crop", "flip"], "stream": stream, "workers": 1, **changes.pop("data", {})},
        "teacher": {"model": "same", "training": {"epochs": 1}},
        "student": "resnet8",
        "method": "bkd",
        "training": {"epochs": 2, "batch_size": 8, "learning_rate": 0.05, "schedule": "one-cycle"},
        "trainer": {"device": "cpu", "checkpoint_every_steps": 2},
        **changes,
    }


class Listening(Silent):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


class At(Silent):
    """Does something at one step of the student's training."""

    def __init__(self, step: int, act: Any) -> None:
        self.left, self.act, self.stage = step, act, ""

    def start(self, stage: str, epochs: int, steps_per_epoch: int, done_steps: int) -> None:
        self.stage = stage

    def step(self) -> None:
        if self.stage == "student":
            self.left -= 1
            if self.left == 0:
                self.act()


def left_by(config: dict[str, Any], reporter: Silent | None = None) -> dict[str, bytes]:
    folder = distail.run(config, reporter=reporter or Silent()).folder
    return {name: (folder / name).read_bytes() for name in LEFT}


@pytest.fixture(scope="module")
def held(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return left_by(experiment(tree, tmp_path_factory.mktemp("held") / "run", "never"))


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def kill_workers() -> None:
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGKILL)


def test_a_streamed_run_leaves_the_very_same_weights_and_predictions(
    tree: Path, tmp_path: Path, held: dict[str, bytes]
) -> None:
    reporter = Listening()
    config = experiment(tree, tmp_path / "run", data={"workers": 2})
    assert left_by(config, reporter) == held
    assert any(
        message.startswith("images stay on disk (data.stream: always), decoded batch by batch; worker processes: 2")
        for message in reporter.messages
    )
    assert not multiprocessing.active_children()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["timing"]["student"]["images_per_second"] > 0


@pytest.mark.parametrize("stream", ["always", "never"])
def test_an_interrupted_run_goes_on_whichever_way_images_are_held(
    tree: Path, tmp_path: Path, held: dict[str, bytes], stream: str
) -> None:
    with pytest.raises(Interrupted):
        distail.run(experiment(tree, tmp_path / "run"), reporter=At(3, interrupt))
    assert not multiprocessing.active_children()
    assert left_by(experiment(tree, tmp_path / "run", stream, data={"workers": 0})) == held


def test_a_killed_worker_costs_no_more_than_the_checkpoint_interval(
    tree: Path, tmp_path: Path, held: dict[str, bytes]
) -> None:
    with pytest.raises(TrainingError, match="a process that decodes images has ended"):
        distail.run(experiment(tree, tmp_path / "run"), reporter=At(3, kill_workers))
    assert list((tmp_path / "run" / "checkpoints" / "student").glob("*"))
    assert left_by(experiment(tree, tmp_path / "run")) == held


def test_stored_views_of_streamed_images(tree: Path, tmp_path: Path) -> None:
    teacher = {"model": "same", "views": 1, "training": {"epochs": 1}}
    one, other = (left_by(experiment(tree, tmp_path / how, how, teacher=teacher)) for how in ("never", "always"))
    assert one == other


@pytest.mark.parametrize("method", ["krdistill", "ipwd"])
def test_methods_that_look_at_all_images_first_or_keep_a_memory(tree: Path, tmp_path: Path, method: str) -> None:
    one, other = (left_by(experiment(tree, tmp_path / how, how, method=method)) for how in ("never", "always"))
    assert one == other


def test_files_that_go_while_it_trains_are_named(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    shutil.copytree(tree, root)

    def go() -> None:
        for path in root.glob("*/*"):
            path.unlink()

    with pytest.raises(DataError, match=r"no longer are:\n  - (ant|bee|cow)/\d+\.(jpg|png): No such file"):
        distail.run(experiment(root, tmp_path / "run", data={"workers": 0}), reporter=At(2, go))


def test_words_for_how_images_are_held() -> None:
    base = {"name": "x", "student": "resnet8", "method": "ce"}
    for given, stored in ((True, "always"), (False, "never"), ("auto", "auto")):
        config = distail.Experiment.from_mapping({**base, "data": {"name": "folder", "root": "r", "stream": given}})
        assert config.data.stream == stored
    with pytest.raises(ConfigError) as error:
        distail.Experiment.from_mapping(
            {**base, "data": {"name": "folder", "stream": "allways", "workers": -1, "memory_limit_mb": 0}}
        )
    for part in ("data.stream: 'allways' is not valid. Did you mean 'always'", "data.workers", "data.memory_limit_mb"):
        assert part in str(error.value)


def test_data_that_cannot_be_streamed_are_told_before_anything_is_read(tmp_path: Path) -> None:
    config = experiment(tmp_path, tmp_path / "run", data={"name": "digits", "root": None, "image_size": None})
    with pytest.raises(ConfigError, match=r"data\.stream: data set 'digits' cannot be streamed"):
        distail.run(config, reporter=Silent())


def patches(num_classes: int, in_channels: int) -> nn.Module:
    """A network that is quick on large images."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 16, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes)
    )


def runs_of_224_pixels(tree: Path, tmp_path: Path, **changes: Any) -> None:
    changes = {"training": {"epochs": 1, "batch_size": 8, "learning_rate": 0.01}, **changes}
    data = {"image_size": 224, "imbalance_factor": 20, "validation": 0.0}
    one, other = (
        distail.run(experiment(tree, tmp_path / how, how, data=data, **changes), reporter=Silent()).folder
        for how in ("never", "always")
    )
    for name in ("student.safetensors", "predictions.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_224_pixels(tree: Path, tmp_path: Path) -> None:
    runs_of_224_pixels(tree, tmp_path, student=f"{__name__}:patches", teacher=None, method="ce")


def test_224_pixels_with_networks_of_timm(timm: Any, tree: Path, tmp_path: Path) -> None:
    runs_of_224_pixels(tree, tmp_path, student="timm:test_resnet", teacher={"model": "timm:test_vit"}, method="kd")


def test_the_command_line_says_what_happened_without_a_traceback(tree: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    for name in ("ant", "bee"):
        (bad / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (9, 9), (number, 0, 0)).save(bad / name / f"{number}.png")
    (bad / "ant" / "broken.png").write_bytes(b"words")
    (tmp_path / "try.yaml").write_text(yaml.safe_dump(experiment(bad, tmp_path / "run")), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "distail", "run", str(tmp_path / "try.yaml")], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "1 of 13 images cannot be read" in done.stderr
    assert "ant/broken.png: not an image" in done.stderr
    assert "Traceback" not in done.stderr
