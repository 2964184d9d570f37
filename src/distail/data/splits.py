"""Holding out a part of every class.

Shapes: N images.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distail.config.data import Folds
from distail.data.labels import strata
from distail.data.seeding import random_permutation, stream_key
from distail.errors import DataError, counted

_TEST_FRACTION = 0.2
_TEST_SEED = 20230101


def stratified_split(
    labels_N: Tensor,
    fraction: float,
    seed: int,
    groups_N: Tensor | None = None,
    *,
    noun: str = "image",
    group: str = "group",
) -> tuple[Tensor, Tensor]:
    """Sorted indices of (kept, held out): `fraction` of every class is held out, rounded half up.

    A class always keeps at least one image, so a class of one image holds none out. `fraction` lies in [0, 1); 0
    holds nothing out. With `groups_N` (N,) int64 whole groups are held out, about as many images of each class
    (scikit-learn's `StratifiedGroupKFold`), but none that a class is not left without. Of several classes per sample
    (labels (N, C) bool) the rarest counts. `noun` names a sample in messages, `group` what groups have in common.

    Raises:
        DataError: the fraction is another one, or a positive one that would hold nothing out.

    >>> kept, held_out = stratified_split(torch.tensor([0] * 10 + [1] * 5 + [2]), 0.2, seed=0)
    >>> len(kept), len(held_out)
    (13, 3)
    """
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction < 1:
        raise DataError(f"the fraction to hold out is {fraction!r}; expected a number from 0 to below 1, such as 0.1")
    kept, held_out = _split(labels_N, fraction, seed, groups_N)
    if fraction > 0 and not len(held_out):
        raise DataError(
            f"holding out {fraction:g} of every class holds out nothing: "
            f"{_size(labels_N, groups_N, noun, group)} are too few. "
            f"Hold out more, or 0 for none{_less_groups(groups_N)}"
        )
    return kept, held_out


def validation_split(
    labels_N: Tensor,
    validation: float | Folds | Path,
    seed: int,
    groups_N: Tensor | None = None,
    *,
    noun: str = "image",
    group: str = "group",
) -> tuple[Tensor, Tensor]:
    """Sorted indices of (kept, held out), as `data.validation` says.

    `noun` names a sample in messages, `group` what groups have in common.

    Raises:
        DataError: there are too few examples, or a fold is not named.
    """
    if isinstance(validation, Path):
        raise DataError(f"data.validation: {validation} names no validation images; expected a number, or {{folds: 5}}")
    if not isinstance(validation, Folds):
        return stratified_split(labels_N, validation, seed, groups_N, noun=noun, group=group)
    if validation.fold is None:
        raise DataError(
            f"data.validation: {{folds: {validation.folds}}} is for `distail compare` and `distail search`, which "
            "train a run for each; one run holds out one of them, such as data.validation.fold=0"
        )
    fold_N = stratified_folds(labels_N, validation.folds, seed, groups_N, noun=noun, group=group)
    held_out_N = fold_N == validation.fold
    return (~held_out_N).nonzero().flatten(), held_out_N.nonzero().flatten()


def stratified_folds(
    labels_N: Tensor,
    folds: int,
    seed: int,
    groups_N: Tensor | None = None,
    *,
    noun: str = "image",
    group: str = "group",
) -> Tensor:
    """The fold (N,) int64, from 0, that holds each example out; -1 of those that every run needs.

    Each class is spread evenly. A class of one example holds none out; with `groups_N` (N,) int64 groups are whole
    (scikit-learn's `StratifiedGroupKFold`), and those without which a class would have no example left stay.

    Raises:
        DataError: a fold would hold nothing out.

    >>> folds = stratified_folds(torch.tensor([0] * 10 + [1] * 5 + [2]), 5, seed=0)
    >>> torch.bincount(folds + 1).tolist(), folds[10:15].sort().values.tolist()
    ([1, 3, 3, 3, 3, 3], [0, 1, 2, 3, 4])
    """
    labels = strata(labels_N).cpu().numpy()
    found = (
        _folds_by_class(labels, folds, seed)
        if groups_N is None
        else _folds_of_groups(labels, groups_N.cpu().numpy(), folds, seed)
    )
    empty = np.setdiff1d(np.arange(folds), found)
    if len(empty):
        kind = f"{noun}s" if groups_N is None else "groups"
        raise DataError(
            f"{folds} folds are too many: {_size(labels_N, groups_N, noun, group)} have too few "
            f"{kind} that can be held out; expected fewer folds (data.validation){_less_groups(groups_N)}"
        )
    return torch.from_numpy(found)


def _folds_by_class(labels: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    found, first = np.full(len(labels), -1, dtype=np.int64), 0
    for c in np.unique(labels):
        rows = np.flatnonzero(labels == c)
        if len(rows) > 1:
            shuffled = rows[random_permutation(stream_key("folds", seed, int(c)), len(rows))]
            # Each class goes on where the one before ended, so that small ones do not all fill the first folds.
            found[shuffled] = (first + np.arange(len(rows))) % folds
            first += len(rows)
    return found


def _folds_of_groups(labels: NDArray[np.int64], groups: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    found = np.full(len(labels), -1, dtype=np.int64)
    if folds > min(len(np.unique(groups)), int(np.unique(labels, return_counts=True)[1].max(initial=0))):
        return found
    for number, (_, fold) in enumerate(_group_folds(labels, groups, folds, "folds", seed)):
        found[fold] = number
    for c in np.unique(labels):
        if len(np.unique(found[labels == c])) == 1:
            found[np.isin(groups, groups[labels == c])] = -1
    return found


def _group_folds(
    labels: NDArray[np.int64], groups: NDArray[np.int64], folds: int, purpose: str, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    from sklearn.model_selection import StratifiedGroupKFold

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer images than folds
        state = int(stream_key(purpose, seed) % np.uint64(2**32))
        return list(StratifiedGroupKFold(folds, shuffle=True, random_state=state).split(labels, labels, groups))


def fixed_test_split(
    labels_N: Tensor, groups_N: Tensor | None = None, *, noun: str = "image", group: str = "group"
) -> tuple[Tensor, Tensor]:
    """Sorted indices of (training, test) for data without a test set: a stratified fifth, whatever the run's seed.

    With `groups_N` (N,) int64 a group lies in one of the two.

    Raises:
        DataError: that would leave no image for the test.

    >>> [len(part) for part in fixed_test_split(torch.tensor([0] * 10 + [1] * 10))]
    [16, 4]
    """
    kept, held_out = _split(labels_N, _TEST_FRACTION, _TEST_SEED, groups_N)
    if not len(held_out):
        raise DataError(
            f"the data has no test {noun}s of its own, and {_size(labels_N, groups_N, noun, group)} are too few "
            f"for the fifth of every class that would be the test set; expected a class of at least 3 {noun}s, or "
            f"{noun}s named as the test set{_less_groups(groups_N)}"
        )
    return kept, held_out


def _split(labels_N: Tensor, fraction: float, seed: int, groups_N: Tensor | None) -> tuple[Tensor, Tensor]:
    labels_N = strata(labels_N)
    if groups_N is None:
        return _by_class(labels_N, fraction, seed)
    held_out = np.zeros(len(labels_N), dtype=bool)
    if fraction:
        held_out[_whole_groups(labels_N.cpu().numpy(), groups_N.cpu().numpy(), fraction, seed)] = True
    return torch.from_numpy(np.flatnonzero(~held_out)), torch.from_numpy(np.flatnonzero(held_out))


def _whole_groups(
    labels_N: NDArray[np.int64], groups_N: NDArray[np.int64], fraction: float, seed: int
) -> NDArray[np.int64]:
    """The rows of the groups that are held out."""
    # Of so many folds one is the fraction, or all but one are; it takes as many groups, and images of some class.
    wanted = max(2, math.floor(1 / min(fraction, 1 - fraction) + 0.5))
    folds = min(wanted, len(np.unique(groups_N)), int(np.unique(labels_N, return_counts=True)[1].max(initial=0)))
    if folds < 2:
        return np.empty(0, dtype=np.int64)
    # Groups of different sizes make different folds, the first of which has the largest group.
    size = min(fraction, 1 - fraction) * len(labels_N)
    parts = _group_folds(labels_N, groups_N, folds, "group-split", seed)
    kept, fold = min(parts, key=lambda part: abs(len(part[1]) - size))
    held_out: NDArray[np.int64] = fold if fraction <= 0.5 else kept
    left = np.setdiff1d(np.arange(len(labels_N)), held_out)
    gone = np.setdiff1d(labels_N[held_out], labels_N[left])
    # A class whose every image would be held out keeps them all, and with them the groups that they lie in.
    needed = groups_N[held_out][np.isin(labels_N[held_out], gone)]
    return np.setdiff1d(held_out, held_out[np.isin(groups_N[held_out], needed)])


def _by_class(labels_N: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    labels = labels_N.cpu().numpy()
    held_out = np.zeros(len(labels), dtype=bool)
    for c in np.unique(labels):
        rows = np.flatnonzero(labels == c)
        count = min(len(rows) - 1, math.floor(fraction * len(rows) + 0.5))
        held_out[rows[random_permutation(stream_key("split", seed, int(c)), len(rows))[:count]]] = True
    return torch.from_numpy(np.flatnonzero(~held_out)), torch.from_numpy(np.flatnonzero(held_out))


def _size(labels_N: Tensor, groups_N: Tensor | None, noun: str, group: str) -> str:
    size = f"{counted(len(labels_N), noun)} in {len(np.unique(strata(labels_N).cpu().numpy()))} classes"
    if groups_N is None:
        return size
    return f"{size}, in whole groups of one {group!r} ({counted(len(set(groups_N.tolist())), 'group')}),"


def _less_groups(groups_N: Tensor | None) -> str:
    """What else helps where whole groups are held out."""
    return "" if groups_N is None else "; data.group names another column, or null for no groups"
