"""Which classes are many, medium and few, and which are head, medium and tail: the two rules every table names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from distail.errors import DataError
from distail.functional.checks import whole_counts
from distail.functional.divergences import split_into_thirds

SHOTS = ("many", "medium", "few")
THIRDS = ("head", "medium", "tail")
HEAD, MEDIUM, TAIL = THIRD_PATHS = tuple(f"groups.thirds.{name}" for name in THIRDS)
"""Where the metrics of the thirds stand in those of a test set."""
FEW_IMAGES = 30
"""Of so few of the tail third, a figure of it says little."""
MANY_ABOVE = 100
FEW_BELOW = 20

SHOTS_RULE = "shots: many has more than 100 training images per class, medium 20 to 100, few less than 20"
THIRDS_RULE = "thirds: classes sorted by training images, the largest third is the head, the smallest the tail"


def checked_counts(class_counts: Sequence[int] | Tensor) -> tuple[int, ...]:
    """Training images of each class as plain ints.

    Raises:
        DataError: not one-dimensional, empty, not whole numbers, or below 1.
    """
    return whole_counts(class_counts, DataError)


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


def images_of_tail(target: Tensor, class_counts: Sequence[int] | Tensor) -> int:
    """How many of these labels (N,) are of the tail third; of several classes each, (N, C) bool, their positives.

    >>> images_of_tail(torch.tensor([0, 2, 2, 1]), [100, 10, 1])
    2
    >>> images_of_tail(torch.tensor([[True, True, True], [True, False, False]]), [100, 10, 1])
    1
    """
    tail = torch.tensor(thirds(class_counts)["tail"], dtype=torch.int64)
    return int(target[:, tail].sum() if target.ndim == 2 else torch.isin(target, tail.to(target.dtype)).sum())


def thirds(class_counts: Sequence[int] | Tensor) -> dict[str, tuple[int, ...]]:
    """Classes sorted by training images, descending, ties by index, cut at round(C / 3) and round(2 * C / 3).

    Returns:
        Group name to class indices, ascending; with fewer than three classes a group is empty.

    Raises:
        DataError: counts that are no whole numbers of at least 1.

    >>> thirds([5, 50, 500, 4])
    {'head': (2,), 'medium': (0, 1), 'tail': (3,)}
    """
    parts = split_into_thirds(checked_counts(class_counts))
    return {name: tuple(sorted(part)) for name, part in zip(THIRDS, parts, strict=True)}


_Grouping = Callable[[Sequence[int] | Tensor], dict[str, tuple[int, ...]]]
GROUPINGS: dict[str, _Grouping] = {"shots": shots, "thirds": thirds}
RULES = {"shots": SHOTS_RULE, "thirds": THIRDS_RULE}


def classes_by_group(class_counts: Sequence[int] | Tensor) -> dict[str, tuple[int, ...]]:
    """The classes of every group of both groupings, by the dotted path of the group's metric.

    >>> classes_by_group([300, 50, 5])["groups.thirds.tail"]
    (2,)
    """
    return {
        f"groups.{grouping}.{name}": classes
        for grouping, grouped in GROUPINGS.items()
        for name, classes in grouped(class_counts).items()
    }


def empty_groups(class_counts: Sequence[int] | Tensor) -> frozenset[str]:
    """Which groups have no class, by the dotted path of their metric.

    >>> sorted(empty_groups([300, 50, 40]))
    ['groups.shots.few']
    """
    return frozenset(path for path, classes in classes_by_group(class_counts).items() if not classes)


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
