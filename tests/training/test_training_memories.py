"""Memories beside checkpoints: the settled half once an epoch, and none without its checkpoint or the reverse."""

import pytest
import torch

from distail.methods.presets import create_method
from distail.training.checkpoint import Checkpoint, CheckpointFolder
from distail.training.stage_checkpoints import MemoryFolder, StageCheckpoints

STEPS = 4  # an epoch


def method():
    return create_method("ipwd", class_counts=(3, 2), student_dim=2, teacher="previous_epoch")


def memory(step):
    """As a method's: the settled half follows the epoch, the other every step."""
    epoch = (step - 1) // STEPS
    return {"completed": torch.full((5, 2), epoch), "running": torch.full((5, 2), step)}


@pytest.fixture
def folder(tmp_path):
    return MemoryFolder(tmp_path, {"completed"}, STEPS)


def same(found, step):
    return {name: value[0, 0].item() for name, value in found.items()} == {
        "completed": (step - 1) // STEPS,
        "running": step,
    }


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.safetensors"))


def test_what_changes_between_epochs_only_is_written_once_an_epoch(folder, tmp_path):
    folder.save(5, memory(5))
    settled = tmp_path / "by-epoch" / "step-00000001.safetensors"
    written = settled.stat().st_mtime_ns, settled.stat().st_ino
    for step in (6, 7, 8):
        folder.save(step, memory(step))
    assert (settled.stat().st_mtime_ns, settled.stat().st_ino) == written
    folder.save(9, memory(9))
    for step in (5, 8, 9):
        assert same(folder.at(step), step)


def test_a_resumed_run_does_not_trust_the_settled_half_of_a_future_it_left(folder, tmp_path):
    """Another process had gone on to epoch 1; this one resumes in epoch 0 and comes to epoch 1 by itself."""
    folder.save(4, memory(4))
    folder.save(5, {**memory(5), "completed": torch.full((5, 2), 99)})
    resumed = MemoryFolder(tmp_path, {"completed"}, STEPS)
    assert same(resumed.at(4), 4)
    resumed.save(5, memory(5))
    assert same(resumed.at(5), 5)


def test_a_run_resumed_within_an_epoch_does_not_write_its_settled_half_again(folder, tmp_path):
    folder.save(5, memory(5))
    settled = tmp_path / "by-epoch" / "step-00000001.safetensors"
    written = settled.stat().st_ino
    resumed = MemoryFolder(tmp_path, {"completed"}, STEPS)
    resumed.at(5)
    resumed.save(6, memory(6))
    assert settled.stat().st_ino == written
    assert same(resumed.at(6), 6)


def test_only_what_belongs_to_a_checkpoint_is_kept(folder, tmp_path):
    for step in (3, 5, 9, 11):
        folder.save(step, memory(step))
    folder.keep([5, 9])
    assert names(tmp_path) == [
        "by-epoch-copy/step-00000001.safetensors",
        "by-epoch-copy/step-00000002.safetensors",
        "by-epoch/step-00000001.safetensors",
        "by-epoch/step-00000002.safetensors",
        "step-00000005.safetensors",
        "step-00000009.safetensors",
    ]


SETTLED = ["by-epoch/step-00000001.safetensors", "by-epoch-copy/step-00000001.safetensors"]


def spoil(path, content):
    path.unlink()
    if content:
        path.write_bytes(content)


@pytest.mark.parametrize("half", [SETTLED, ["step-00000008.safetensors"]])
@pytest.mark.parametrize("content", [None, b"half"])
def test_a_memory_of_which_a_half_is_missing_or_damaged_is_none(folder, tmp_path, half, content):
    folder.save(8, memory(8))
    for name in half:
        spoil(tmp_path / name, content)
    assert folder.at(8) is None


@pytest.mark.parametrize("copy", SETTLED)
@pytest.mark.parametrize("content", [None, b"half"])
def test_one_damaged_file_of_an_epoch_costs_none_of_its_checkpoints(tmp_path, copy, content):
    told = []
    stage = stage_checkpoints(tmp_path, told)
    for step in (5, 6, 7):
        save(stage, step)
    spoil(tmp_path / "memory" / copy, content)
    resumed = stage_checkpoints(tmp_path, told)
    found, remembered = resumed.newest("")
    assert found.step == 7
    assert same({name: remembered[name] for name in ("completed", "running")}, 7)
    assert resumed.steps() == [6, 7]
    assert len(told) == (content is not None)
    assert all(f"{copy} is damaged" in line and line.endswith("looking for its copy") for line in told)
    save(resumed, 8)
    assert {*SETTLED} < {*names(tmp_path / "memory")}, "made whole again by the next checkpoint"


def stage_checkpoints(path, told):
    return StageCheckpoints(CheckpointFolder(path, told.append), method(), STEPS, told.append)


def save(stage, step):
    stage.save(Checkpoint(step, {"weight": torch.tensor(step)}, {}), {**memory(step), "in_completed": torch.tensor(0)})


def test_a_damaged_newest_checkpoint_after_a_kill_before_it_still_leaves_one_to_go_back_to(tmp_path):
    """The memory of step 6 was written, its checkpoint was not; then the checkpoint of step 5 proves damaged."""
    told = []
    stage = stage_checkpoints(tmp_path, told)
    for step in (4, 5):
        save(stage, step)
    MemoryFolder(tmp_path / "memory", method().settled_memory, STEPS).save(6, memory(6))
    (tmp_path / "step-00000005.safetensors").write_bytes(b"half")
    found, remembered = stage_checkpoints(tmp_path, told).newest("")
    assert found.step == 4
    assert remembered["running"][0, 0] == 4
    assert "damaged" in told[0]


def test_no_memory_left_is_told_and_means_from_the_beginning(tmp_path):
    told = []
    stage = stage_checkpoints(tmp_path, told)
    for step in (4, 5):
        save(stage, step)
    for path in (tmp_path / "memory").glob("*.safetensors"):
        path.unlink()
    assert stage_checkpoints(tmp_path, told).newest("") == (None, {})
    assert told == [f"no memory of step {step}; going back to the one before it" for step in (5, 4)]
    assert names(tmp_path) == []


def test_what_a_kill_left_is_forgotten_by_the_next_start(tmp_path):
    told = []
    stage = stage_checkpoints(tmp_path, told)
    for step in (4, 5):
        save(stage, step)
    CheckpointFolder(tmp_path).write(Checkpoint(6, {"weight": torch.tensor(6)}, {}))
    MemoryFolder(tmp_path / "memory", method().settled_memory, STEPS).save(6, memory(6))
    assert len(CheckpointFolder(tmp_path).steps()) == 3
    assert stage_checkpoints(tmp_path, told).newest("")[0].step == 6
    assert CheckpointFolder(tmp_path).steps() == [5, 6]
    assert CheckpointFolder(tmp_path / "memory").steps() == [5, 6]
