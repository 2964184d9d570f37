"""The IDX format of MNIST and its relatives: a header of sizes, then bytes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from distail.errors import DataError

_UNSIGNED_BYTE = 0x08


def parse_idx(data: bytes, name: str, dimensions: int) -> NDArray[np.uint8]:
    """An array of unsigned bytes with the given number of dimensions; ``name`` is used in messages.

    Raises ``DataError`` for everything that is not such an array, whatever the bytes.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), "labels", 1).tolist()
    [7, 9]
    """
    header = 4 + 4 * dimensions
    expected = f"expected an IDX file of unsigned bytes with {dimensions} dimension{'s' * (dimensions > 1)}"
    if len(data) < header:
        raise DataError(f"{name} has {len(data)} bytes; {expected}, whose header alone has {header}")
    if tuple(data[:4]) != (0, 0, _UNSIGNED_BYTE, dimensions):
        raise DataError(f"{name} begins with the bytes {data[:4].hex(' ')}; {expected}: 00 00 08 {dimensions:02x}")
    shape = [int(size) for size in np.frombuffer(data, dtype=">u4", count=dimensions, offset=4)]
    sizes = " x ".join(str(size) for size in shape)
    if 0 in shape:
        raise DataError(f"{name} says it holds {sizes} bytes: there is nothing in it")
    if len(data) - header != math.prod(shape):
        raise DataError(f"{name} says it holds {sizes} bytes but has {len(data) - header}: it is damaged or cut off")
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)
