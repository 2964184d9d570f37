"""Logits and labels of any framework, from one safetensors, npz or csv file. Nothing is unpickled."""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from distail.audit.logits_csv import LogitsTable, read_csv
from distail.errors import DataError, did_you_mean, some_of
from distail.evaluation.probabilities import SIGNS, kind_of_probabilities
from distail.files import open_tensors

# The teacher's, where a file holds those of its student as well.
LOGITS = ("teacher_logits", "logits")
LABELS = ("target", "labels", "label")
_LISTED = re.compile(r"[\d\s,;\[\]]+")
_LARGEST_BYTES = 2**24


def read_logits(path: str | Path) -> LogitsTable:
    """The logits (N, C) and labels (N,) in a file; their values are not checked, except that they are no probabilities.

    - ``.safetensors`` and ``.npz``: arrays ``logits`` and ``target`` (or ``labels``). A run's predictions.safetensors
      also has ``teacher_logits``: then those are taken.
    - ``.csv``: a header, a column ``label``, and one column of logits a class: ``logit_0``, ``logit_1``, ..., or the
      names of the classes in their order; labels are then names or numbers.

    Raises:
        DataError: no such file, another kind of file, a damaged one, pickled arrays, missing or surplus columns, text
            where a number belongs, or probabilities in place of logits.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {str(path)!r} (current directory {Path.cwd()}).")
    kind = path.suffix.lower()
    if kind not in READERS:
        raise DataError(
            f"{str(path)!r} is not a file of logits that can be read: its name ends in {kind or 'nothing'!r}. "
            f"{did_you_mean(kind, READERS)}"
        )
    table = READERS[kind](path)
    found = kind_of_probabilities(table.logits)
    # That all lie between 0 and 1 could be true of logits, too: the audit tells it.
    if found in ("probabilities", "percentages"):
        raise DataError(
            f"{path}: the {table.source} are {found} ({SIGNS[found]}); expected logits, what goes into the softmax. "
            f"Their logarithm does as well: numpy.log({found})."
        )
    return table


def holds_logits(path: Path) -> bool:
    """Whether a safetensors file holds logits and labels, not weights; False for what cannot be read."""
    try:
        with open_tensors(path) as file:
            names = set(file.keys())
    except (SafetensorError, OSError):
        return False
    return bool(names & set(LOGITS)) and bool(names & set(LABELS))


def _read_safetensors(path: Path) -> LogitsTable:
    try:
        with open_tensors(path) as file:
            return _named(file.keys(), file.get_tensor, path, "tensors")
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} cannot be read as safetensors, or is damaged: {error}") from None


def _read_npz(path: Path) -> LogitsTable:
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path} holds a single array; expected an archive: numpy.savez(path, logits=, labels=).")
        with archive:
            return _named(archive.files, lambda name: _tensor(archive[name], name, path), path, "arrays")
    except DataError:
        raise
    except ValueError as error:
        if "pickle" in str(error):
            raise DataError(
                f"{path} holds pickled objects, which are never loaded because they could run code. Store plain "
                "arrays: numpy.savez(path, logits=logits.astype('float32'), labels=labels.astype('int64'))."
            ) from None
        raise DataError(f"{path} cannot be read as npz, or is damaged: {error}") from None
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, NotImplementedError, MemoryError) as error:
        raise DataError(f"{path} cannot be read as npz, or is damaged: {error or type(error).__name__}") from None


def _named(names: Iterable[str], get: Callable[[str], Tensor], path: Path, kind: str) -> LogitsTable:
    found = list(names)
    logits = next((name for name in LOGITS if name in found), None)
    labels = next((name for name in LABELS if name in found), None)
    if logits is None or labels is None:
        raise DataError(
            f"{path} holds the {kind} {', '.join(sorted(found)) or 'none'}; expected logits (samples, classes) and "
            "target or labels (samples,)."
        )
    return LogitsTable(_signed(get(logits), logits, path), _signed(get(labels), labels, path), source=logits)


def _signed(numbers: Tensor, name: str, path: Path) -> Tensor:
    """Whole numbers without sign, with which torch cannot reckon, as int64."""
    if numbers.dtype not in (torch.uint16, torch.uint32, torch.uint64):
        return numbers
    signed = numbers.view(torch.int64) if numbers.dtype == torch.uint64 else numbers.to(torch.int64)
    if (signed < 0).any():
        largest = max(numbers.flatten().tolist())
        raise DataError(f"{path}: {name} hold {largest}; expected numbers below 2**63, labels from 0 on.")
    return signed


def _tensor(array: NDArray[np.generic], name: str, path: Path) -> Tensor:
    if array.dtype.kind not in "iuf":
        raise DataError(f"{path}: {name} are of type {array.dtype}; expected numbers.")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    return torch.from_numpy(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))


READERS: dict[str, Callable[[Path], LogitsTable]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".csv": read_csv,
}


def read_class_counts(text_or_path: str) -> tuple[int, ...]:
    """Whole numbers, one a class in the order of the classes; that they are at least 1 is checked with the logits.

    Args:
        text_or_path: the numbers themselves (``500,120,30``), or a file: text with numbers between commas, blanks or
            line ends; JSON with a list, or with a list under ``class_counts``, as a run's result.json has.

    Raises:
        DataError: no such file, or one that holds something else.

    >>> read_class_counts("500, 120,30")
    (500, 120, 30)
    """
    if _LISTED.fullmatch(text_or_path):
        return _parsed(text_or_path, "class counts")
    path = Path(text_or_path)
    if not path.is_file():
        raise DataError(
            f"class counts: {text_or_path!r} is neither a list such as 500,120,30 nor a file (current directory "
            f"{Path.cwd()})."
        )
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise DataError(
                f"class counts: {path} is larger than {_LARGEST_BYTES // 2**20} MiB; expected one number a class."
            )
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"class counts: {path} is not a text file: {error}") from None
    return _from_json(text, path) if path.suffix.lower() == ".json" else _parsed(text, f"class counts: {path}")


def counted_labels(target_N: Tensor, classes: int) -> tuple[int, ...]:
    """The class counts of a file that has labels only: its own.

    Raises:
        DataError: a class has no label, so that nothing is known of its training images.
    """
    inside_N = target_N[(target_N >= 0) & (target_N < classes)].long()
    counts = torch.bincount(inside_N, minlength=classes).tolist()
    empty = [c for c, count in enumerate(counts) if count == 0]
    if empty:
        raise DataError(
            f"{len(empty)} of {classes} classes have no label here (class {some_of(empty)}), so their training images "
            "cannot be counted from the labels: give them with --class-counts."
        )
    return tuple(counts)


def _from_json(text: str, path: Path) -> tuple[int, ...]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"class counts: {path} is not JSON: {error}") from None
    counts = content.get("class_counts") if isinstance(content, dict) else content
    if not isinstance(counts, list) or any(not isinstance(n, int) or isinstance(n, bool) for n in counts):
        raise DataError(f"class counts: {path} holds no list of whole numbers, alone or under 'class_counts'.")
    return tuple(counts)


def _parsed(text: str, where: str) -> tuple[int, ...]:
    words = [word for word in re.split(r"[\s,;\[\]]+", text) if word]
    wrong = [word for word in words if not re.fullmatch(r"\d{1,18}", word)]
    if wrong or not words:
        shown = f"{wrong[0]!r} is not a whole number" if wrong else "there is none"
        raise DataError(f"{where}: expected one whole number a class, but {shown}.")
    return tuple(int(word) for word in words)
