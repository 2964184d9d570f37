"""Logits and labels from a csv file, read in blocks so that memory is bounded by the numbers and not by their text."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from distail.errors import DataError, some_of
from distail.runner.answer_rows import KEYS

if TYPE_CHECKING:
    import pyarrow as pa

LABEL_COLUMNS = ("label", "labels", "target")
LARGEST_BYTES = 2 * 2**30
_BLOCK_BYTES = 2**25
_NUMBERED = re.compile(r"logits?_(\d+)")
_NAMED = re.compile(r"logits?_(.+)")
_WHOLE = re.compile(r"\s*[+-]?\d{1,18}\s*")


@dataclass(frozen=True)
class LogitsTable:
    """Logits (N, C), labels (N,), the classes' names where the file names them, and what it calls the logits.

    `split` is the one that the rows are of, where the file says, and `class_counts` are then those of its training
    rows. `posterior` is the class posterior that the file says they have. `can_teach` says whether a run could find the
    answers for its images in it.
    """

    logits: Tensor
    target: Tensor
    class_names: tuple[str, ...] | None = None
    source: str = "logits"
    split: str | None = None
    class_counts: tuple[int, ...] | None = None
    posterior: str | None = None
    can_teach: bool = False


def read_csv(path: Path) -> LogitsTable:
    """A column ``label`` and one column of logits per class, numbered (``logit_0``) or named after the classes.

    Columns that name the rows, ``id``, ``path`` or one without a name, are no classes.

    Raises:
        DataError: larger than two GiB, no header, columns missing, doubled or not numbers, labels that name no class.
    """
    size = path.stat().st_size
    if size > LARGEST_BYTES:
        raise DataError(
            f"{path} has {size / 2**30:.1f} GiB of text; csv is read up to {LARGEST_BYTES / 2**30:g} GiB. Store the "
            "logits as npz or safetensors, which is smaller and quicker: numpy.savez(path, logits=..., labels=...)."
        )
    header = _header(path)
    label = next((name for name in LABEL_COLUMNS if name in header), None)
    if label is None:
        hint = " Are the columns separated by commas?" if len(header) == 1 else ""
        raise DataError(f"{path} has no column 'label'; its columns are {_quoted(header)}.{hint}")
    doubled = [name for name, times in Counter(header).items() if times > 1]
    if doubled:
        raise DataError(f"{path}: {len(doubled)} columns occur more than once: {_quoted(doubled)}.")
    classes = [name for name in header if name not in (label, "", *KEYS)]
    if not classes:
        raise DataError(f"{path} has labels but no column of logits; expected one per class, such as logit_0, logit_1.")
    columns, names = _in_order(path, classes)
    logits_NC, labels = _read(path, header, columns, label)
    return LogitsTable(logits_NC, _targets(path, labels, names), names)


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            row = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as csv: {error}") from None
    if not row:
        raise DataError(f"{path} is empty; expected a header: label,logit_0,logit_1,...")
    return [name.strip() for name in row]


def _in_order(path: Path, classes: Sequence[str]) -> tuple[list[str], tuple[str, ...] | None]:
    """The columns of logits by class, and the classes' names unless they are numbered."""
    numbers = [int(match[1]) if (match := _NUMBERED.fullmatch(name)) else None for name in classes]
    if None in numbers:
        named = [match[1] for name in classes if (match := _NAMED.fullmatch(name))]
        return list(classes), tuple(named if len(named) == len(classes) else classes)
    missing = sorted(set(range(len(classes))) - {number for number in numbers if number is not None})
    if missing:
        raise DataError(
            f"{path} has {len(classes)} columns of logits, but not {_quoted([f'logit_{c}' for c in missing])}; "
            f"expected logit_0 to logit_{len(classes) - 1}."
        )
    return [name for _, name in sorted(zip(numbers, classes, strict=True))], None


def _read(path: Path, header: Sequence[str], columns: Sequence[str], label: str) -> tuple[Tensor, list[str]]:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    blocks: list[Tensor] = []
    labels: list[str] = []
    try:
        reader = arrow_csv.open_csv(
            path,
            read_options=arrow_csv.ReadOptions(
                column_names=list(header), skip_rows=1, block_size=_BLOCK_BYTES, use_threads=False
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types={label: pa.string(), **dict.fromkeys(columns, pa.float32())},
                include_columns=[label, *columns],
                strings_can_be_null=False,
            ),
        )
        with reader:
            for batch in reader:
                labels += batch.column(label).to_pylist()
                blocks.append(_numbers(batch, columns))
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        raise DataError(f"{path}: {_in_words(str(error), header)}") from None
    return torch.cat(blocks) if blocks else torch.zeros(0, len(columns)), labels


def _numbers(batch: pa.RecordBatch, columns: Sequence[str]) -> Tensor:
    # An empty cell is not a number: it becomes NaN here and is told as such with the row that it stands in.
    block_NC = np.empty((batch.num_rows, len(columns)), dtype=np.float32)
    for position, name in enumerate(columns):
        block_NC[:, position] = batch.column(name).to_numpy(zero_copy_only=False)
    return torch.from_numpy(block_NC)


def _targets(path: Path, labels: Sequence[str], names: Sequence[str] | None) -> Tensor:
    by_name = {name: c for c, name in enumerate(names or ())}
    texts = [text.strip() for text in labels]
    if by_name and all(text in by_name for text in texts):
        return torch.tensor([by_name[text] for text in texts], dtype=torch.int64)
    unnamed = [(row, text) for row, text in enumerate(texts) if text not in by_name]
    neither = [(row, text) for row, text in unnamed if not _WHOLE.fullmatch(text)]
    if neither or len(unnamed) < len(texts):
        wrong = neither or unnamed
        row, text = wrong[0]
        expected = (
            f"a class number in every row, or in every row one of {_quoted(names)}"
            if names
            else "a class number, from 0"
        )
        raise DataError(
            f"{path}: of {len(texts)} labels {len(wrong)} cannot be a class; the first is {text!r} in row {row}. "
            f"Expected {expected}."
        )
    return torch.tensor([int(text) for text in texts], dtype=torch.int64)


def _in_words(message: str, header: Sequence[str]) -> str:
    column = re.search(r"In CSV column #(\d+): .*?CSV conversion error to float: invalid value '(.*)'", message)
    if column:
        name = header[int(column[1])]
        return f"column {name!r} holds {column[2]!r}, which is not a number; expected the label and one column a class."
    return f"it cannot be read as csv: {message}"


def _quoted(names: Sequence[str]) -> str:
    return some_of([repr(name) for name in names])
