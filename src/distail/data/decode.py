"""All images of a data set to pixels, with every bad one reported at once."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from distail.config.schema import Data
from distail.data.image_file import Findings, Pixels, UnreadableImage, read_pixels
from distail.errors import DataError, counted, first_of, listed
from distail.terminal import every_half_minute
from distail.torch_utils import usable_cores

_LARGEST_FILE = 1 << 28
_CHUNK = 64
# Below about this many encoded bytes per image, threads only wait for each other (Pillow's own Python code).
_BYTES_WORTH_THREADS = 8192


@dataclass(frozen=True)
class EncodedImage:
    """An image file: `name` as users know it; `read` gives its bytes."""

    name: str
    read: Callable[[], bytes]


class DecodedImage(NamedTuple):
    """Pixels (H, W) or (H, W, 3) uint8, the SHA-256 of the bytes they were decoded from, and what was lost."""

    pixels: Pixels
    digest: bytes
    findings: Findings


@dataclass(frozen=True)
class Decoded:
    """`images` (M, channels, H, W) uint8; `rows` (M,) int64: which of the encoded ones; `skipped`: the others;
    `notes`: what was lost on the way.

    `digests` (M, 32) uint8: the SHA-256 of each encoded image.
    """

    images: Tensor
    rows: Tensor
    digests: Tensor
    skipped: tuple[str, ...]
    notes: tuple[str, ...]


def load_decoders() -> None:
    """Import what decodes, before processes are forked that would import it each for itself."""
    from PIL import Image, ImageOps  # noqa: F401

    Image.preinit()


def decoding_options(options: Data) -> tuple[object, ...]:
    """What of the options changes the decoded images, for the cache."""
    return options.image_size, options.skip_unreadable, options.bit_depth


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


def decode_one(item: EncodedImage, image_size: int | None = None, bit_depth: int | None = None) -> DecodedImage | str:
    """The image, or why there is none.

    Raises:
        OSError: this process may open no more files, which is no fault of the image.
        MemoryError: nor is this.
    """
    try:
        data = item.read()
        pixels, findings = read_pixels(data, image_size, bit_depth)
        return DecodedImage(pixels, hashlib.sha256(data).digest(), findings)
    except UnreadableImage as reason:
        return str(reason)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return error.strerror or str(error)


def decode_all(encoded: Sequence[EncodedImage], options: Data) -> Decoded:
    """Decode every image; gray if all are single-channel gray, else RGB.

    Raises:
        DataError: images cannot be read and may not be skipped (they are listed), or sizes differ without an
            `image_size`.
    """
    outcomes: list[DecodedImage | str] = []
    with progress_bar("Decoding images", len(encoded)) as advance:
        for part in _decoded_parts(encoded, options):
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
        findings_notes([image.findings for image in images], options.bit_depth),
    )


def findings_notes(findings: Iterable[Sequence[int]], bit_depth: int | None) -> tuple[str, ...]:
    """What was lost in decoding, judged by all images together; each of `findings` as `Findings` has it."""
    gray, color, over_white, dropped = np.array([*findings], dtype=np.int64).reshape(-1, 4).T
    notes = []
    depth = int(gray.max(initial=0)).bit_length()
    if bit_depth is None and 0 < depth < 16:
        kept = int(gray.max()) // 257 + 1
        notes.append(
            f"the largest level of {counted(int((gray > 0).sum()), 'gray image')} of 16 bits is {gray.max()}, of "
            f"65,535 possible, so that at most {kept} of 256 levels are left; data.bit_depth: "
            f"{max(depth, 9)} keeps more, if this is the true bit depth of the images"
        )
    if 0 < color.max(initial=0) < 128:
        notes.append(
            f"{counted(int((color > 0).sum()), 'image')} in color or with transparency of 16 bits: only the upper 8 "
            f"bits count, and their largest level is {color.max()} of 255; scale them before"
        )
    if count := int((over_white > 0).sum()):
        notes.append(
            f"{counted(count, 'TIFF')} with a fourth band declared as transparency: the others are laid over "
            "white by it. Where it is another kind of light, such as near infrared, store three bands"
        )
    if count := int((dropped > 0).sum()):
        notes.append(f"{counted(count, 'TIFF')} with bands beyond gray, or red, green and blue: these are ignored")
    return tuple(notes)


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
    """A function that takes how many more are done, shown by the main process: a bar on a terminal, lines elsewhere.

    >>> with progress_bar("Decoding images", 2) as advance:
    ...     advance(2)
    """
    # As torchrun and `accelerate launch` number the processes that they start.
    if os.environ.get("RANK", "0") != "0":
        yield lambda count: None
        return
    if not sys.stderr.isatty():
        yield every_half_minute(task, total, _print_error)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        number = bar.add_task(task, total=total)
        yield lambda count: bar.advance(number, count)


def _print_error(text: str) -> None:
    with suppress(OSError):  # nobody has to read it
        print(text, file=sys.stderr, flush=True)


def _decoded_parts(encoded: Sequence[EncodedImage], options: Data) -> Iterator[list[DecodedImage | str]]:
    def decoded(first: int) -> list[DecodedImage | str]:
        return [decode_one(item, options.image_size, options.bit_depth) for item in encoded[first : first + _CHUNK]]

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
