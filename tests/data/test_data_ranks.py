"""How processes share a batch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distail.data.batches import slice_of_rank, training_share, training_slice

WORLDS = st.integers(1, 9)


def parts(cut, length, world_size):
    return [list(range(length))[cut(length, rank, world_size)] for rank in range(world_size)]


@given(st.integers(0, 40), WORLDS)
def test_slices_side_by_side_are_the_whole_and_differ_by_one_at_most(length, world_size):
    shares = parts(slice_of_rank, length, world_size)
    assert [row for share in shares for row in share] == list(range(length))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.integers(1, 40), WORLDS)
def test_training_leaves_no_rank_with_fewer_than_two_unless_all_have_the_whole(length, world_size):
    shares = parts(training_slice, length, world_size)
    if length >= 2 * world_size:
        assert shares == parts(slice_of_rank, length, world_size)
        assert min(map(len, shares)) >= 2
    else:
        assert shares == [list(range(length))] * world_size


@given(st.integers(1, 40), WORLDS)
def test_the_shares_make_means_of_slices_the_mean_of_the_whole(length, world_size):
    shares = [training_share(length, rank, world_size) for rank in range(world_size)]
    means = [sum(part) / len(part) for part in parts(training_slice, length, world_size)]
    assert sum(shares) == pytest.approx(1)
    assert sum(s * m for s, m in zip(shares, means, strict=True)) == pytest.approx((length - 1) / 2)
