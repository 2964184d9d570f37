"""`arrays`: numpy arrays in one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distail.config.schema import Data
from distail.data.arrays import LabeledArrays
from distail.data.column_notes import MOST_COMPARED, missing_note, rounded_note
from distail.data.dataset import Examples, LabeledImages, Source
from distail.data.labels import matrix_of
from distail.data.sources.rows import Rows, as_written, check_groups, classes_of, source_of_rows
from distail.errors import DataError, Problems, did_you_mean, some_of
from distail.files import DAMAGED_ARCHIVE
from distail.outputs import MULTI_LABEL

_KNOWN = ("X", "y", "split", "group", "weight", "class_names")
_MOST_CHANNELS = 4
_EXPECTED = (
    "expected a file of np.savez with X (N, ...), y (N,) and optionally split, group and weight (N,) and class_names"
)


def load_arrays(options: Data) -> Source:
    """`root` is a file of `np.savez` with `X` (N, ...) and `y` (N,).

    Floats are standardized by the first dimension of an example (columns, or channels), nan is a missing value; whole
    numbers reach the network as they are; uint8 (N, H, W), (N, channels, H, W) and (N, H, W, channels) are images. `y`
    holds names of classes, or numbers, which `class_names` may name; with `targets: multi_label` it is a matrix
    (N, C) of 0 and 1. `split` says `train`, `val` or `test`; `weight` how much an example counts in the loss of
    training, as scikit-learn's `sample_weight`.

    Raises:
        DataError: listing what cannot be used.
    """
    root = options.root
    if root is None or not root.is_file():
        what = "needs data.root" if root is None else f"has data.root {root}, which is not a file"
        raise DataError(f"data set 'arrays' {what}; {_EXPECTED}")
    arrays = read_npz(root, _EXPECTED)
    problems = Problems()
    for name in arrays.keys() - {*_KNOWN}:
        problems.add(f"{name!r} is not one of its arrays. {did_you_mean(name, _KNOWN)}")
    for name in ("X", "y"):
        if name not in arrays:
            problems.add(f"there is no array {name!r}")
    problems.stop(f"{root}: {_EXPECTED}", DataError)
    x, count = arrays["X"], len(arrays["X"]) if arrays["X"].ndim else 0
    if x.ndim < 2 or not x.size:
        problems.add(f"X is {x.dtype} {x.shape}; expected at least one example and two dimensions (N, ...), none of 0")
    multi_label = options.targets == MULTI_LABEL
    if multi_label and "y" in arrays and len(arrays["y"].shape[:1]) and len(arrays["y"]) != count:
        problems.add(f"y is {arrays['y'].dtype} {arrays['y'].shape}; expected ({count}, classes), a row for each of X")
    for name in ("split", "group", "weight") if multi_label else ("y", "split", "group", "weight"):
        if name in arrays and arrays[name].shape != (count,):
            matrix = name == "y" and arrays[name].ndim == 2 and len(arrays[name]) == count
            problems.add(
                f"{name} is {arrays[name].dtype} {arrays[name].shape}; expected ({count},), one for each of X"
                + (", or data.targets: multi_label for a row of 0 and 1 for each" if matrix else "")
            )
    problems.stop(f"{root}: {_EXPECTED}", DataError)
    weights = _weights(arrays["weight"], root) if "weight" in arrays else None
    labels, names = _label_matrix(arrays, root) if multi_label else _labels(arrays, root)
    group = _texts(arrays["group"], "group", root) if "group" in arrays and options.group is not None else None
    if group is not None:
        check_groups(group, f"{root}, rows of X")
    split = _texts(arrays["split"], "split", root) if "split" in arrays else None
    rows = Rows(_examples(x, labels, weights, root), names, split, group, _notes(x, root))
    return source_of_rows(rows, str(root))


def read_npz(root: Path, expected: str) -> dict[str, NDArray[Any]]:
    """The arrays in a file of `np.savez`.

    Raises:
        DataError: it is no such file, is damaged, or holds Python objects.
    """
    try:
        with np.load(root, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{root} holds a single array; {expected}")
            return {name: file[name] for name in file.files}
    except (ValueError, *DAMAGED_ARCHIVE) as error:
        pickled = "pickle" in str(error)
        why = "holds Python objects, which are not unpickled: save texts as y.astype(str)" if pickled else error
        raise DataError(f"{root} cannot be read: {why}; {expected}") from None


def _label_matrix(arrays: Mapping[str, NDArray[Any]], root: Path) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Labels (N, C) bool and the names of their columns."""
    names = _texts(arrays["class_names"], "class_names", root).tolist() if "class_names" in arrays else None
    return matrix_of(arrays["y"], names, str(root))


