"""One image file's bytes to 8-bit pixels, and what was lost on the way."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distail.data.image_metadata import without_metadata

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]

# Whatever a file is called, Pillow would open any format it knows, and run Ghostscript for one of them.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# Tags of TIFF.
_BITS, _PHOTOMETRIC, _SAMPLES, _EXTRA_SAMPLES = 258, 262, 277, 338
_WHITE_IS_ZERO, _COLOR_BANDS = 0, {0: 1, 1: 1, 2: 3}
_TRANSPARENCY = (1, 2)


class UnreadableImage(Exception):
    """Why one image cannot be used; never seen by users, who get the list of all of them."""


class Findings(NamedTuple):
    """What 8-bit gray or RGB cannot hold of an image; zeros where nothing was lost.

    `gray_level`: the largest level of a gray image that has 16 bits by its file; `color_level`: the largest of 255 of
    any other image of 16 bits, of which only the upper 8 are read; then whether a fourth band was taken for
    transparency, or bands were dropped.
    """

    gray_level: int = 0
    color_level: int = 0
    laid_over_white: int = 0
    dropped: int = 0


def read_pixels(data: bytes, image_size: int | None = None, bit_depth: int | None = None) -> tuple[Pixels, Findings]:
    """Pixels (H, W) of a gray image or (H, W, 3) of any other, uint8, and what was lost.

    Turned upright as EXIF says, where that can be read; metadata that is damaged is no fault. Palettes, CMYK and other
    color spaces become RGB; transparency is laid over white; 16-bit gray is cut to 8 bits, of which `bit_depth` are
    used; of an animation the first picture is taken. `image_size` resizes the shorter side (bilinear, with
    antialiasing) and cuts out the center; a JPEG at least twice, four or eight times as large is decoded at that
    fraction of its size.

    Raises:
        UnreadableImage: the bytes are no image, a damaged one, or one of too many pixels or levels.
    """
    try:
        return _read(data, image_size, bit_depth)
    except UnreadableImage as problem:
        pixels_alone = without_metadata(data)
        if pixels_alone == data:
            raise
        try:
            return _read(pixels_alone, image_size, bit_depth)
        except UnreadableImage:
            raise problem from None


def _read(data: bytes, image_size: int | None, bit_depth: int | None) -> tuple[Pixels, Findings]:
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise UnreadableImage("the file is empty")
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if not width or not height:
                raise UnreadableImage(f"{width}x{height} pixels: the image is empty")
            if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
                raise UnreadableImage(f"{width}x{height} pixels: more than the limit against decompression bombs")
            if image_size is not None:
                image.draft(None, (image_size, image_size))
            return pixels_of(image, image_size, bit_depth)
    except (UnreadableImage, MemoryError):  # memory that is short is no fault of the image
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage(f"not an image ({', '.join(_FORMATS)})") from error
    # Pillow's decoders raise more kinds of exception on damaged bytes than can be named.
    except Exception as error:
        raise UnreadableImage(" ".join(str(error).split()) or type(error).__name__) from error


def pixels_of(
    image: Image.Image, image_size: int | None = None, bit_depth: int | None = None, *, in_place: bool = True
) -> tuple[Pixels, Findings]:
    """As `read_pixels`, of an image that Pillow has opened; `in_place` it may be turned upright.

    A copy would not know its file's tags.

    Raises:
        UnreadableImage: it has too many levels.
    """
    sixteen_bits = ";16" in str(getattr(image, "tile", ""))
    tags: Any = getattr(image, "tag_v2", {})
    image.load()
    image = _upright(image, in_place=in_place)
    eight_bits, findings = _gray_or_rgb(image, tags, sixteen_bits, bit_depth)
    square = eight_bits if image_size is None else _center_square(eight_bits, image_size)
    return np.asarray(square, dtype=np.uint8), findings


def _upright(image: Image.Image, *, in_place: bool) -> Image.Image:
    from PIL import ImageOps

    try:
        if not in_place:
            return ImageOps.exif_transpose(image)
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    # The pixels are read by now. Damaged EXIF raises as many kinds of exception as damaged pixels.
    except Exception:
        pass
    return image


def _gray_or_rgb(
    image: Image.Image, tags: Any, sixteen_bits: bool, bit_depth: int | None
) -> tuple[Image.Image, Findings]:
    from PIL import Image

    if image.mode == "1":
        return image.convert("L"), Findings()
    if image.mode.startswith("I"):
        return _eight_bits(image, tags, bit_depth)
    if image.mode == "F":
        raise UnreadableImage("floating-point gray levels; expected 8 or 16 bits")
    color_level = int(np.asarray(image).max()) if sixteen_bits else 0
    if color_level and bit_depth is not None:
        raise UnreadableImage(
            f"16 bits in color or with transparency; data.bit_depth: {bit_depth} is only available for gray images"
        )
    more_bands = tags.get(_SAMPLES, 1) > _COLOR_BANDS.get(tags.get(_PHOTOMETRIC), tags.get(_SAMPLES, 1))
    transparent = image.has_transparency_data
    if more_bands:
        transparent = tags.get(_EXTRA_SAMPLES, (0,))[0] in _TRANSPARENCY
    findings = Findings(0, color_level, int(more_bands and transparent), int(more_bands and not transparent))
    if transparent:
        rgba = image.convert("RGBA")
        flat = Image.new("RGB", image.size, "white")
        flat.paste(rgba, mask=rgba.getchannel("A"))
        return flat.convert("L") if image.mode in ("L", "LA", "La") else flat, findings
    if image.mode in ("L", "RGB"):
        return image, findings
    return image.convert("L" if image.mode in ("LA", "La") else "RGB"), findings


def _eight_bits(image: Image.Image, tags: Any, bit_depth: int | None) -> tuple[Image.Image, Findings]:
    """A gray image of 16 bits, or of as many as a TIFF says (12), which Pillow keeps in the lower ones."""
    from PIL import Image

    levels = np.asarray(image).astype(np.int64)
    bits = tags.get(_BITS, (16,))[0]
    by_file = bits if 8 < bits < 16 else 16
    depth = by_file if bit_depth is None else min(bit_depth, by_file)
    white = 2**depth - 1
    if levels.min() < 0 or levels.max() > 65535:
        raise UnreadableImage(f"32-bit gray levels ({levels.min()} to {levels.max()}); expected 8 or 16 bits")
    if levels.max() > white:
        raise UnreadableImage(f"a gray level of {levels.max()}, where data.bit_depth: {bit_depth} ends at {white}")
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        levels = white - levels
    findings = Findings(gray_level=int(levels.max()) if by_file == 16 else 0)
    return Image.fromarray((levels * 255 // white).astype(np.uint8)), findings


def _center_square(image: Image.Image, side: int) -> Image.Image:
    from PIL import Image

    width, height = image.size
    scale = side / min(width, height)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    # Only what the square shows is computed: what the whole image resized and then cut would be, to a gray level.
    across, down = width / size[0], height / size[1]
    box = (left * across, top * down, min(width, (left + side) * across), min(height, (top + side) * down))
    return image.resize((side, side), Image.Resampling.BILINEAR, box=box)
