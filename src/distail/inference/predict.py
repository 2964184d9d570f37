"""`distail predict`: any number of image files, or files of rows, answered as they are read."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO, TypeVar

import numpy as np
import torch

from distail.data.decode import load_decoders
from distail.data.labels import SEPARATOR
from distail.errors import ConfigError, IncompleteError, counted, first_of, listed
from distail.files import naming
from distail.inference.student import Prediction, Student
from distail.models.description import Description
from distail.terminal import printable, printable_json
from distail.torch_utils import usable_cores
from distail.training.predict import evaluation_batch_size

Item = TypeVar("Item")
_LARGEST_BATCH = 64
_RANKED = ("class", "probability")


@dataclass(frozen=True)
class Answer:
    """One file, or a row of one: what the student sees on it, or the problem with reading it.

    `place` says which row, in the columns that `write_answers` is told of.
    """

    path: Path
    prediction: Prediction | None
    problem: str = ""
    place: tuple[int | str, ...] = ()


Write = Callable[[Answer, Prediction], None]


def predict_files(student: Student, paths: Iterable[Path], top: int = 1) -> Iterator[Answer]:
    """An answer for each file, in order; threads decode one batch ahead of the network, and never more."""
    load_decoders()
    told = student.description
    assert isinstance(told, Description)
    size = min(_LARGEST_BATCH, evaluation_batch_size((told.in_channels, told.height, told.width)))
    with ThreadPoolExecutor(usable_cores()) as threads:
        # `map` begins at once; what it gives is waited for one batch later.
        begun = ((batch, threads.map(student.pixels, batch)) for batch in _batches(paths, size))
        for batch, found in _one_ahead(begun):
            pixels = list(found)
            readable = [each for each in pixels if not isinstance(each, str)]
            named = iter(_named(student, torch.from_numpy(np.stack(readable)), top) if readable else [])
            for path, each in zip(batch, pixels, strict=True):
                yield Answer(path, None, each) if isinstance(each, str) else Answer(path, next(named))


@torch.inference_mode()
def _named(student: Student, levels: torch.Tensor, top: int) -> list[Prediction]:
    return student.named(student(levels), top)


def write_answers(
    answers: Iterable[Answer],
    output: Path | None,
    *,
    as_json: bool,
    top: int,
    places: Sequence[str] = (),
    multi_label: bool = False,
) -> None:
    """One line for each file or row that could be read, to `output` or standard output: CSV, or JSON.

    CSV has the columns path, those of `places`, class and probability, then class_2, probability_2, ... up to `top`;
    JSON the keys path, `places`, class, probability and, above 1, top. Where an image may have several classes both end
    with classes, those that reach their thresholds: `cat|dog` in CSV, a list in JSON.

    Raises:
        IncompleteError: some files could not be read; those that could are written.
        ConfigError: none could.
    """
    problems, done = [], 0
    with _opened(output) as file:
        write = _json_writer(file, places, multi_label) if as_json else _csv_writer(file, top, places, multi_label)
        for answer in answers:
            if answer.prediction is None:
                problems.append(f"{answer.path}: {answer.problem}")
            else:
                write(answer, answer.prediction)
                done += 1
        file.flush()
    if problems:
        total = counted(done + len(problems), "image")
        message = listed(problems if done else first_of(problems), f"{len(problems)} of {total} cannot be read:")
        raise IncompleteError(message) if done else ConfigError(message)


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    with naming(output), output.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        yield file


def _json_writer(file: TextIO, places: Sequence[str], multi_label: bool) -> Write:
    def write(answer: Answer, found: Prediction) -> None:
        where = {"path": str(answer.path), **dict(zip(places, answer.place, strict=True))}
        line: dict[str, object] = {**where, "class": found.name, "probability": round(found.probability, 6)}
        if len(found.top) > 1:
            line |= {"top": [{"class": name, "probability": round(p, 6)} for name, p in found.top]}
        if multi_label:
            line |= {"classes": list(found.classes)}
        file.write(printable_json(json.dumps(line, ensure_ascii=False)) + "\n")

    return write


def _csv_writer(file: TextIO, top: int, places: Sequence[str], multi_label: bool) -> Write:
    writer = csv.writer(file, lineterminator="\n")
    shown = printable if file.isatty() else str  # a file has names as they are
    others = [f"{name}_{k + 1}" for k in range(1, top) for name in _RANKED]
    writer.writerow(["path", *places, "class", "probability", *others, *(["classes"] if multi_label else [])])

    def write(answer: Answer, found: Prediction) -> None:
        named = [text for name, p in found.top for text in (shown(name), f"{p:.6f}")]
        has = [shown(SEPARATOR.join(found.classes))] if multi_label else []
        writer.writerow([shown(str(answer.path)), *(shown(str(each)) for each in answer.place), *named, *has])

    return write


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _one_ahead(items: Iterable[Item]) -> Iterator[Item]:
    waiting: list[Item] = []
    for item in items:
        yield from waiting
        waiting = [item]
    yield from waiting
