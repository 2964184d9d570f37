from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distail.errors import DataError
from distail.evaluation.groups import shots, thirds

counts_strategy = st.lists(st.integers(1, 5000), min_size=1, max_size=60)


def test_shots_have_their_published_borders() -> None:
    assert shots([101, 100, 20, 19]) == {"many": (0,), "medium": (1, 2), "few": (3,)}


@pytest.mark.parametrize(("classes", "sizes"), [(100, (33, 34, 33)), (10, (3, 4, 3)), (1000, (333, 334, 333))])
def test_thirds_have_the_published_sizes(classes: int, sizes: tuple[int, ...]) -> None:
    groups = thirds(range(classes, 0, -1))
    assert tuple(len(part) for part in groups.values()) == sizes
    assert groups["head"] == tuple(range(sizes[0]))
    assert groups["tail"] == tuple(range(classes - sizes[2], classes))


def test_thirds_break_ties_by_index() -> None:
    assert thirds([7, 7, 7]) == {"head": (0,), "medium": (1,), "tail": (2,)}


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([9], {"head": (), "medium": (0,), "tail": ()}), ([1, 9], {"head": (1,), "medium": (), "tail": (0,)})],
)
def test_too_few_classes_leave_a_third_empty(counts: list[int], expected: dict[str, tuple[int, ...]]) -> None:
    assert thirds(counts) == expected


@settings(deadline=None)
@given(counts_strategy)
def test_groups_are_a_partition(counts: list[int]) -> None:
    for groups in (shots(counts), thirds(counts)):
        assert sorted(c for part in groups.values() for c in part) == list(range(len(counts)))
        assert all(part == tuple(sorted(part)) for part in groups.values())


@settings(deadline=None)
@given(counts_strategy)
def test_thirds_are_ordered_by_count(counts: list[int]) -> None:
    groups = thirds(counts)
    by_third = [[counts[c] for c in part] for part in groups.values() if part]
    for larger, smaller in pairwise(by_third):
        assert min(larger) >= max(smaller)


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor, lambda c: torch.tensor(c).double()])
def test_any_sequence_of_whole_numbers_will_do(kind: object) -> None:
    assert shots(kind([500, 3])) == {"many": (0,), "medium": (), "few": (1,)}  # type: ignore[operator]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([5, 0, -2], "class 1: 0, class 2: -2"),
        ([5, 1.5], "class 1: 1.5"),
        ([5, float("nan")], "class 1: nan"),
        ([5, float("inf")], "class 1: inf"),
        ([0] * 9, "and 4 more"),
        ([], "length 0"),
        ([[1, 2]], r"class 0: \[1, 2\]"),
    ],
)
def test_wrong_counts_are_refused_by_class(counts: list[object], message: str) -> None:
    for rule in (shots, thirds):
        with pytest.raises(DataError, match=message):
            rule(counts)  # type: ignore[arg-type]
