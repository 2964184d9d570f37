"""The bytes of one image file to pixels."""

from __future__ import annotations

import stat
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]

# Whatever a file is called, Pillow would open any format it knows, and run Ghostscript for one of them.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_LARGEST_FILE = 1 << 28


class UnreadableImage(Exception):
    """Why one image cannot be used; never seen by users, who get the list of all of them."""


def load_decoders() -> None:
    """Import what decodes, before processes are forked that would import it each for itself."""
    from PIL import Image, ImageOps  # noqa: F401

    Image.preinit()


def read_image_file(path: Path) -> bytes:
    """The bytes of a file up to 256 MiB; ``UnreadableImage`` for larger ones and for what could block or never end."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise UnreadableImage("not a regular file")
    if state.st_size > _LARGEST_FILE:
        raise UnreadableImage(f"{state.st_size:,} bytes: more than the limit of {_LARGEST_FILE:,}")
    return path.read_bytes()


def decode_image(data: bytes, image_size: int | None = None) -> Pixels:
    """Pixels (H, W) of a grey image or (H, W, 3) of any other, uint8.

    Turned upright as EXIF says. Palettes, CMYK and other colour spaces become RGB; transparency is laid over white;
    16-bit grey is cut to 8 bits; of an animation the first picture is taken. ``image_size`` resizes the shorter side
    (bilinear, with antialiasing) and cuts out the centre; a JPEG at least twice, four or eight times as large is
    decoded at that fraction of its size. Raises ``UnreadableImage``.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not data:
        raise UnreadableImage("the file is empty")
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if not width or not height:
                raise UnreadableImage(f"{width}x{height} pixels: there is nothing to see")
            if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
                raise UnreadableImage(f"{width}x{height} pixels: more than the limit against decompression bombs")
            if image_size is not None:
                image.draft(None, (image_size, image_size))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            upright = _grey_or_rgb(image)
            return np.asarray(upright if image_size is None else _centre_square(upright, image_size), dtype=np.uint8)
    except UnreadableImage:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage(f"not an image ({', '.join(_FORMATS)})") from error
    # Pillow's decoders raise more kinds of exception on damaged bytes than can be named.
    except Exception as error:
        raise UnreadableImage(" ".join(str(error).split()) or type(error).__name__) from error


def _grey_or_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise UnreadableImage(f"32-bit grey levels ({levels.min()} to {levels.max()}); expected 8 or 16 bits")
        return Image.fromarray((levels // 257).astype(np.uint8))
    if image.mode == "F":
        raise UnreadableImage("floating-point grey levels; expected 8 or 16 bits")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        flat = Image.new("RGB", image.size, "white")
        flat.paste(rgba, mask=rgba.getchannel("A"))
        return flat.convert("L") if image.mode in ("L", "LA", "La") else flat
    return image.convert("RGB")


def _centre_square(image: Image.Image, side: int) -> Image.Image:
    from PIL import Image

    width, height = image.size
    scale = side / min(width, height)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    # Only what the square shows is computed: what the whole image resized and then cut would be, to a grey level.
    across, down = width / size[0], height / size[1]
    box = (left * across, top * down, min(width, (left + side) * across), min(height, (top + side) * down))
    return image.resize((side, side), Image.Resampling.BILINEAR, box=box)
