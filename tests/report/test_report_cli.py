"""`distail report` as a user meets it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import distail

pytestmark = pytest.mark.integration

MakeFolder = Callable[..., Path]


def report(*arguments: str, cwd: Path) -> Any:
    return distail("report", *arguments, cwd=cwd)


def test_a_comparison_gets_its_page_and_figures_in_its_folder(make_comparison: MakeFolder, tmp_path: Path) -> None:
    folder = make_comparison()
    done = report("comparison", "--title", "A title & more", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "comparison/report.html: open it in a browser." in done.stdout
    assert "recall, groups, error-flow, reliability, cost, as PNG and SVG" in done.stdout
    assert "<h1>A title &amp; more</h1>" in (folder / "report.html").read_text(encoding="utf-8")
    names = {
        f"{name}.{end}" for name in ("recall", "groups", "error-flow", "reliability", "cost") for end in ("png", "svg")
    }
    assert {path.name for path in (folder / "figures").iterdir()} == names


def test_several_runs_get_one_page_where_the_user_is(make_folder: MakeFolder, tmp_path: Path) -> None:
    make_folder("a", method="kd")
    broken = make_folder("b", method="bkd", seed=3)
    (broken / "result.json").write_text('{"schema')
    done = report("a", "b", "--no-figures", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "report.html: open it in a browser.",
        "one thing is missing; the page says what.",
    ]
    assert "result.json cannot be read" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not (tmp_path / "figures").exists()


def test_what_is_no_run_is_bad_input_and_leaves_nothing(make_folder: MakeFolder, tmp_path: Path) -> None:
    make_folder("runs/kd")
    done = report("runs", "nowhere", "--output", "new/page.html", cwd=tmp_path)
    assert done.returncode == 2
    assert "'runs' is neither a run nor a comparison" in done.stderr
    assert "Did you mean 'runs/kd'?" in done.stderr
    assert "there is no folder 'nowhere'" in done.stderr
    assert not (tmp_path / "new").exists()
    done = report("runs/kd", "--output", "runs", cwd=tmp_path)
    assert done.returncode == 2
    assert "'runs' is a folder; expected a file, such as 'runs/report.html'" in done.stderr
