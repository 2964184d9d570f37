"""What others read of a run's folder: a whole result, a whole history, and what is said of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from distail.errors import CheckpointError
from distail.evaluation.metrics import evaluate_predictions
from distail.evaluation.run_files import (
    OtherVersionError,
    RunFiles,
    clean_metrics,
    read_epochs,
    read_result,
)


def write(path: Path, **changes: Any) -> Path:
    test = evaluate_predictions(torch.eye(3), torch.tensor([0, 1, 1]), [300, 50, 5])
    content = {"schema_version": 1, "class_counts": [300, 50, 5], "teacher": None, "student": {"test": test}, **changes}
    path.write_text(json.dumps(content))
    return path


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = write(RunFiles(tmp_path).result, name="mine")
    assert read_result(path) == json.loads(path.read_text())


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"class_counts": [1, 0]}, "class_counts"),
        ({"class_counts": "many"}, "class_counts"),
        ({"student": {"test": {"top1": 3.0}}}, "student.test"),
        ({"teacher": {"test": {}}}, "teacher.test"),
        ({"class_counts": [3, 1]}, "student.test"),
    ],
)
def test_a_result_that_lacks_what_everyone_counts_on_is_refused(
    tmp_path: Path, changes: dict[str, Any], culprit: str
) -> None:
    with pytest.raises(CheckpointError, match=culprit) as caught:
        read_result(write(tmp_path / "result.json", **changes))
    assert not isinstance(caught.value, OtherVersionError)


def test_a_result_of_another_version_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(OtherVersionError, match="schema 1"):
        read_result(write(tmp_path / "result.json", schema_version=2))


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_result_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"result\.json"):
        read_result(path)


def test_metrics_that_are_no_numbers_are_not_known() -> None:
    test: dict[str, Any] = {**evaluate_predictions(torch.eye(3), torch.tensor([0, 1, 1]), [300, 50, 5])}
    clean = clean_metrics({**test, "ece": "low", "gmean": float("nan"), "groups": 7}, classes=3)
    assert clean is not None
    assert clean["top1"] == test["top1"]
    assert (clean["ece"], clean["gmean"]) == (None, None)  # type: ignore[typeddict-item]
    assert set(clean["groups"]["thirds"].values()) == {None}


def test_whole_rows_are_read_and_the_others_counted(tmp_path: Path) -> None:
    path = RunFiles(tmp_path).metrics
    assert read_epochs(path) == ([], 0)
    rows = [{"stage": "teacher", "epoch": 0}, {"stage": "student", "epoch": 0}, {"stage": "student", "epoch": 1}]
    lines = [*map(json.dumps, rows), '{"epoch": 2}', "[3]", '{"stage": "stu']
    path.write_text("\n".join(lines))
    assert read_epochs(path) == (rows, 3)
