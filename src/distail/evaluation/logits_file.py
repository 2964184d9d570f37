"""Logits and labels of any framework, from one safetensors, npz or csv file. Nothing is unpickled."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from distail.errors import DataError, did_you_mean
from distail.evaluation.inputs import rows_at_once
from distail.evaluation.logits_csv import read_csv
from distail.evaluation.logits_table import LogitsTable

# The teacher's, where a file holds those of its student as well.
LOGITS = ("teacher_logits", "logits")
LABELS = ("target", "labels", "label")
_TOLERANCE = 0.05  # of rounded probabilities


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
    if _are_probabilities(table.logits):
        raise DataError(
            f"{path}: the {table.source} are probabilities (every row is 0 or above and sums to 1); expected logits, "
            "what goes into the softmax. Their logarithm does as well: numpy.log(probabilities)."
        )
    return table


def holds_logits(path: Path) -> bool:
    """Whether a safetensors file holds logits and labels, not weights; False for what cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
    except (SafetensorError, OSError):
        return False
    return bool(names & set(LOGITS)) and bool(names & set(LABELS))


def _read_safetensors(path: Path) -> LogitsTable:
    try:
        with safe_open(path, framework="pt") as file:
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
    return LogitsTable(get(logits), get(labels), source=logits)


def _tensor(array: np.ndarray[Any, Any], name: str, path: Path) -> Tensor:
    if array.dtype.kind not in "iuf":
        raise DataError(f"{path}: {name} are of type {array.dtype}; expected numbers.")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    return torch.from_numpy(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))


def _are_probabilities(logits_NC: Tensor) -> bool:
    if logits_NC.ndim != 2 or logits_NC.shape[1] < 2 or not len(logits_NC) or not logits_NC.is_floating_point():
        return False
    return all(
        bool(((rows >= 0) & (rows <= 1)).all())
        and bool(((rows.sum(1, dtype=torch.float64) - 1).abs() < _TOLERANCE).all())
        for rows in torch.split(logits_NC, rows_at_once(logits_NC))
    )


READERS: dict[str, Callable[[Path], LogitsTable]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".csv": read_csv,
}
