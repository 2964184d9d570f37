"""Which classes are many, medium and few, and which are head, medium and tail: the two rules every table names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from distail.errors import DataError

SHOTS = ("many", "medium", "few")
THIRDS = ("head", "medium", "tail")
MANY_ABOVE = 100
FEW_BELOW = 20

SHOTS_RULE = "shots: many has more than 100 training images a class, medium 20 to 100, few less than 20"
THIRDS_RULE = "thirds: classes sorted by training images, the largest third is the head, the smallest the tail"


def checked_counts(class_counts: Sequence[int] | Tensor) -> tuple[int, ...]:
    """Training images of each class as plain ints.

    Raises:
        DataError: not one-dimensional, empty, not whole numbers, or below 1.
    """
    counts_C = torch.as_tensor(class_counts).detach().cpu()
    if counts_C.ndim != 1 or counts_C.numel() == 0:
        raise DataError(f"class_counts has shape {tuple(counts_C.shape)}; expected one whole number for each class.")
    values = counts_C.tolist()
    wrong = [f"class {c}: {value}" for c, value in enumerate(values) if value != value or value < 1 or value % 1 != 0]
    if wrong:
        shown = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise DataError(f"class_counts must be whole numbers of at least 1 for every class, but got {shown}.")
    return tuple(int(value) for value in values)


def shots(class_counts: Sequence[int] | Tensor) -> dict[str, tuple[int, ...]]:
    """Classes by their number of training images: many (> 100), medium (20 to 100), few (< 20).

    Returns:
        Group name to class indices, ascending; a group may be empty.

    Raises:
        DataError: counts that are no whole numbers of at least 1.

    >>> shots([500, 101, 100, 20, 19])
    {'many': (0, 1), 'medium': (2, 3), 'few': (4,)}
    """
    counts = checked_counts(class_counts)
    many = tuple(c for c, count in enumerate(counts) if count > MANY_ABOVE)
    few = tuple(c for c, count in enumerate(counts) if count < FEW_BELOW)
    medium = tuple(c for c, count in enumerate(counts) if FEW_BELOW <= count <= MANY_ABOVE)
    return dict(zip(SHOTS, (many, medium, few), strict=True))


def thirds(class_counts: Sequence[int] | Tensor) -> dict[str, tuple[int, ...]]:
    """Classes sorted by training images, descending, ties by index, cut at round(C / 3) and round(2 * C / 3).

    Returns:
        Group name to class indices, ascending; with fewer than three classes a group is empty.

    Raises:
        DataError: counts that are no whole numbers of at least 1.

    >>> thirds([5, 50, 500, 4])
    {'head': (2,), 'medium': (0, 1), 'tail': (3,)}
    """
    counts = checked_counts(class_counts)
    ranked = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    first, second = round(len(counts) / 3), round(2 * len(counts) / 3)
    parts = (ranked[:first], ranked[first:second], ranked[second:])
    return {name: tuple(sorted(part)) for name, part in zip(THIRDS, parts, strict=True)}


def empty_groups(class_counts: Sequence[int] | Tensor) -> frozenset[str]:
    """Which groups have no class, by the dotted path of their figure.

    >>> sorted(empty_groups([300, 50, 40]))
    ['groups.shots.few']
    """
    groupings = {"shots": shots(class_counts), "thirds": thirds(class_counts)}
    return frozenset(
        f"groups.{grouping}.{name}"
        for grouping, groups in groupings.items()
        for name, members in groups.items()
        if not members
    )


def group_of_class(groups: Mapping[str, Sequence[int]], classes: int) -> Tensor:
    """The position of each class's group in the mapping: (C,) int64. Every class must be in one group.

    >>> group_of_class(thirds([5, 50, 500, 4]), 4)
    tensor([1, 1, 0, 2])
    """
    position_C = torch.empty(classes, dtype=torch.int64)
    for position, members in enumerate(groups.values()):
        position_C[list(members)] = position
    return position_C


def group_shares(values_C: Tensor, groups: Mapping[str, Sequence[int]]) -> dict[str, float | None]:
    """The percent of the sum of a per-class number that lies in each group; None where the sum is 0.

    >>> group_shares(torch.tensor([3, 1, 0]), thirds([300, 50, 5]))
    {'head': 75.0, 'medium': 25.0, 'tail': 0.0}
    """
    total = float(values_C.sum())
    return {name: 100 * float(values_C[list(part)].sum()) / total if total else None for name, part in groups.items()}