def _labels(arrays: Mapping[str, NDArray[Any]], root: Path) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Labels (N,) int64 and the names that they index."""
    y = arrays["y"]
    if y.dtype.kind == "f" and np.isfinite(y).all() and (y == np.rint(y)).all():
        y = y.astype(np.int64)
    if y.dtype.kind not in "iubUS":
        raise DataError(f"{root}: y is {y.dtype}; expected whole numbers or texts, one class for each of X")
    if "class_names" in arrays:
        names = tuple(_texts(arrays["class_names"], "class_names", root).tolist())
        if y.dtype.kind not in "iub" or y.min() < 0 or y.max() >= len(names):
            raise DataError(
                f"{root}: with {len(names)} class_names y must hold whole numbers from 0 to {len(names) - 1}; found "
                f"{y.dtype}, {str(y.min())[:40]!r} to {str(y.max())[:40]!r}"
            )
        return torch.from_numpy(y.astype(np.int64)), names
    return classes_of(_texts(y, "y", root))


def _texts(values: NDArray[Any], name: str, root: Path) -> NDArray[np.str_]:
    """As texts; bytes, as h5py gives them, are UTF-8."""
    try:
        texts = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values.astype(str)
    except UnicodeDecodeError as error:
        raise DataError(f"{root}: {name} has bytes that are not UTF-8 ({error}); expected texts") from None
    return as_written(texts.tolist())


def _weights(weight: NDArray[Any], root: Path) -> torch.Tensor:
    usable = weight.dtype.kind in "fiub" and bool(np.isfinite(weight).all()) and bool((weight >= 0).all())
    if not usable or not weight.any():
        raise DataError(f"{root}: weight is {weight.dtype}; expected finite numbers of at least 0, some of them above")
    return torch.from_numpy(weight.astype(np.float32))


def _examples(x: NDArray[Any], labels: torch.Tensor, weights: torch.Tensor | None, root: Path) -> Examples:
    names = np.array([f"X[{row}]" for row in range(len(x))], dtype=np.bytes_)
    if x.dtype == np.uint8 and x.ndim == 3:
        x = x[:, None]
    if x.dtype == np.uint8 and x.ndim == 4 and min(x.shape[1], x.shape[3]) <= _MOST_CHANNELS:
        if x.shape[1] > _MOST_CHANNELS:
            x = x.transpose(0, 3, 1, 2)
        if weights is not None:
            raise DataError(
                f"{root}: X are images (uint8), for which weights are not supported; leave the array 'weight' out"
            )
        return LabeledImages(torch.from_numpy(np.ascontiguousarray(x)), labels, names=names)
    if x.dtype.kind not in "fiub":
        raise DataError(f"{root}: X is {x.dtype}; expected numbers. A table with texts is data.name: csv-table")
    whole = x.dtype.kind in "iu"
    with np.errstate(over="ignore"):
        inputs = torch.from_numpy(np.ascontiguousarray(x.astype(np.int64 if whole else np.float32)))
    if infinite := int(inputs.isinf().sum()):
        raise DataError(
            f"{root}: X holds {infinite:,} values that are infinite, or too large for float32; expected finite "
            "numbers, and nan where a value is missing"
        )
    return LabeledArrays(inputs, labels, names, weights=weights)


def _notes(x: NDArray[Any], root: Path) -> tuple[str, ...]:
    """What floats lack, and what float32 loses of them.

    Raises:
        DataError: a column, or channel, has no value.
    """
    if x.dtype.kind != "f":
        return ()
    columns = [f"X[:, {place}]" for place in range(x.shape[1])]
    gone_D = np.isnan(x).sum(axis=(0, *range(2, x.ndim))).tolist()
    if empty := [name for name, gone in zip(columns, gone_D, strict=True) if gone == x[:, 0].size]:
        raise DataError(f"{root}: there are no values, only nan, in {some_of(empty)}; leave out what is never known")
    missing = missing_note([f"{name!r} ({gone:,})" for name, gone in zip(columns, gone_D, strict=True) if gone])
    wide = x[:MOST_COMPARED] if x.itemsize > np.dtype(np.float32).itemsize else x[:0]
    rounded = rounded_note((name, wide[:, place].reshape(-1)) for place, name in enumerate(columns))
    return tuple(note for note in (missing, rounded) if note)
