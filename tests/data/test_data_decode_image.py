"""Each color mode that files come in, and what damaged files are said to be."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from distail.data.decode import UnreadableImage, decode_image


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def colors(height: int = 6, width: int = 4, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_rgb_and_grey_are_kept() -> None:
    rgb, grey = colors(), colors()[..., 0]
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(rgb))), rgb)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(grey))), grey)


def test_black_and_white_is_grey() -> None:
    bits = colors()[..., 0] > 127
    result = decode_image(encoded(Image.fromarray(bits)))
    np.testing.assert_array_equal(result, bits * np.uint8(255))


def test_a_palette_becomes_rgb() -> None:
    image = Image.fromarray(colors()).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(decode_image(encoded(image)), np.asarray(image.convert("RGB")))


def test_a_palette_with_a_transparent_color_is_laid_over_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    result = decode_image(encoded(image, transparency=0))
    assert result.tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_one_transparent_color_is_laid_over_white() -> None:
    color = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    assert decode_image(encoded(color, transparency=(1, 2, 3))).tolist() == [[[255, 255, 255], [4, 5, 6]]]
    grey = Image.fromarray(np.array([[9, 0]], dtype=np.uint8))
    assert decode_image(encoded(grey, transparency=0)).tolist() == [[9, 255]]


def test_transparency_is_laid_over_white() -> None:
    rgba = colors(channels=4)
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    result = decode_image(encoded(Image.fromarray(rgba)))
    assert result.shape == (6, 4, 3)
    assert np.abs(result - expected).max() <= 1


def test_grey_with_transparency_stays_grey() -> None:
    result = decode_image(encoded(Image.fromarray(np.array([[[7, 255], [7, 0]]], dtype=np.uint8), "LA")))
    assert result.tolist() == [[7, 255]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_cut_to_eight(kind: str) -> None:
    levels = np.array([[0, 256, 257, 32896, 65535]], dtype=np.uint16)
    assert decode_image(encoded(Image.fromarray(levels), kind)).tolist() == [[0, 0, 1, 128, 255]]


def test_cmyk_becomes_rgb() -> None:
    smooth = Image.new("RGB", (16, 16), (200, 30, 60)).convert("CMYK")
    result = decode_image(encoded(smooth, "JPEG", quality=95))
    assert result.shape == (16, 16, 3)
    assert np.abs(result.astype(int) - (200, 30, 60)).max() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(orientation: int) -> None:
    upright = colors(height=5, width=3)
    turns = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(turns[orientation]))
    np.testing.assert_array_equal(decode_image(encoded(stored, exif=exif)), upright)


def test_the_first_picture_of_an_animation() -> None:
    frames = [Image.new("RGB", (3, 3), color) for color in ("red", "blue")]
    options = {"GIF": {}, "WEBP": {"lossless": True}, "PNG": {}, "TIFF": {}}
    for kind, how in options.items():
        result = decode_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **how))
        assert result[0, 0].tolist() == [255, 0, 0], kind


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
@pytest.mark.parametrize("side", [None, 1, 5])
def test_a_single_pixel(kind: str, side: int | None) -> None:
    result = decode_image(encoded(Image.new("RGB", (1, 1), (9, 9, 9)), kind), side)
    assert result.shape[:2] == (side or 1, side or 1)
    assert np.abs(result.astype(int) - 9).max() <= 2


@pytest.mark.parametrize("side", [None, 4])
@pytest.mark.parametrize(
    "data",
    [
        b"P5 0 0 255\n",
        b"P6 0 4 255\n",
        b"GIF89a\0\0\0\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\0\0\0\0\0\x02\x00\x00;",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(8) + b"\x08\0\0\0\0" + b"\xaf\x31\xbd\x91",
    ],
)
def test_images_without_pixels(data: bytes, side: int | None) -> None:
    with pytest.raises(UnreadableImage):
        decode_image(data, side)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 8), (8, 20), (5, 9), (30, 7)])
def test_image_size_gives_a_square_of_the_centre(height: int, width: int) -> None:
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[..., 0] = np.linspace(0, 250, width)[None, :]
    image[..., 1] = np.linspace(0, 250, height)[:, None]
    result = decode_image(encoded(Image.fromarray(image)), 8)
    assert result.shape == (8, 8, 3)
    assert abs(result[..., 0].mean() - 125) < 5
    assert abs(result[..., 1].mean() - 125) < 5


def test_the_right_size_is_not_resized() -> None:
    image = colors(8, 12)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(image)), 8), image[:, 2:10])


@given(height=st.integers(1, 90), width=st.integers(1, 90), side=st.integers(1, 70))
@settings(deadline=None, max_examples=80)
def test_the_square_is_that_of_the_whole_image_resized(height: int, width: int, side: int) -> None:
    image = Image.fromarray(colors(height, width))
    scale = side / min(height, width)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    expected = np.asarray(image.resize(size, Image.Resampling.BILINEAR))[top : top + side, left : left + side]
    result = decode_image(encoded(image), side)
    assert np.abs(result.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("height", "width", "exact"), [(90, 120, True), (130, 260, False), (600, 500, False)])
def test_large_jpegs_are_decoded_smaller(height: int, width: int, exact: bool) -> None:
    smooth = Image.fromarray(colors(4, 5)).resize((width, height), Image.Resampling.BICUBIC)
    data = encoded(smooth, "JPEG", quality=95)
    whole = decode_image(encoded(Image.open(io.BytesIO(data)).convert("RGB")), 60)
    difference = np.abs(decode_image(data, 60).astype(int) - whole)
    assert (difference.max() == 0) == exact
    assert difference.mean() < 4


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_large_jpegs_are_turned_upright_too(orientation: int) -> None:
    upright = Image.fromarray(colors(3, 4)).resize((400, 300), Image.Resampling.BICUBIC)
    stored = upright.rotate({3: 180, 6: 90, 8: -90}[orientation], expand=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = decode_image(encoded(stored, "JPEG", quality=95, exif=exif), 64)
    expected = decode_image(encoded(upright), 64)
    assert np.abs(result.astype(int) - expected).mean() < 2


def test_empty_files() -> None:
    with pytest.raises(UnreadableImage, match="the file is empty"):
        decode_image(b"")


def test_what_is_no_image() -> None:
    with pytest.raises(UnreadableImage, match=r"not an image .*PNG"):
        decode_image(b"these are words, not pixels")


def test_a_file_that_would_start_another_program() -> None:
    postscript = encoded(Image.new("RGB", (4, 4)), "EPS")
    with pytest.raises(UnreadableImage, match="not an image"):
        decode_image(postscript)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"])
def test_truncated_files(kind: str) -> None:
    whole = encoded(Image.fromarray(colors(64, 64)), kind)
    for image_size in (None, 16):
        with pytest.raises(UnreadableImage):
            decode_image(whole[: len(whole) // 2], image_size)


def test_decompression_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for side in (11, 40):
            with pytest.raises(UnreadableImage, match="decompression bomb"):
                decode_image(encoded(Image.new("L", (side, side))))
        assert decode_image(encoded(Image.new("L", (10, 10)))).shape == (10, 10)


def test_floating_point_and_32_bit_levels_are_refused() -> None:
    with pytest.raises(UnreadableImage, match="floating-point"):
        decode_image(encoded(Image.fromarray(np.ones((2, 2), dtype=np.float32)), "TIFF"))
    with pytest.raises(UnreadableImage, match="32-bit grey levels"):
        decode_image(encoded(Image.fromarray(np.full((2, 2), 70_000, dtype=np.int32)), "TIFF"))


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM", b"GIF89a", b"P5 "])
)
@settings(deadline=None, max_examples=150)
def test_random_bytes_are_unreadable_or_pixels(data: bytes, start: bytes) -> None:
    try:
        pixels = decode_image(start + data)
    except UnreadableImage:
        return
    assert pixels.dtype == np.uint8
