"""Memories beside checkpoints: none without its checkpoint, and no checkpoint without its memory."""

import pytest
import torch

from distail.methods.presets import create_method
from distail.training.checkpoint import Checkpoint, CheckpointFolder
from distail.training.stage_checkpoints import StageCheckpoints


def stage_checkpoints(path, told):
    method = create_method("ipwd", class_counts=(3, 2), student_dim=2, teacher="previous_epoch")
    return StageCheckpoints(CheckpointFolder(path, told.append), method, told.append)


def memory(step):
    return {"running": torch.full((5, 2), step)}


def save(stage, step):
    stage.save(Checkpoint(step, {"weight": torch.tensor(step)}, {}), memory(step))


def test_a_checkpoint_comes_back_with_its_memory(tmp_path):
    stage = stage_checkpoints(tmp_path, [])
    for step in (4, 5, 6):
        save(stage, step)
    found, remembered = stage_checkpoints(tmp_path, []).newest("")
    assert found.step == 6
    assert torch.equal(remembered["running"], memory(6)["running"])
    assert stage.steps() == CheckpointFolder(tmp_path / "memory").steps() == [5, 6]


def test_a_method_without_a_memory_writes_none(tmp_path):
    stage = StageCheckpoints(CheckpointFolder(tmp_path), create_method("ce", class_counts=(3, 2)), print)
    save(stage, 4)
    assert stage.newest("")[1] == {}
    assert not (tmp_path / "memory").exists()


@pytest.mark.parametrize("content", [None, b"half"])
def test_a_memory_that_is_missing_or_damaged_sends_back_to_the_checkpoint_before(tmp_path, content):
    told = []
    stage = stage_checkpoints(tmp_path, told)
    for step in (4, 5):
        save(stage, step)
    path = tmp_path / "memory" / "step-00000005.safetensors"
    path.unlink()
    if content:
        path.write_bytes(content)
    found, remembered = stage_checkpoints(tmp_path, told).newest("")
    assert found.step == 4
    assert remembered["running"][0, 0] == 4
    assert "predictions of step 5" in told[-1]
    assert CheckpointFolder(tmp_path).steps() == [4]


def test_a_damaged_newest_checkpoint_after_a_kill_before_it_still_leaves_one_to_go_back_to(tmp_path):
    """The predictions of step 6 was written, its checkpoint was not; then the checkpoint of step 5 proves damaged."""
    told = []
    stage = stage_checkpoints(tmp_path, told)
    for step in (4, 5):
        save(stage, step)
    CheckpointFolder(tmp_path / "memory").write(Checkpoint(6, memory(6), {}))
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
    assert [f"predictions of step {step}" in line for step, line in zip((5, 4), told, strict=True)] == [True, True]
    assert not list(tmp_path.rglob("*.safetensors"))


def test_what_a_kill_left_is_forgotten_by_the_next_start(tmp_path):
    stage = stage_checkpoints(tmp_path, [])
    for step in (4, 5):
        save(stage, step)
    CheckpointFolder(tmp_path / "memory").write(Checkpoint(6, memory(6), {}))
    CheckpointFolder(tmp_path).write(Checkpoint(6, {"weight": torch.tensor(6)}, {}))
    assert len(CheckpointFolder(tmp_path).steps()) == 3
    assert stage_checkpoints(tmp_path, []).newest("")[0].step == 6
    assert CheckpointFolder(tmp_path).steps() == CheckpointFolder(tmp_path / "memory").steps() == [5, 6]
