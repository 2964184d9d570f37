"""The page of a run, of several runs beside each other, or of a comparison: whatever folder is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from distail.errors import ConfigError
from distail.report.beside import side_by_side
from distail.report.comparison_folder import COMPARISON, comparison_view_from_folder, is_comparison
from distail.report.folder import is_run, run_view_from_folder
from distail.report.page import write_page
from distail.report.views import ReportView


def write_report(path: str | Path, folders: Sequence[str | Path], title: str | None = None) -> Path:
    """Write the page of what `report_view` reads and return its path.

    Raises:
        ConfigError: as `report_view`.
    """
    return write_page(path, report_view(folders, title))


def write_comparison_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a comparison, finished or not, and return its path.

    Raises:
        ConfigError: the folder does not exist.
    """
    return write_page(folder / "report.html", comparison_view_from_folder(folder))


def report_view(folders: Sequence[str | Path], title: str | None = None) -> ReportView:
    """The view of one run's folder, of several beside each other, or of one comparison's folder.

    Raises:
        ConfigError: no folder, one that does not exist or is neither a run nor a comparison, a comparison beside other
            folders, or runs with different classes.
    """
    if not folders:
        raise ConfigError("no folder was named; expected at least one that `distail run` or `distail compare` left.")
    paths = [Path(folder) for folder in folders]
    _check(paths)
    if is_comparison(paths[0]):
        view = comparison_view_from_folder(paths[0])
    elif len(paths) == 1:
        view = run_view_from_folder(paths[0])
    else:
        view = side_by_side([run_view_from_folder(path) for path in paths], [path.resolve().name for path in paths])
    return replace(view, title=title) if title else view


def _check(paths: Sequence[Path]) -> None:
    problems = [problem for path in paths if (problem := _problem(path, alone=len(paths) == 1))]
    if problems:
        raise ConfigError("\n".join(problems))


def _problem(path: Path, *, alone: bool) -> str | None:
    expected = "expected the folder that `distail run` or `distail compare` left"
    if not path.exists():
        return f"there is no folder {str(path)!r}; {expected}."
    if not path.is_dir():
        return f"{str(path)!r} is a file; {expected}."
    if is_comparison(path):
        return None if alone else f"{str(path)!r} is a comparison, which has a page of its own; name it alone."
    if is_run(path):
        return None
    inside = sorted(
        child.name for child in path.iterdir() if child.is_dir() and (is_run(child) or is_comparison(child))
    )
    hint = f" Did you mean {str(path / inside[0])!r}?" if inside else ""
    return (
        f"{str(path)!r} is neither a run nor a comparison: it has no config.yaml, metrics.jsonl, result.json or "
        f"{COMPARISON}; {expected}.{hint}"
    )
