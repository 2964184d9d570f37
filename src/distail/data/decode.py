"""Encoded images to pixels: one file by itself, or all of a data set, with every bad one reported at once."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distail.config.schema import Data
from distail.errors import DataError, first_of, listed
from distail.torch_utils import usable_cores

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]

# Whatever a file is called, Pillow would open any format it knows, and run Ghostscript for one of them.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_LARGEST_FILE = 1 << 28
_CHUNK = 64
# Below about this many encoded bytes an image, threads only wait for each other (Pillow's own Python code).
_BYTES_WORTH_THREADS = 8192


class UnreadableImage(Exception):
    """Why one image cannot be used; never seen by users, who get the list of all of them."""


@dataclass(frozen=True)
class EncodedImage:
    """An image file: `name` as users know it; `read` gives its bytes."""

    name: str
    read: Callable[[], bytes]


class DecodedImage(NamedTuple):
    """Pixels (H, W) or (H, W, 3) uint8, and the SHA-256 of the bytes they were decoded from."""

    pixels: Pixels
    digest: bytes


@dataclass(frozen=True)
class Decoded:
    """`images` (M, channels, H, W) uint8; `rows` (M,) int64: which of the encoded ones; `skipped`: the others.

    `digests` (M, 32) uint8: the SHA-256 of each encoded image.
    """

    images: Tensor
    rows: Tensor
    digests: Tensor
    skipped: tuple[str, ...]


def load_decoders() -> None:
    """Import what decodes, before processes are forked that would import it each for itself."""
    from PIL import Image, ImageOps  # noqa: F401

    Image.preinit()


def decoding_options(options: Data) -> tuple[object, ...]:
    """What of the options changes the decoded images, for the cache."""
    return options.image_size, options.skip_unreadable


def read_image_file(path: Path) -> bytes:
    """The bytes of a file up to 256 MiB.

    Raises:
        UnreadableImage: it is larger, or could block or never end.
    """
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise UnreadableImage("not a regular file")
    if state.st_size > _LARGEST_FILE:
        raise UnreadableImage(f"{state.st_size:,} bytes: more than the limit of {_LARGEST_FILE:,}")
    return path.read_bytes()


def decode_image(data: bytes, image_size: int | None = None) -> Pixels:
    """Pixels (H, W) of a grey image or (H, W, 3) of any other, uint8.

    Turned upright as EXIF says. Palettes, CMYK and other color spaces become RGB; transparency is laid over white;
    16-bit grey is cut to 8 bits; of an animation the first picture is taken. `image_size` resizes the shorter side
    (bilinear, with antialiasing) and cuts out the center; a JPEG at least twice, four or eight times as large is
    decoded at that fraction of its size.

    Raises:
        UnreadableImage: the bytes are no image, a damaged one, or one of too many pixels or levels.
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
            upright = _gray_or_rgb(image)
            return np.asarray(upright if image_size is None else _center_square(upright, image_size), dtype=np.uint8)
    except UnreadableImage:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage(f"not an image ({', '.join(_FORMATS)})") from error
    # Pillow's decoders raise more kinds of exception on damaged bytes than can be named.
    except Exception as error:
        raise UnreadableImage(" ".join(str(error).split()) or type(error).__name__) from error


def decode_one(item: EncodedImage, image_size: int | None) -> DecodedImage | str:
    """The image, or why there is none."""
    try:
        data = item.read()
        return DecodedImage(decode_image(data, image_size), hashlib.sha256(data).digest())
    except UnreadableImage as reason:
        return str(reason)
    except OSError as error:
        return error.strerror or str(error)


