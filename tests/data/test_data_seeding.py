from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distail.data.seeding import random_bits, random_permutation, random_units, stream_key

MASK = 2**64 - 1


def splitmix(state: int) -> int:
    """SplitMix64's output function in Python's own integers (Steele, Lea and Flood 2014)."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


@given(st.integers(0, MASK), st.lists(st.integers(0, 2**40), min_size=1, max_size=3))
@settings(deadline=None)
def test_bits_are_splitmix_one_round_a_coordinate(key: int, coordinates: list[int]) -> None:
    state = key
    for coordinate in coordinates:
        state = splitmix((state + (coordinate + 1) * 0x9E3779B97F4A7C15) & MASK)
    bits = random_bits(np.uint64(key), *(np.asarray([coordinate]) for coordinate in coordinates))
    assert bits.dtype == np.uint64
    assert bits.tolist() == [state]


def test_first_output_is_the_published_one() -> None:
    # The first value of the reference implementation of SplitMix64 seeded with 0.
    assert random_bits(np.uint64(0), np.arange(1)).tolist() == [0xE220A8397B1DCDAF]


def test_key_is_the_hash_of_its_text() -> None:
    expected = hashlib.blake2b(b"crop/3/-1/20", digest_size=8).digest()
    assert int(stream_key("crop", 3, -1, 20)) == int.from_bytes(expected, "little")


@pytest.mark.parametrize("other", [("b", 1, 2), ("a", 2, 1), ("a", 12), ("a", 1, 2, 0), ("a", -1, 2), ("a", 1, 2**70)])
def test_keys_differ_in_every_part(other: tuple) -> None:
    assert stream_key("a", 1, 2) != stream_key(*other)


def test_coordinates_broadcast() -> None:
    key = stream_key("x")
    table = random_bits(key, np.arange(4)[:, None], np.arange(3))
    assert table.shape == (4, 3)
    assert table[2, 1] == random_bits(key, np.asarray([2]), np.asarray([1]))[0]
    assert len(np.unique(table)) == 12


def test_units_are_uniform_and_uncorrelated() -> None:
    units = random_units(stream_key("u"), np.arange(20_000))
    assert units.min() >= 0
    assert units.max() < 1
    counts = np.histogram(units, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 45  # chi-square with 19 degrees of freedom: 0.9993
    assert abs(np.corrcoef(units[:-1], units[1:])[0, 1]) < 0.03
    neighbor = random_units(stream_key("u", 1), np.arange(20_000))
    assert abs(np.corrcoef(units, neighbor)[0, 1]) < 0.03


@given(st.integers(0, 200), st.integers(0, MASK))
@settings(deadline=None)
def test_permutation_holds_every_number_once(length: int, key: int) -> None:
    assert sorted(random_permutation(np.uint64(key), length).tolist()) == list(range(length))


def test_permutation_of_four_is_fair() -> None:
    seen: dict[tuple[int, ...], int] = {}
    for seed in range(4800):
        order = tuple(random_permutation(stream_key("fair", seed), 4).tolist())
        seen[order] = seen.get(order, 0) + 1
    assert len(seen) == 24
    assert sum((count - 200) ** 2 / 200 for count in seen.values()) < 53  # 23 degrees of freedom: 0.9996
