from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distail.data.sources.fashion_mnist import parse_idx
from distail.errors import DataError


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 255))
@settings(deadline=None)
def test_arrays_come_back(shape: list[int], start: int) -> None:
    array = (np.arange(np.prod(shape)).reshape(shape) + start).astype(np.uint8)
    np.testing.assert_array_equal(parse_idx(idx_bytes(array), "x", len(shape)), array)


@pytest.mark.parametrize("shape", [(0,), (0, 28, 28), (3, 0, 28), (0, 2**32 - 1, 2**32 - 1)])
def test_arrays_of_nothing(shape: tuple[int, ...]) -> None:
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
    with pytest.raises(DataError, match="there is nothing in it"):
        parse_idx(header, "x", len(shape))


@given(st.binary(max_size=64), st.integers(1, 4))
@settings(deadline=None, max_examples=300)
def test_random_bytes_are_a_data_error_or_an_array(data: bytes, dimensions: int) -> None:
    try:
        array = parse_idx(data, "x", dimensions)
    except DataError:
        return
    assert array.ndim == dimensions


@given(st.binary(max_size=40), st.integers(1, 3))
@settings(deadline=None, max_examples=300)
def test_random_bytes_after_a_valid_beginning(data: bytes, dimensions: int) -> None:
    whole = bytes([0, 0, 8, dimensions]) + data
    try:
        array = parse_idx(whole, "x", dimensions)
    except DataError:
        return
    assert array.size == len(whole) - 4 - 4 * dimensions


@given(st.data())
@settings(deadline=None)
def test_a_cut_or_lengthened_file_is_refused(data: st.DataObject) -> None:
    whole = idx_bytes(np.ones((3, 4, 5)))
    cut = data.draw(st.integers(0, len(whole) - 1))
    for damaged in (whole[:cut], whole + b"\0" * (cut + 1)):
        with pytest.raises(DataError):
            parse_idx(damaged, "x", 3)


def test_sizes_that_overflow_are_refused() -> None:
    header = struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    with pytest.raises(DataError, match="4294967295 x 4294967295 x 4294967295 bytes but has 3"):
        parse_idx(header + b"abc", "images", 3)


@pytest.mark.parametrize("kind", [0x09, 0x0B, 0x0D])
def test_other_number_types_are_refused(kind: int) -> None:
    with pytest.raises(DataError, match="unsigned bytes with 1 dimension"):
        parse_idx(bytes([0, 0, kind, 1, 0, 0, 0, 1, 7]), "labels", 1)


def test_labels_in_place_of_images_are_refused() -> None:
    with pytest.raises(DataError, match="3 dimensions"):
        parse_idx(idx_bytes(np.ones(20)), "images", 3)