def decode_all(encoded: Sequence[EncodedImage], options: Data) -> Decoded:
    """Decode every image; grey if all are single-channel grey, else RGB.

    Raises:
        DataError: images cannot be read and may not be skipped (they are listed), or sizes differ without an
            `image_size`.
    """
    outcomes: list[DecodedImage | str] = []
    with progress_bar("Decoding images", len(encoded)) as advance:
        for part in _decoded_parts(encoded, options.image_size):
            outcomes += part
            advance(len(part))
    problems = [f"{item.name}: {why}" for item, why in zip(encoded, outcomes, strict=True) if isinstance(why, str)]
    check_unreadable(problems, len(encoded), options)
    rows = [row for row, outcome in enumerate(outcomes) if not isinstance(outcome, str)]
    images = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    check_one_size(Counter(image.pixels.shape[:2] for image in images))
    return Decoded(
        _stacked([image.pixels for image in images]),
        torch.tensor(rows, dtype=torch.int64),
        torch.frombuffer(bytearray(b"".join(image.digest for image in images)), dtype=torch.uint8).view(-1, 32),
        tuple(problems),
    )


def check_unreadable(problems: Sequence[str], total: int, options: Data) -> None:
    """Let pass images that can all be read, or of which some are left where the others may be skipped.

    Raises:
        DataError: listing those that cannot be read.
    """
    if problems and (not options.skip_unreadable or len(problems) == total):
        raise DataError(
            f"{listed(first_of(problems), f'{len(problems)} of {total} images cannot be read:')}\n"
            "Repair or remove them, or leave them out with data.skip_unreadable: true."
        )


def check_one_size(sizes: Counter[tuple[int, ...]]) -> None:
    """Let pass images of one size (height, width).

    Raises:
        DataError: they have several.
    """
    if len(sizes) > 1:
        found = [f"{width}x{height}: {count} images" for (height, width), count in sizes.most_common()]
        raise DataError(
            f"{listed(first_of(found), f'images have {len(sizes)} different sizes (width x height):')}\n"
            "Set data.image_size to the side to which all are resized and center-cropped, such as 32."
        )


@contextmanager
def progress_bar(task: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function that takes how many more are done, shown by the main process on a terminal and nowhere else.

    >>> with progress_bar("Decoding images", 2) as advance:
    ...     advance(2)
    """
    # As torchrun and `accelerate launch` number the processes that they start.
    if not sys.stderr.isatty() or os.environ.get("RANK", "0") != "0":
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        number = bar.add_task(task, total=total)
        yield lambda count: bar.advance(number, count)


def _gray_or_rgb(image: Image.Image) -> Image.Image:
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


def _center_square(image: Image.Image, side: int) -> Image.Image:
    from PIL import Image

    width, height = image.size
    scale = side / min(width, height)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    # Only what the square shows is computed: what the whole image resized and then cut would be, to a grey level.
    across, down = width / size[0], height / size[1]
    box = (left * across, top * down, min(width, (left + side) * across), min(height, (top + side) * down))
    return image.resize((side, side), Image.Resampling.BILINEAR, box=box)


def _decoded_parts(encoded: Sequence[EncodedImage], image_size: int | None) -> Iterator[list[DecodedImage | str]]:
    def decoded(first: int) -> list[DecodedImage | str]:
        return [decode_one(item, image_size) for item in encoded[first : first + _CHUNK]]

    firsts = range(0, len(encoded), _CHUNK)
    if _typical_size(encoded) < _BYTES_WORTH_THREADS:
        yield from map(decoded, firsts)
        return
    with ThreadPoolExecutor(usable_cores()) as workers:
        yield from workers.map(decoded, firsts)


def _typical_size(encoded: Sequence[EncodedImage]) -> float:
    sizes = []
    for item in islice(encoded, 0, None, max(1, len(encoded) // 16)):
        try:
            sizes.append(len(item.read()))
        except (OSError, UnreadableImage):
            continue
    return sum(sizes) / max(1, len(sizes))


def _stacked(pixels: list[Pixels]) -> Tensor:
    height, width = pixels[0].shape[:2]
    channels = 3 if any(image.ndim == 3 for image in pixels) else 1
    images = np.empty((len(pixels), channels, height, width), dtype=np.uint8)
    for row, image in enumerate(pixels):
        images[row] = image.transpose(2, 0, 1) if image.ndim == 3 else image
    return torch.from_numpy(images)
