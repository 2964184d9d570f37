"""The page of a run, of several runs beside each other, or of a comparison: whatever folder is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from distail.errors import ConfigError
from distail.report.gallery import joined_samples
from distail.report.page import write_page
from distail.report.read_comparison import COMPARISON, comparison_view_from_folder, is_comparison
from distail.report.read_run import is_run, run_view_from_folder
from distail.report.views import ReportView, RunView


def multi_run_view(views: Sequence[ReportView], folder_names: Sequence[str]) -> ReportView:
    """Several runs as one view; where their folders are named decides what tells equal names apart.

    Raises:
        ConfigError: runs with different classes.
    """
    named = list(zip(folder_names, views, strict=True))
    first = next((view for view in views if view.class_counts), views[0])
    problems = [f"{name}: {text}" for name, view in named for text in view.problems]
    for name, view in named:
        if view.class_counts and list(view.class_names) != list(first.class_names):
            raise ConfigError(
                f"{name} has {len(view.class_names)} classes ({', '.join(view.class_names[:3])}, …), the first run "
                f"{len(first.class_names)} ({', '.join(first.class_names[:3])}, …); "
                "one page shows runs with equal classes."
            )
    notes = [
        f"{name} was trained on other images than the first run (the subset hashes differ): "
        "their differences are partly due to the data."
        for name, view in named
        if view.class_counts and view.subset_sha256 != first.subset_sha256
    ]
    notes += [
        f"{name} was tested on other images than the first run: its metrics cannot be compared with the others."
        for name, view in named
        if all(each.test_sha256 or each.test_labels for each in (view, first)) and not view.tested_as(first)
    ]
    runs = _merged_runs(named)
    one_teacher = sum(run.role == "teacher" for run in runs) == 1
    biases = [view.bias for view in views if view.bias is not None]
    return ReportView(
        title=", ".join(dict.fromkeys(view.title for view in views)),
        runs=runs,
        class_names=first.class_names,
        class_counts=first.class_counts,
        bias=biases[0] if biases and one_teacher else None,
        config="\n".join(f"# {name}\n{view.config}" for name, view in named),
        versions=first.versions,
        subset_sha256=first.subset_sha256,
        test_sha256=first.test_sha256,
        notes=list(dict.fromkeys([*notes, *(note for view in views for note in view.notes)])),
        problems=problems,
        test_labels=first.test_labels,
        samples=joined_samples(views),
    )


def _merged_runs(named: Sequence[tuple[str, ReportView]]) -> list[RunView]:
    """Teachers first, those with equal metrics once; names that occur twice get their folder's name."""
    kept: list[tuple[str, RunView]] = []
    shown = next((view for _, view in named if view.test_labels), named[0][1])
    for folder, view in named:
        for own in view.runs:
            # Of other test images an answer cannot stand below the shared samples.
            run = own if view.tested_as(shown) else replace(own, predicted=())
            shared = run.role == "teacher" and run.metrics is not None
            if not (shared and any(other.role == "teacher" and other.metrics == run.metrics for _, other in kept)):
                kept.append((folder, run))
    kept.sort(key=lambda pair: pair[1].role != "teacher")
    times = Counter(run.name for _, run in kept)
    return [replace(run, name=f"{run.name} ({folder})") if times[run.name] > 1 else run for folder, run in kept]


def write_report(path: str | Path, folders: Sequence[str | Path]) -> Path:
    """Write the page of what `report_view` reads and return its path.

    Raises:
        ConfigError: as `report_view`.
    """
    return write_page(path, report_view(folders))


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
        raise ConfigError("no folder was named; expected at least one written by `distail run` or `distail compare`.")
    paths = [Path(folder) for folder in folders]
    _check(paths)
    if is_comparison(paths[0]):
        view = comparison_view_from_folder(paths[0])
    elif len(paths) == 1:
        view = run_view_from_folder(paths[0])
    else:
        view = multi_run_view([run_view_from_folder(path) for path in paths], [path.resolve().name for path in paths])
    return replace(view, title=title) if title else view


def _check(paths: Sequence[Path]) -> None:
    problems = [problem for path in paths if (problem := _problem(path, alone=len(paths) == 1))]
    if problems:
        raise ConfigError("\n".join(problems))


def _problem(path: Path, *, alone: bool) -> str | None:
    expected = "expected a folder written by `distail run` or `distail compare`"
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
    what = f"is neither a run nor a comparison: it has no config.yaml, metrics.jsonl, result.json or {COMPARISON}"
    if (path / "search.json").is_file():
        what = f"is a search, whose page is {str(path / 'report.html')!r}, written when `distail search` ends"
    return f"{str(path)!r} {what}; {expected}.{hint}"
