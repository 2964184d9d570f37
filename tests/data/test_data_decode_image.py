"""Each color mode that files come in, and what damaged files are said to be."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from distail.data.image_file import Findings, UnreadableImage, read_pixels
from helpers.decoded import decode_image


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def colors(height: int = 6, width: int = 4, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_rgb_and_gray_are_kept() -> None:
    rgb, gray = colors(), colors()[..., 0]
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(rgb))), rgb)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(gray))), gray)


def test_black_and_white_is_gray() -> None:
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
    gray = Image.fromarray(np.array([[9, 0]], dtype=np.uint8))
    assert decode_image(encoded(gray, transparency=0)).tolist() == [[9, 255]]


def test_transparency_is_laid_over_white() -> None:
    rgba = colors(channels=4)
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    result = decode_image(encoded(Image.fromarray(rgba)))
    assert result.shape == (6, 4, 3)
    assert np.abs(result - expected).max() <= 1


def test_gray_with_transparency_stays_gray() -> None:
    result = decode_image(encoded(Image.fromarray(np.array([[[7, 255], [7, 0]]], dtype=np.uint8), "LA")))
    assert result.tolist() == [[7, 255]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_cut_to_eight(kind: str) -> None:
    levels = np.array([[0, 256, 257, 32896, 65535]], dtype=np.uint16)
    assert decode_image(encoded(Image.fromarray(levels), kind)).tolist() == [[0, 0, 1, 128, 255]]


def tiff(pixels: np.ndarray, photometric: int, bits: int, *extra: tuple[int, int]) -> bytes:
    """An uncompressed TIFF of bytes as they are, with further tags as (number, value of 16 bits)."""
    height, width = pixels.shape[:2]
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    tags = [(256, width), (257, height), (259, 1), (262, photometric), (277, samples), (278, height), *extra]
    entries = [struct.pack("<HHII", number, 3, 1, value) for number, value in tags]
    after = 8 + 2 + 12 * (len(tags) + 3) + 4
    few = samples <= 2
    entries.append(
        struct.pack("<HHI", 258, 3, samples) + struct.pack("<HH" if few else "<I", *([bits] * 2 if few else [after]))
    )
    entries.append(struct.pack("<HHII", 273, 4, 1, after + 2 * samples))
    entries.append(struct.pack("<HHII", 279, 4, 1, pixels.nbytes))
    directory = struct.pack("<H", len(entries)) + b"".join(sorted(entries, key=lambda entry: entry[1::-1])) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<H", bits) * samples + pixels.tobytes()


def test_bit_depth_says_how_many_bits_are_used() -> None:
    levels = np.array([[0, 2500, 3583, 4095]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        data = encoded(Image.fromarray(levels), kind)
        assert decode_image(data).tolist() == [[0, 9, 13, 15]]
        assert decode_image(data, bit_depth=12).tolist() == [[0, 155, 223, 255]]
        with pytest.raises(UnreadableImage, match=r"4095.*data\.bit_depth: 11 ends at 2047"):
            decode_image(data, bit_depth=11)


def test_a_tiff_may_say_that_it_has_twelve_bits() -> None:
    packed = np.array([[0x00, 0x0F, 0xFF]], dtype=np.uint8)  # the levels 0x000 and 0xFFF
    file = tiff(np.zeros((1, 2), np.uint8), 1, 12)[:-2] + packed.tobytes()
    assert decode_image(file).tolist() == [[0, 255]]
    assert decode_image(file, bit_depth=16).tolist() == [[0, 255]]


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535)])
def test_white_is_zero_at_any_depth(dtype: type, white: int) -> None:
    pixels = np.array([[0, white, white // 3 * 2]], dtype=dtype)
    bits = pixels.itemsize * 8
    assert decode_image(tiff(pixels, 1, bits)).tolist() == [[0, 255, 170]]
    assert decode_image(tiff(pixels, 0, bits)).tolist() == [[255, 0, 85]]


def test_white_is_zero_with_a_bit_depth() -> None:
    assert decode_image(tiff(np.array([[0, 4095]], np.uint16), 0, 16), bit_depth=12).tolist() == [[255, 0]]


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ([], Findings(dropped=1)),
        ([(338, 0)], Findings(dropped=1)),
        ([(338, 2)], Findings(laid_over_white=1)),
    ],
)
def test_a_fourth_band_of_a_tiff(extra: list[tuple[int, int]], expected: Findings) -> None:
    four = colors(channels=4)
    pixels, findings = read_pixels(tiff(four, 2, 8, *extra))
    assert findings == expected
    assert np.array_equal(pixels, four[..., :3]) == bool(expected.dropped)


def test_transparency_of_other_formats_is_no_fourth_band() -> None:
    assert read_pixels(encoded(Image.fromarray(colors(channels=4))))[1] == Findings()


def test_color_of_sixteen_bits_is_cut_and_known() -> None:
    pixels = np.full((2, 2, 3), 0x0FFF, dtype=np.uint16)
    data = tiff(pixels, 2, 16)
    found, findings = read_pixels(data)
    assert (found.max(), findings) == (15, Findings(color_level=15))
    with pytest.raises(UnreadableImage, match=r"data\.bit_depth: 12"):
        decode_image(data, bit_depth=12)


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
def test_image_size_gives_a_square_of_the_center(height: int, width: int) -> None:
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
    with pytest.raises(UnreadableImage, match="32-bit gray levels"):
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
