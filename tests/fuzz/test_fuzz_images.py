"""Images of every format with damaged bytes: pixels, or the reason why there are none."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from distail.data.image_file import UnreadableImage
from helpers.decoded import decode_image


def encoded(mode: str, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)).convert(mode)
    image.save(file, kind, **options)
    return file.getvalue()


EXIF = Image.Exif()
EXIF[0x0112] = 6
WHOLE = {
    "png": encoded("RGB", "PNG"),
    "png with a palette": encoded("P", "PNG", transparency=3),
    "png of 16 bits": encoded("I;16", "PNG"),
    "jpeg turned by exif": encoded("RGB", "JPEG", exif=EXIF),
    "jpeg in cmyk": encoded("CMYK", "JPEG"),
    "progressive jpeg": encoded("L", "JPEG", progressive=True),
    "animated gif": encoded("P", "GIF", save_all=True, append_images=[Image.new("P", (7, 9), 3)]),
    "animated webp": encoded("RGB", "WEBP", save_all=True, append_images=[Image.new("RGB", (7, 9), "red")]),
    "bmp": encoded("RGB", "BMP"),
    "tiff": encoded("RGB", "TIFF", compression="tiff_lzw"),
    "tiff in cmyk": encoded("CMYK", "TIFF"),
    "ppm": encoded("RGB", "PPM"),
}


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(sorted(WHOLE.values()))))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, len(data) - 1) | st.integers(0, min(60, len(data) - 1)))
        data[place] = draw(st.integers(0, 255) | st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
    cut = draw(st.none() | st.integers(0, len(data)))
    return bytes(data[:cut])


@pytest.mark.filterwarnings("ignore")
@given(damaged(), st.sampled_from([None, 1, 8]))
@settings(deadline=None, max_examples=400)
def test_damaged_images_are_pixels_or_unreadable(data: bytes, side: int | None) -> None:
    try:
        pixels = decode_image(data, side)
    except UnreadableImage as reason:
        message = str(reason)
    else:
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
        assert min(pixels.shape) > 0
        assert side is None or pixels.shape[:2] == (side, side)
        return
    assert message
    assert "\n" not in message


@pytest.mark.parametrize("kind", WHOLE)
def test_what_is_damaged_above_could_be_read(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_image(WHOLE[kind]).shape[:2] in ((9, 7), (7, 9))
