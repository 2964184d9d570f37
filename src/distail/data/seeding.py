"""Random numbers as pure functions of what they are for: nothing to keep, nothing to restore when a run resumes.

A key is hashed from a purpose and some integers; bits are then hashed from the key and integer coordinates. Neither
depends on a library's generator: the same seed means the same subset, order and crops in any version of numpy or torch.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def stream_key(purpose: str, *numbers: int) -> np.uint64:
    """A 64-bit key for one purpose, such as `stream_key("crop", seed, epoch, step)`.

    >>> int(stream_key("crop", 0, 1)) == int(stream_key("crop", 1, 0))
    False
    """
    text = "/".join([purpose, *(str(int(number)) for number in numbers)])
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


def random_bits(key: np.uint64, *coordinates: NDArray[np.integer]) -> NDArray[np.uint64]:
    """64 random bits for each point of the broadcast integer coordinates (SplitMix64, one round a coordinate).

    >>> random_bits(stream_key("example"), np.arange(3)).shape
    (3,)
    """
    state: NDArray[np.uint64] = np.asarray([key], dtype=np.uint64)
    for coordinate in coordinates:
        state = _mixed(state + (np.atleast_1d(coordinate).astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    return state


def random_units(key: np.uint64, *coordinates: NDArray[np.integer]) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), 53 bits each, for each point of the broadcast coordinates."""
    return (random_bits(key, *coordinates) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def random_permutation(key: np.uint64, length: int) -> NDArray[np.int64]:
    """The numbers 0 to `length - 1` in an order that depends on the key alone.

    >>> sorted(random_permutation(stream_key("example"), 4).tolist())
    [0, 1, 2, 3]
    """
    return np.argsort(random_bits(key, np.arange(length)), kind="stable").astype(np.int64)


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))
