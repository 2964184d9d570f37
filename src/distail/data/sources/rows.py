"""Labeled rows to a source: which are for training, validation and test, and which belong together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from unicodedata import normalize

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distail.data.class_names import check_class_names, natural_sorted
from distail.data.dataset import Examples, Groups, Source
from distail.data.splits import fixed_test_split
from distail.errors import DataError, some_of

PARTS = ("train", "validation", "test")
SPLITS = {"train": "train", "test": "test", "val": "validation", "valid": "validation", "validation": "validation"}
"""What may stand in a column `split`, and the part that it means."""
_NO_GROUP = ("", "nan", "None", "<NA>", "NaT")


@dataclass(frozen=True)
class Rows:
    """N labeled rows; `split`, `group` (texts) are (N,), or None where there is no such column.

    `one_file`: whether row n is that of one file, so that a user can name it by its number. `ids` (N,) whole numbers
    or texts, where the data names each row.
    """

    examples: Examples
    class_names: tuple[str, ...]
    split: NDArray[np.str_] | None = None
    group: NDArray[np.str_] | None = None
    notes: tuple[str, ...] = ()
    encoding: str | None = None
    one_file: bool = True
    ids: NDArray[Any] | None = None


def source_of_rows(rows: Rows, where: str) -> Source:
    """The rows by part: as `split` says, else a stratified fifth, the same for every run's seed, is the test set.

    Raises:
        DataError: class names or splits cannot be used.
    """
    check_class_names(rows.class_names, where)
    groups = None if rows.group is None else group_codes(rows.group)
    part_of = parts_of(rows.examples.labels, rows.split, groups, where)
    named = {part: torch.from_numpy(np.flatnonzero(part_of == part)) for part in PARTS}
    examples = {part: rows.examples.subset(index) for part, index in named.items() if len(index)}
    codes = None if groups is None else {part: groups[index] for part, index in named.items() if len(index)}
    places = torch.cat([named["train"], named["validation"]]), named["test"]
    return Source(
        examples["train"],
        examples["test"],
        rows.class_names,
        notes=rows.notes,
        encoding=rows.encoding,
        validation=examples.get("validation"),
        groups=None if codes is None else Groups(codes["train"], codes["test"], codes.get("validation")),
        file_rows=places if rows.one_file else None,
        ids=None if rows.ids is None else (rows.ids[places[0].numpy()], rows.ids[places[1].numpy()]),
    )


def classes_of(text_N: NDArray[np.str_]) -> tuple[Tensor, tuple[str, ...]]:
    """Labels (N,) int64, and the class names that they index, in natural order.

    >>> labels, names = classes_of(np.array(["10", "9", "10"]))
    >>> labels.tolist(), names
    ([1, 0, 1], ('9', '10'))
    """
    found, place_N = np.unique(text_N, return_inverse=True)
    names = tuple(natural_sorted(found.tolist()))
    label_of = {name: label for label, name in enumerate(names)}
    labels = np.array([label_of[name] for name in found.tolist()], dtype=np.int64)
    return torch.from_numpy(labels[place_N]), names


def group_codes(group_N: NDArray[np.str_]) -> Tensor:
    """(N,) int64, the same number for the same group.

    >>> group_codes(np.array(["b", "a", "b"])).tolist()
    [1, 0, 1]
    """
    return torch.from_numpy(np.unique(group_N, return_inverse=True)[1].astype(np.int64))


def as_written(texts: Iterable[str]) -> NDArray[np.str_]:
    """Texts (N,) of classes and groups, without spaces around them and in one spelling of accents.

    >>> as_written([" a", "b "]).tolist()
    ['a', 'b']
    """
    return np.array([normalize("NFC", text.strip()) for text in texts], dtype=str)


def is_no_group(group: str | None) -> bool:
    """Whether a text is what numpy, pandas or Python write where there is no group.

    >>> is_no_group(" nan"), is_no_group("a")
    (True, False)
    """
    return group is None or group.strip() in _NO_GROUP


def check_groups(group_N: NDArray[np.str_], where: str) -> None:
    """Let pass groups none of which is what numpy, pandas or Python write where there is none.

    Raises:
        DataError: some are.

    >>> check_groups(np.array(["a", "nan"]), "x.npz")
    Traceback (most recent call last):
        ...
    distail.errors.DataError: x.npz: 1 of 2 have no group, the first number 1 ('nan'; counted from 0); expected one each
    """
    without = [number for number, group in enumerate(group_N.tolist()) if is_no_group(group)]
    if without:
        raise DataError(
            f"{where}: {len(without):,} of {len(group_N):,} have no group, the first number {without[0]:,} "
            f"({group_N[without[0]].item()!r}; counted from 0); expected one each"
        )


def parts_of(
    labels_N: Tensor,
    split: NDArray[np.str_] | None,
    groups: Tensor | None,
    where: str,
    *,
    noun: str = "row",
    group: str | None = "group",
) -> NDArray[np.str_]:
    """The part (N,) of each row; `noun` names one in messages, `group` what groups have in common."""
    if split is None:
        _, test = fixed_test_split(labels_N, groups, noun=noun, group=group or "")
        part_of = np.full(len(labels_N), "train", dtype="<U10")
        part_of[test.numpy()] = "test"
        return part_of
    check_split(split, where)
    return np.array([SPLITS[text.strip().lower()] for text in split.tolist()])


def check_split(split: NDArray[np.str_], where: str) -> None:
    """Let pass a column `split` that names known parts, training and test among them.

    Raises:
        DataError: it does not.
    """
    given = [text.strip().lower() for text in np.unique(split).tolist()]
    unknown = [repr(text) for text in given if text not in SPLITS]
    if unknown:
        raise DataError(f"{where}: split is {some_of(unknown)}; expected {', '.join(SPLITS)}")
    parts = {SPLITS[text] for text in given}
    missing = [part for part in ("train", "test") if part not in parts]
    if missing:
        raise DataError(
            f"{where}: no row has the split {missing[0]!r}; without a column split a stratified fifth is the test set"
        )
