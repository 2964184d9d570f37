from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from distail.errors import CheckpointError, DataError
from distail.evaluation.predictions import load_predictions, save_predictions


def test_round_trip(tmp_path: Path) -> None:
    logits, target = torch.randn(7, 3, dtype=torch.float64), torch.randint(0, 3, (7,), dtype=torch.int32)
    save_predictions(tmp_path / "new" / "predictions.safetensors", logits, target)
    stored = load_predictions(tmp_path / "new" / "predictions.safetensors")
    assert torch.equal(stored.logits, logits.float())
    assert torch.equal(stored.target, target.long())
    assert (stored.logits.dtype, stored.target.dtype) == (torch.float32, torch.int64)
    assert stored.teacher_logits is None


def test_the_file_is_plain_safetensors_with_the_two_names_of_the_design(tmp_path: Path) -> None:
    save_predictions(tmp_path / "p.safetensors", torch.randn(4, 2).t().contiguous().t(), torch.zeros(4))
    assert set(load_file(tmp_path / "p.safetensors")) == {"logits", "target"}


def test_the_teachers_logits_travel_along(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    logits, teacher, target = torch.randn(4, 2), torch.randn(4, 2, dtype=torch.float64), torch.tensor([0, 1, 1, 0])
    save_predictions(path, logits, target, teacher)
    stored = load_predictions(path)
    assert stored.teacher_logits is not None
    assert torch.equal(stored.teacher_logits, teacher.float())
    assert torch.equal(stored.logits, logits)


def test_nothing_else_is_left_and_others_may_read_it(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        save_predictions(tmp_path / "p.safetensors", torch.zeros(1, 2), torch.zeros(1))
        save_predictions(tmp_path / "p.safetensors", torch.ones(1, 2), torch.zeros(1))
    finally:
        os.umask(umask)
    assert [file.name for file in tmp_path.iterdir()] == ["p.safetensors"]
    assert (tmp_path / "p.safetensors").stat().st_mode & 0o777 == 0o644
    assert torch.equal(load_predictions(tmp_path / "p.safetensors").logits, torch.ones(1, 2))


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.safetensors"
    save_predictions(path, torch.zeros(1, 2), torch.zeros(1))

    def full(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        save_predictions(path, torch.ones(1, 2), torch.zeros(1))
    assert torch.equal(load_predictions(path).logits, torch.zeros(1, 2))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("logits", "target"), [((3, 2), (4,)), ((3,), (3,)), ((3, 2), (3, 1))])
def test_shapes_that_do_not_match_are_refused(tmp_path: Path, logits: tuple[int, ...], target: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="expected"):
        save_predictions(tmp_path / "p.safetensors", torch.zeros(logits), torch.zeros(target))
    assert not list(tmp_path.iterdir())


def test_a_teacher_with_other_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\(2, 3\).*\(4, "):
        save_predictions(tmp_path / "p.safetensors", torch.zeros(4, 3), torch.zeros(4), torch.zeros(2, 3))
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"p\.safetensors"):
        load_predictions(tmp_path / "p.safetensors")


@pytest.mark.parametrize("damage", [b"", b"not safetensors at all", None])
def test_a_damaged_file_is_named(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "p.safetensors"
    save_predictions(path, torch.zeros(50, 2), torch.zeros(50))
    path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)
    with pytest.raises(CheckpointError, match=r"p\.safetensors"):
        load_predictions(path)


def test_a_file_that_holds_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    save_file({"logits": torch.zeros(2, 2), "weights": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"target.*logits, weights"):
        load_predictions(path)
    save_file({"logits": torch.zeros(2, 2), "target": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"\(2, 2\).*\(3,\)"):
        load_predictions(path)
