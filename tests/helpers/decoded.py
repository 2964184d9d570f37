"""An image file's pixels, for tests that do not ask what was lost."""

from __future__ import annotations

from distail.data.image_file import Pixels, read_pixels


def decode_image(data: bytes, image_size: int | None = None, bit_depth: int | None = None) -> Pixels:
    return read_pixels(data, image_size, bit_depth)[0]
