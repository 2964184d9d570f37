"""An audit of a run whose folder lacks a file, or holds one that is not its own; and results that say too little."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import distail
from distail.cli.app import main
from distail.training.progress import Silent


def experiment(folder: Path, teacher: str | None) -> dict[str, object]:
    return {
        "name": "try",
        "output": str(folder),
        "data": {"name": "digits", "imbalance_factor": 20, "validation": 0.1},
        "teacher": teacher,
        "student": "resnet8",
        "method": "kd" if teacher else "ce",
        "training": {"epochs": 1, "batch_size": 256},
        "trainer": {"device": "cpu"},
    }


def test_a_missing_teacher_is_not_taken_for_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = distail.run(experiment(tmp_path / "run", "same"), reporter=Silent()).folder
    (folder / "teacher.safetensors").unlink()
    assert main(["audit", str(folder)]) == 2
    told = capsys.readouterr().err
    assert "had a teacher, but its teacher.safetensors is missing" in told
    assert "it had no teacher" not in told
    assert main(["audit", str(folder / "student.safetensors"), str(folder / "config.yaml")]) == 0


def test_a_file_that_the_run_never_wrote_and_a_result_that_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = distail.run(experiment(tmp_path / "[" / "x]", None), reporter=Silent()).folder
    shutil.copy(folder / "student.safetensors", folder / "teacher.safetensors")
    assert main(["audit", str(folder)]) == 0
    assert "it had no teacher" in " ".join(capsys.readouterr().out.split())
    shutil.rmtree(folder / "checkpoints")
    (folder / "result.json").write_text('{"schema_version": 1}')
    assert main(["evaluate", str(folder)]) == 2
    assert "holds no usable class_counts" in capsys.readouterr().err
    assert main(["run", str(folder / "config.yaml")]) == 2
    assert "holds no usable class_counts" in capsys.readouterr().err


def test_brackets_in_a_folders_name_are_not_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    from distail.cli.show import print_run

    folder = tmp_path / "[" / "x]"
    print_run(distail.run(experiment(tmp_path / "[bold]y", None), reporter=Silent()).folder, Console())
    assert f"{tmp_path}/[bold]y/report.html shows it per class." in capsys.readouterr().out
    shutil.copytree(tmp_path / "[bold]y", folder)
    print_run(folder, Console())


def test_a_page_below_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "d.yaml").write_text("name: d\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("name: d\n")
    assert main(["report", str(tmp_path / "run"), "--output", str(tmp_path / "d.yaml" / "x.html")]) == 2
    assert f"{str(tmp_path / 'd.yaml')!r} is a file; expected a folder, or a new name" in capsys.readouterr().err
