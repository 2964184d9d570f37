"""Full disks and signals, whatever a run is doing: what was there stays, the user is told, the next start goes on."""

import errno
import json
import os
import resource
import signal
import subprocess
from contextlib import ExitStack

import pytest
import torch

import distail
from distail.cli.app import main
from distail.models import FeatureTap
from distail.training.checkpoint import CheckpointFolder
from distail.training.progress import Silent
from distail.training.signals import Interrupted

pytestmark = pytest.mark.integration

BYTES = ("student.safetensors", "teacher.safetensors", "predictions.safetensors")


class Recorder(Silent):
    def __init__(self):
        self.messages = []

    def message(self, text):
        self.messages.append(text)


def experiment(folder):
    """Everything that a run can do: a teacher, its class means, its stored views, a student, validation, evaluation."""
    return {
        "name": "try",
        "output": str(folder),
        "data": {"name": "digits", "imbalance_factor": 20, "validation": 0.1},
        "teacher": {"model": "same", "views": 1, "training": {"epochs": 1}},
        "student": "resnet8",
        "method": "krdistill",
        "training": {"epochs": 2, "batch_size": 128, "learning_rate": 0.05},
        "trainer": {"device": "cpu", "checkpoint_every_steps": 2},
    }


def run(folder, reporter=None):
    return distail.run(experiment(folder), reporter=reporter or Silent())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole") / "run").folder


