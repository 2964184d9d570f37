"""The classes that a student gained and lost most, with test images and what each model took them for."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from distail.report.samples import Samples
from distail.report.views import ReportView, RunView, difference, recall_by_class, reference

CLASSES_SHOWN = 4
IMAGES_SHOWN = 3
STUDENTS_OPEN = 3


def galleries(view: ReportView) -> list[dict[str, Any]]:
    """For each student, the classes with the largest gains and losses against `reference`, none where there is none."""
    against = reference(view)
    base = None if against is None else recall_by_class(against)
    if against is None or base is None:
        return []
    return [
        _gallery(view, run, against, difference(recalls, base))
        for run in view.runs
        if run.role == "student" and run is not against and (recalls := recall_by_class(run)) is not None
    ]


def data_uri(image_CHW: Tensor) -> str:
    """A uint8 image as a PNG inside a URL; one channel is grey, of more than three the first three are shown."""
    from PIL import Image

    pixels = image_CHW[:3].permute(1, 2, 0).numpy() if len(image_CHW) >= 3 else image_CHW[0].numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def joined_samples(views: Sequence[ReportView]) -> Samples | None:
    """The samples of all runs with the first run's test images, each image once."""
    import torch

    stored = [view.samples for view in views if view.samples is not None and view.test_labels == views[0].test_labels]
    if not stored or any(samples.images.shape[1:] != stored[0].images.shape[1:] for samples in stored):
        return stored[0] if stored else None
    index = torch.cat([samples.index for samples in stored])
    firsts = sorted({int(i): row for row, i in reversed(list(enumerate(index.tolist())))}.values())
    rows = torch.tensor(firsts, dtype=torch.int64)
    labels, images = (torch.cat(parts) for parts in zip(*((s.label, s.images) for s in stored), strict=True))
    return Samples(index[rows], labels[rows], images[rows])


def _gallery(view: ReportView, run: RunView, against: RunView, changes: Sequence[float | None]) -> dict[str, Any]:
    known = [(change, c) for c, change in enumerate(changes) if change]
    gained = [c for change, c in sorted(known, key=lambda pair: (-pair[0], pair[1])) if change > 0][:CLASSES_SHOWN]
    lost = [c for change, c in sorted(known) if change < 0][:CLASSES_SHOWN]
    return {
        "name": run.name,
        "against": against.name,
        "seed": run.seeds[0] if len(run.seeds) > 1 else None,
        "sides": [
            (title, [_card(view, run, against, c, changes[c]) for c in classes])
            for title, classes in (("Gained most", gained), ("Lost most", lost))
        ],
    }


def _card(view: ReportView, run: RunView, against: RunView, c: int, change: float | None) -> dict[str, Any]:
    own, other = recall_by_class(run), recall_by_class(against)
    assert own is not None
    assert other is not None
    return {
        "name": view.class_names[c],
        "count": view.class_counts[c],
        "own": own[c],
        "other": other[c],
        "change": change,
        "images": _images(view, (run, against), c),
    }


def _images(view: ReportView, runs: Sequence[RunView], c: int) -> list[dict[str, Any]]:
    samples = view.samples
    if samples is None:
        return []
    rows = [row for row, label in enumerate(samples.label.tolist()) if label == c][:IMAGES_SHOWN]
    return [
        {
            "source": data_uri(samples.images[row]),
            "width": samples.images.shape[3],
            "height": samples.images.shape[2],
            "said": [(run.name, _said(view, run, int(samples.index[row]), c)) for run in runs],
        }
        for row in rows
    ]


def _said(view: ReportView, run: RunView, index: int, c: int) -> tuple[bool, str] | None:
    """Whether a model was right, and the class that it named; None where its answer was not kept."""
    if not 0 <= index < len(run.predicted):
        return None
    return run.predicted[index] == c, view.class_names[run.predicted[index]]
