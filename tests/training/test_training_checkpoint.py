"""Checkpoints: whole, atomic, hashed, and passed over when damaged."""

import errno
import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save

from distail import files
from distail.errors import CheckpointError
from distail.training.checkpoint import Checkpoint, CheckpointFolder


def checkpoint(step):
    generator = torch.Generator().manual_seed(step)
    return Checkpoint(
        step,
        {
            "student.weight": torch.randn(3, 4, generator=generator),
            "method.scale": torch.tensor(0.5, dtype=torch.float64),
            "half": torch.randn(5, generator=generator).to(torch.bfloat16),
            "count": torch.tensor([step]),
            "empty": torch.zeros(0, 3),
        },
        {"seconds": 1.5, "history": [{"epoch": 0, "loss": 0.1}], "best": None},
    )


def same(one, other):
    return (
        one.step == other.step
        and one.values == other.values
        and one.tensors.keys() == other.tensors.keys()
        and all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
        and all(one.tensors[name].dtype == other.tensors[name].dtype for name in one.tensors)
    )


def test_what_is_saved_is_what_comes_back(tmp_path):
    folder = CheckpointFolder(tmp_path)
    assert folder.latest() is None
    folder.save(checkpoint(7))
    assert same(folder.latest(), checkpoint(7))


def test_two_are_kept_and_the_newest_wins(tmp_path):
    folder = CheckpointFolder(tmp_path)
    for step in (5, 10, 15):
        folder.save(checkpoint(step))
    assert folder.steps() == [10, 15]
    assert folder.latest().step == 15
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-00000010.safetensors",
        "step-00000015.safetensors",
    ]


def test_a_tensor_in_another_memory_format_is_saved_by_value(tmp_path):
    image = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    CheckpointFolder(tmp_path).save(Checkpoint(1, {"image": image}, {}))
    assert torch.equal(CheckpointFolder(tmp_path).latest().tensors["image"], image)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_any_flipped_byte_is_noticed_and_the_one_before_is_used(tmp_path_factory, position, flip):
    folder_path = tmp_path_factory.mktemp("flips")
    warnings = []
    folder = CheckpointFolder(folder_path, warnings.append)
    folder.save(checkpoint(1))
    folder.save(checkpoint(2))
    path = folder_path / "step-00000002.safetensors"
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= flip
    path.write_bytes(content)
    found = folder.latest()
    assert same(found, checkpoint(1)) or same(found, checkpoint(2)), "a flip in padding may change nothing"
    if same(found, checkpoint(1)):
        assert "damaged" in warnings[0]
        assert "step-00000002" in warnings[0]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_passed_over(tmp_path, share):
    warnings = []
    folder = CheckpointFolder(tmp_path, warnings.append)
    folder.save(checkpoint(1))
    folder.save(checkpoint(2))
    path = tmp_path / "step-00000002.safetensors"
    os.truncate(path, int(path.stat().st_size * share))
    assert folder.latest().step == 1
    assert len(warnings) == 1


def test_two_damaged_files_leave_none_and_two_warnings(tmp_path):
    warnings = []
    folder = CheckpointFolder(tmp_path, warnings.append)
    for step in (1, 2):
        folder.save(checkpoint(step))
        (tmp_path / f"step-{step:08d}.safetensors").write_bytes(b"half")
    assert folder.latest() is None
    assert len(warnings) == 2


def test_a_file_of_another_step_under_this_name_is_damage(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save(checkpoint(1))
    (tmp_path / "step-00000001.safetensors").rename(tmp_path / "step-00000009.safetensors")
    assert folder.latest() is None


@pytest.mark.parametrize("problem", [errno.EACCES, errno.ESTALE, errno.EMFILE])
def test_a_checkpoint_that_may_not_be_read_just_now_is_left_alone_and_told(tmp_path, monkeypatch, problem):
    folder = CheckpointFolder(tmp_path)
    folder.save(checkpoint(1))

    def refused(path, framework):
        raise OSError(problem, os.strerror(problem))

    monkeypatch.setattr("safetensors.safe_open", refused)
    with pytest.raises(CheckpointError, match=r"step-00000001\.safetensors cannot be read"):
        folder.latest()
    assert folder.steps() == [1]


def test_a_failing_disk_is_damage(tmp_path, monkeypatch):
    warnings = []
    folder = CheckpointFolder(tmp_path, warnings.append)
    folder.save(checkpoint(1))
    folder.save(checkpoint(2))

    def failing(path, framework):
        if path.name == "step-00000002.safetensors":
            raise OSError(errno.EIO, "Input/output error")
        return safe_open(path, framework)

    monkeypatch.setattr("safetensors.safe_open", failing)
    assert folder.latest().step == 1
    assert "Input/output error" in warnings[0]


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "x.txt"
    files.write_text(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.txt"]


def test_not_a_number_cannot_be_written_as_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_the_same_tensors_and_metadata_are_the_same_bytes(tmp_path):
    metadata = {f"key-{i}": f"wert ü {i}" for i in range(20)}
    tensors = {"b": torch.arange(3), "a": torch.ones(2, 2)}
    contents = set()
    for attempt in range(5):
        path = tmp_path / f"{attempt}.safetensors"
        files.write_tensors(path, tensors, dict(reversed(metadata.items())) if attempt % 2 else metadata)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    with safe_open(path, framework="pt") as file:
        assert metadata.items() <= file.metadata().items()
        assert torch.equal(file.get_tensor("a"), tensors["a"])
        assert torch.equal(file.get_tensor("b"), tensors["b"])


def test_tensors_are_written_as_safetensors_itself_writes_them(tmp_path):
    tensors = {
        "weight": torch.randn(3, 4),
        "half": torch.randn(5).bfloat16(),
        "steps": torch.tensor(7),
        "none": torch.empty(0, 3),
        "mask": torch.tensor([True, False, True]),
        "bytes": torch.arange(9, dtype=torch.uint8),
    }
    path = tmp_path / "x.safetensors"
    files.write_tensors(path, tensors)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert path.read_bytes() == save(tensors, metadata=metadata)
