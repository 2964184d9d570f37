"""Which classes a student takes for which, and where it is sure and wrong: from a run's `predictions.csv`."""

from __future__ import annotations

import csv
import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distail.errors import CheckpointError
from distail.json_values import as_number

SHOWN = 15


@dataclass(frozen=True)
class Mistake:
    """A test image, by its file, that the student took for another class, and how sure it was (0 to 1)."""

    path: str
    label: str
    answer: str
    probability: float


@dataclass(frozen=True)
class ConfusedPair:
    """How many images of a class the student took for another one, and what percent of the class that is."""

    label: str
    answer: str
    images: int
    share: float


@dataclass(frozen=True)
class Mistakes:
    """The most of each, largest first; `wrong` of `images` test images, in `confused` different pairs."""

    images: int
    wrong: int
    confused: int
    pairs: list[ConfusedPair]
    sure: list[Mistake]


def read_mistakes(path: Path, shown: int = SHOWN) -> Mistakes | None:
    """What a `predictions.csv` says; None where there is none, as in runs of earlier versions.

    However many classes there are, only pairs that occur are counted.

    Raises:
        CheckpointError: it cannot be read, or is no such table.
    """
    if not path.is_file():
        return None
    images: Counter[str] = Counter()
    confused: Counter[tuple[str, str]] = Counter()
    wrong: list[Mistake] = []
    for row in _rows(path):
        images[row.label] += 1
        if row.label != row.answer:
            confused[row.label, row.answer] += 1
            wrong.append(row)
    pairs = heapq.nsmallest(shown, confused.items(), key=lambda item: (-item[1], item[0]))
    return Mistakes(
        images=images.total(),
        wrong=len(wrong),
        confused=len(confused),
        pairs=[ConfusedPair(*pair, count, 100 * count / images[pair[0]]) for pair, count in pairs],
        sure=heapq.nsmallest(shown, wrong, key=lambda row: (-row.probability, row.path)),
    )


def _rows(path: Path) -> Iterator[Mistake]:
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = csv.DictReader(file)
            if not {"path", "label", "answer", "probability"} <= set(rows.fieldnames or ()):
                raise CheckpointError(f"{path.name} does not have the columns path, label, answer and probability")
            for row in rows:
                yield Mistake(row["path"], row["label"], row["answer"], _probability(row["probability"], path))
    except (OSError, csv.Error) as error:
        raise CheckpointError(f"{path.name} cannot be read ({error})") from None


def _probability(text: str | None, path: Path) -> float:
    try:
        value = as_number(float(text or ""))
    except ValueError:
        value = None
    if value is None:
        raise CheckpointError(f"{path.name} holds {(text or '')[:40]!r} for a probability")
    return value