@pytest.fixture
def read_only(tmp_path):
    """A file system that takes nothing, not even from root."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(folder)], capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "try.yaml"
    path.write_text(json.dumps(experiment(tmp_path / "run")))
    return str(path)


def test_an_output_on_a_read_only_file_system_is_told_before_any_work(read_only, config, capsys):
    assert main(["run", config, f"output={read_only}/run"]) == 2
    said = capsys.readouterr()
    assert f"'{read_only}/run'" in said.err
    assert "Read-only file system" in said.err
    assert said.out == ""


def assert_goes_on_to_the_same_end(folder, whole):
    assert not list(folder.rglob("*.tmp")), "a temporary file was left"
    run(folder)
    for name in BYTES:
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert (folder / "report.html").is_file()


# Full disks


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for one checkpoint and a half; room is made by mounting it again."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k", "none", str(folder)], capture_output=True
    ).returncode:
        pytest.skip("a file system can be mounted by root only")

    def make_room():
        subprocess.run(["mount", "-o", "remount,size=100m", str(folder)], check=True)

    yield folder, make_room
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills_up_keeps_the_older_checkpoint_and_is_told(small_disk, config, whole, capsys):
    folder, make_room = small_disk
    for _ in range(2):  # without room the second attempt gets no further, and spoils nothing
        assert main(["run", config, f"output={folder}/run"]) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert "distail: No space left on device (" in said
        assert "free some space, then run the same command again to resume from the last checkpoint" in said
        found = CheckpointFolder(folder / "run" / "checkpoints" / "teacher")
        assert found.latest().step == found.steps()[0] == 2
        assert not list(folder.rglob("*.tmp"))
    make_room()
    assert main(["run", config, f"output={folder}/run"]) == 0
    assert "teacher: resuming after step 2 of 4" in capsys.readouterr().err
    for name in BYTES:
        assert (folder / "run" / name).read_bytes() == (whole / name).read_bytes()


def test_a_limit_on_the_size_of_files_is_told_and_leaves_no_litter(tmp_path, config, whole, capsys):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        assert main(["run", config]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "File too large" in capsys.readouterr().err
    assert_goes_on_to_the_same_end(tmp_path / "run", whole)


@pytest.mark.parametrize(
    ("problem", "at"),
    [(errno.ENOSPC, 1), (errno.EIO, 7), (errno.EDQUOT, 15), (errno.EIO, 20), (errno.ENOSPC, 25)],
    ids=["configuration", "teacher's checkpoint", "student's checkpoint", "its folder", "result"],
)
def test_any_write_may_fail(tmp_path, whole, monkeypatch, problem, at):
    fsync, calls = os.fsync, []

    def failing(descriptor):
        calls.append(descriptor)
        if len(calls) == at:
            raise OSError(problem, os.strerror(problem))
        fsync(descriptor)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(OSError) as caught:
            run(folder)
    assert caught.value.errno == problem
    assert caught.value.filename.startswith(str(folder))
    assert_goes_on_to_the_same_end(folder, whole)


def test_file_systems_that_cannot_sync_are_used(tmp_path, whole, monkeypatch):
    def unsupported(descriptor):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", unsupported)
    assert_goes_on_to_the_same_end(tmp_path / "run", whole)


def test_a_history_that_cannot_be_written_names_its_file(tmp_path, whole, monkeypatch):
    fsync, history = os.fsync, str(tmp_path / "run" / "metrics.jsonl")

    def full(descriptor):
        if os.readlink(f"/proc/self/fd/{descriptor}") == history:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError) as caught:
            run(tmp_path / "run")
    assert caught.value.filename == history
    assert_goes_on_to_the_same_end(tmp_path / "run", whole)


def test_a_tensorboard_that_cannot_be_written_is_told_of_once_and_ends_nothing(tmp_path, whole):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("a file where its folder should be")
    recorder = Recorder()
    run(tmp_path / "run", recorder)
    assert len([text for text in recorder.messages if "the tracker tensorboard failed" in text]) == 1
    for name in BYTES:
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()


# Signals


class SignalAt(Silent):
    """A signal at the n-th event of some kind that is told to a reporter."""

    def __init__(self, number, kind, wanted, count=1):
        self.number, self.kind, self.wanted, self.count = number, kind, wanted, count
        self.stage = None

    def _tell(self, kind, text):
        if kind == self.kind and self.wanted in text:
            self.count -= 1
            if self.count == 0:
                os.kill(os.getpid(), self.number)

    def message(self, text):
        self._tell("message", text)

    def start(self, stage, epochs, steps_per_epoch, done_steps):
        self.stage = stage
        self._tell("start", stage)

    def step(self):
        self._tell("step", self.stage)


@pytest.mark.parametrize(
    ("kind", "wanted", "count", "saved"),
    [
        ("message", "digits:", 1, False),
        ("step", "teacher", 3, True),
        ("start", "teacher's views", 1, False),
        ("step", "student", 3, True),
    ],
    ids=["data", "teacher", "views", "student"],
)
def test_a_signal_while_something_is_told(tmp_path, whole, kind, wanted, count, saved):
    with pytest.raises(Interrupted) as caught:
        run(tmp_path / "run", SignalAt(signal.SIGTERM, kind, wanted, count))
    assert (caught.value.signal_number, caught.value.saved) == (signal.SIGTERM, saved)
    assert_goes_on_to_the_same_end(tmp_path / "run", whole)


def disturb_reading(patch, disturb):
    patch.setattr("sklearn.datasets.load_digits", disturb)


def disturb_class_means(patch, disturb):
    """The first look of the trained teacher: its own last look was at the validation images."""
    looks = []

    def look(module, images):
        if not module.training and isinstance(module, FeatureTap):
            looks.append(module)
            if len(looks) > 1:
                disturb()

    hook = torch.nn.modules.module.register_module_forward_pre_hook(look)
    patch.callback(hook.remove)


def disturb_writing(name):
    """When the file of this name is synced to the disk."""

    def install(patch, disturb):
        fsync = os.fsync

        def sync(descriptor):
            if name in os.readlink(f"/proc/self/fd/{descriptor}"):
                disturb()
            fsync(descriptor)

        patch.setattr(os, "fsync", sync)

    return install


class Patch(ExitStack):
    """Changes to the world, undone at the end."""

    def setattr(self, *what):
        self.enter_context(pytest.MonkeyPatch.context()).setattr(*what)


@pytest.mark.parametrize(
    ("install", "number", "code"),
    [
        (disturb_reading, signal.SIGINT, 130),
        (disturb_reading, signal.SIGHUP, 129),
        (disturb_class_means, signal.SIGTERM, 143),
        (disturb_writing("predictions.safetensors"), signal.SIGTERM, 143),
        (disturb_writing("report.html"), signal.SIGTERM, 143),
    ],
    ids=["data", "data, terminal closed", "class means", "evaluation", "report"],
)
def test_a_signal_where_no_steps_are_made(tmp_path, config, whole, capsys, install, number, code):
    def disturb(*arguments, **options):
        os.kill(os.getpid(), number)
        raise AssertionError("the work went on")

    with Patch() as patch:
        install(patch, disturb)
        assert main(["run", config]) == code
    said = capsys.readouterr().err
    assert f"distail: stopped by {signal.Signals(number).name}; the same command" in said
    assert "bug" not in said
    if number == signal.SIGTERM:
        assert_goes_on_to_the_same_end(tmp_path / "run", whole)


def test_a_signal_while_a_checkpoint_is_written_lets_it_be_written(tmp_path, whole, monkeypatch):
    fsync, calls = os.fsync, []

    def disturbed(descriptor):
        calls.append(descriptor)
        if len(calls) == 5:  # config.yaml and metrics.jsonl took two each: the file, then its folder
            os.kill(os.getpid(), signal.SIGTERM)
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", disturbed)
        with pytest.raises(Interrupted) as caught:
            run(tmp_path / "run")
    assert caught.value.saved
    assert CheckpointFolder(tmp_path / "run" / "checkpoints" / "teacher").steps()[-1] in (2, 3)
    assert_goes_on_to_the_same_end(tmp_path / "run", whole)
