"""Several runs on one page: one teacher where they share it, a note where they do not share the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from distail.errors import ConfigError
from distail.report.gallery import joined_samples
from distail.report.views import ReportView, RunView


def side_by_side(views: Sequence[ReportView], folder_names: Sequence[str]) -> ReportView:
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
        "what sets them apart is partly the data."
        for name, view in named
        if view.class_counts and view.subset_sha256 != first.subset_sha256
    ]
    notes += [
        f"{name} was tested on other images than the first run: its figures cannot be held against the others."
        for name, view in named
        if view.test_labels and first.test_labels and list(view.test_labels) != list(first.test_labels)
    ]
    runs = _together(named)
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
        notes=list(dict.fromkeys([*notes, *(note for view in views for note in view.notes)])),
        problems=problems,
        test_labels=first.test_labels,
        samples=joined_samples(views),
    )


def _together(named: Sequence[tuple[str, ReportView]]) -> list[RunView]:
    """Teachers first, those with equal figures once; names that occur twice get their folder's name."""
    kept: list[tuple[str, RunView]] = []
    labels = next((view.test_labels for _, view in named if view.test_labels), ())
    for folder, view in named:
        for own in view.runs:
            # Of other test images an answer cannot stand below the shared samples.
            run = own if view.test_labels == labels else replace(own, predicted=())
            shared = run.role == "teacher" and run.figures is not None
            if not (shared and any(other.role == "teacher" and other.figures == run.figures for _, other in kept)):
                kept.append((folder, run))
    kept.sort(key=lambda pair: pair[1].role != "teacher")
    times = Counter(run.name for _, run in kept)
    return [replace(run, name=f"{run.name} ({folder})") if times[run.name] > 1 else run for folder, run in kept]
