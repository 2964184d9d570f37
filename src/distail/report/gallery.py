"""The classes that a student gained and lost most, with test images and what each model took them for."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from distail.report.samples import Samples
from distail.report.views import ReportView, RunView, recall_by_class, reference

CLASSES_SHOWN = 4
IMAGES_SHOWN = 3
STUDENTS_OPEN = 3


@dataclass(frozen=True)
class Answer:
    """What a model took an image for."""

    model: str
    correct: bool
    named: str


@dataclass(frozen=True)
class SampleImage:
    """A test image as a URL, with the answers that were kept."""

    source: str
    width: int
    height: int
    answers: list[Answer]


@dataclass(frozen=True)
class ClassCard:
    """A class with the recalls of a student and of the model that it is measured against, in percent."""

    name: str
    count: int
    own: float
    other: float
    images: list[SampleImage]

    @property
    def delta(self) -> float:
        return self.own - self.other


@dataclass(frozen=True)
class Gallery:
    """The classes that one student gained and lost most; ``seed`` is the one whose answers stand below the images."""

    name: str
    against: str
    seed: int | None
    gained: list[ClassCard]
    lost: list[ClassCard]


def galleries(view: ReportView) -> list[Gallery]:
    """For each student, the classes with the largest gains and losses against `reference`, none where there is none."""
    against = reference(view)
    if against is None:
        return []
    return [
        _gallery(view, run, against)
        for run in view.runs
        if run.role == "student" and run is not against and recall_by_class(run) is not None
    ]


def data_uri(image_CHW: Tensor) -> str:
    """A uint8 image as a PNG inside a URL; one channel is gray, of more than three the first three are shown."""
    from PIL import Image

    pixels = image_CHW[:3].permute(1, 2, 0).numpy() if len(image_CHW) >= 3 else image_CHW[0].numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def joined_samples(views: Sequence[ReportView]) -> Samples | None:
    """The samples of all runs with the first run's test images, each image once."""
    import torch

    stored = [view.samples for view in views if view.samples is not None and view.tested_as(views[0])]
    if not stored or any(samples.images.shape[1:] != stored[0].images.shape[1:] for samples in stored):
        return stored[0] if stored else None
    index = torch.cat([samples.index for samples in stored])
    firsts = sorted({int(i): row for row, i in reversed(list(enumerate(index.tolist())))}.values())
    rows = torch.tensor(firsts, dtype=torch.int64)
    labels, images = (torch.cat(parts) for parts in zip(*((s.label, s.images) for s in stored), strict=True))
    return Samples(index[rows], labels[rows], images[rows])


def _gallery(view: ReportView, run: RunView, against: RunView) -> Gallery:
    known = [
        (own - other, c, own, other)
        for c, (own, other) in enumerate(zip(recall_by_class(run) or (), recall_by_class(against) or (), strict=True))
        if own is not None and other is not None
    ]

    def cards(largest: Sequence[tuple[float, int, float, float]]) -> list[ClassCard]:
        return [
            ClassCard(view.class_names[c], view.class_counts[c], own, other, _images(view, (run, against), c))
            for _, c, own, other in largest[:CLASSES_SHOWN]
        ]

    return Gallery(
        name=run.name,
        against=against.name,
        seed=run.seeds[0] if len(run.seeds) > 1 else None,
        gained=cards(sorted((item for item in known if item[0] > 0), key=lambda item: (-item[0], item[1]))),
        lost=cards(sorted(item for item in known if item[0] < 0)),
    )


def _images(view: ReportView, runs: Sequence[RunView], c: int) -> list[SampleImage]:
    samples = view.samples
    if samples is None:
        return []
    rows = [row for row, label in enumerate(samples.label.tolist()) if label == c][:IMAGES_SHOWN]
    return [
        SampleImage(
            source=data_uri(samples.images[row]),
            width=samples.images.shape[3],
            height=samples.images.shape[2],
            answers=_answers(view, runs, int(samples.index[row]), c),
        )
        for row in rows
    ]


def _answers(view: ReportView, runs: Sequence[RunView], index: int, c: int) -> list[Answer]:
    return [
        Answer(run.name, run.predicted[index] == c, view.class_names[run.predicted[index]])
        for run in runs
        if 0 <= index < len(run.predicted)
    ]
