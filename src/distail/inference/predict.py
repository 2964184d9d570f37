"""`distail predict`: any number of image files, answered as they are read."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO, TypeVar

import numpy as np
import torch

from distail.data.decode import load_decoders
from distail.errors import ConfigError, IncompleteError, counted, first_of, listed
from distail.files import naming
from distail.inference.student import Prediction, Student
from distail.terminal import printable, printable_json
from distail.torch_utils import usable_cores
from distail.training.predict import evaluation_batch_size

Item = TypeVar("Item")
_LARGEST_BATCH = 64
_RANKED = ("class", "probability")
Write = Callable[[Path, Prediction], None]


@dataclass(frozen=True)
class Answer:
    """One file: what the student sees on it, or the problem with reading it."""

    path: Path
    prediction: Prediction | None
    problem: str = ""


def predict_files(student: Student, paths: Iterable[Path], top: int = 1) -> Iterator[Answer]:
    """An answer for each file, in order; threads decode one batch ahead of the network, and never more."""
    load_decoders()
    told = student.description
    size = min(_LARGEST_BATCH, evaluation_batch_size((told.in_channels, told.height, told.width)))
    with ThreadPoolExecutor(usable_cores()) as threads:
        # `map` begins at once; what it gives is waited for one batch later.
        begun = ((batch, threads.map(student.pixels, batch)) for batch in _batches(paths, size))
        for batch, found in _one_ahead(begun):
            pixels = list(found)
            readable = [each for each in pixels if not isinstance(each, str)]
            named = iter(student.predict(torch.from_numpy(np.stack(readable)), top) if readable else [])
            for path, each in zip(batch, pixels, strict=True):
                yield Answer(path, None, each) if isinstance(each, str) else Answer(path, next(named))


def write_answers(answers: Iterable[Answer], output: Path | None, *, as_json: bool, top: int) -> None:
    """One line for each file that could be read, to `output` or standard output: CSV, or JSON.

    CSV has the columns path, class and probability, then class_2, probability_2, ... up to `top`; JSON the keys path,
    class, probability and, above 1, top.

    Raises:
        IncompleteError: some files could not be read; those that could are written.
        ConfigError: none could.
    """
    problems, done = [], 0
    with _opened(output) as file:
        write = _json_writer(file) if as_json else _csv_writer(file, top)
        for answer in answers:
            if answer.prediction is None:
                problems.append(f"{answer.path}: {answer.problem}")
            else:
                write(answer.path, answer.prediction)
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


def _json_writer(file: TextIO) -> Write:
    def write(path: Path, answer: Prediction) -> None:
        line = {"path": str(path), "class": answer.name, "probability": round(answer.probability, 6)}
        if len(answer.top) > 1:
            line |= {"top": [{"class": name, "probability": round(p, 6)} for name, p in answer.top]}
        file.write(printable_json(json.dumps(line, ensure_ascii=False)) + "\n")

    return write


def _csv_writer(file: TextIO, top: int) -> Write:
    writer = csv.writer(file, lineterminator="\n")
    shown = printable if file.isatty() else str  # a file has names as they are
    writer.writerow(["path", "class", "probability", *(f"{name}_{k + 1}" for k in range(1, top) for name in _RANKED)])

    def write(path: Path, answer: Prediction) -> None:
        named = [text for name, p in answer.top for text in (shown(name), f"{p:.6f}")]
        writer.writerow([shown(str(path)), *named])

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
