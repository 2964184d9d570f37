"""Images that stay on disk: why, what a scan of all finds out, and batches decoded ahead by worker processes.

Shapes: B batch, H height, W width, N files, M files that can be read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import tee
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from distail.config.schema import Data
from distail.data.cache import Packed
from distail.data.dataset import StreamedImages
from distail.data.decode import (
    EncodedImage,
    check_one_size,
    check_unreadable,
    decode_one,
    findings_notes,
    load_decoders,
    progress_bar,
    read_image_file,
)
from distail.data.workers import ImageFacts, Names, ScanFiles, Workers
from distail.errors import DataError, first_of, listed
from distail.files import MEGABYTE
from distail.torch_utils import usable_cores

# Small against a batch of large images, so that all processes work on the batch that is wanted next; large against what
# handing over a piece costs.
_PIECE_BYTES = 2**22
_MOST_IMAGES_A_PIECE = 256
_FILES_A_TASK = 64
# While it is decoded, thinned and given its border for crops, a data set in memory takes up to four times its size.
_SHARE_OF_MEMORY = 4
_MOST_WORKERS = 16
_SAMPLED = 16


class ImageStream:
    """Batches of a streamed data set on a device, as uint8 (B, H, W, channels).

    No more than two batches of `batch_size` are decoded before they are asked for, at least two pieces by each
    process; the processes stay from one pass to the next, until `close`. Passes follow one another: a new one ends
    the one before.
    """

    def __init__(self, data: StreamedImages, batch_size: int, device: torch.device | str = "cpu") -> None:
        load_decoders()
        self._data, self._device = data, torch.device(device)
        self._shape = (data.image_shape[1], data.image_shape[2], data.image_shape[0])
        self._piece = max(1, min(_MOST_IMAGES_A_PIECE, _PIECE_BYTES // int(np.prod(self._shape))))
        workers = min(data.workers, self._pieces_of(len(data)))
        ahead = -(-2 * self._pieces_of(batch_size) // max(1, workers))
        self._workers: Workers[Names, Tensor | list[str]] = Workers(
            data.decode, workers, ahead=max(2, ahead), pinned=self._device.type == "cuda"
        )

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        """The images of each `index_B` (B,) int64 on the CPU, whose rows may be none.

        Raises:
            DataError: files have changed since they were scanned.
            TrainingError: a process was ended from outside.
        """
        ahead, here = tee(indices)
        pieces = self._workers.results(piece for index_B in ahead for piece in self._pieces(index_B))
        for index_B in here:
            images_BHWC = torch.empty((len(index_B), *self._shape), dtype=torch.uint8, device=self._device)
            filled = 0
            for _ in range(self._pieces_of(len(index_B))):
                piece = next(pieces)
                if isinstance(piece, list):
                    raise DataError(
                        listed(first_of(piece), "images were readable during the check, but no longer are:")
                    )
                images_BHWC[filled : filled + len(piece)].copy_(piece, non_blocking=True)
                filled += len(piece)
            yield images_BHWC

    def close(self) -> None:
        """End the processes."""
        self._workers.close()

    def _pieces(self, index_B: Tensor) -> list[Names]:
        count = self._pieces_of(len(index_B))
        return np.array_split(self._data.names[index_B.numpy()], count) if count else []

    def _pieces_of(self, batch_size: int) -> int:
        return -(-batch_size // self._piece)


@dataclass(frozen=True)
class ScannedImages:
    """`rows` (M,) int64 of the files that can be read; `digests` (M, 32) uint8, the SHA-256 of each.

    `sums` and `squares` (M, channels) int64: of each image's gray levels, and of their squares; `image_shape`
    (channels, H, W): of all images, in color if one of them is; `skipped`: the other files, and why; `notes`:
    what was lost.
    """

    rows: Tensor
    digests: Tensor
    sums: Tensor
    squares: Tensor
    image_shape: tuple[int, int, int]
    skipped: tuple[str, ...]
    notes: tuple[str, ...]


def scan_images(folder: str, names: Names, options: Data, workers: int) -> ScannedImages:
    """Decode every file of `names` (N,), relative to `folder`, with as many processes as `workers` says.

    Raises:
        DataError: images cannot be read and may not be skipped (they are listed), or sizes differ.
    """
    load_decoders()
    parts = [names[first : first + _FILES_A_TASK] for first in range(0, len(names), _FILES_A_TASK)]
    scan = Workers(ScanFiles(folder, options.image_size, options.bit_depth), min(workers, len(parts)))
    found: list[ImageFacts] = []
    with progress_bar("Checking images", len(names)) as advance:
        for facts in scan.results(parts):
            found.append(facts)
            advance(len(facts.problems))
    scan.close()
    why = [problem for facts in found for problem in facts.problems]
    problems = [f"{os.fsdecode(names[row])}: {problem}" for row, problem in enumerate(why) if problem is not None]
    check_unreadable(problems, len(names), options)
    rows = torch.tensor([row for row, problem in enumerate(why) if problem is None], dtype=torch.int64)
    digests, shapes, sums, squares, findings = (
        torch.from_numpy(np.concatenate(column))[rows] for column in list(zip(*found, strict=True))[1:]
    )
    check_one_size(Counter(map(tuple, shapes[:, :2].tolist())))
    height, width, channels = shapes.amax(0).tolist()
    return ScannedImages(
        rows,
        digests,
        sums[:, :channels].contiguous(),
        squares[:, :channels].contiguous(),
        (channels, height, width),
        tuple(problems),
        findings_notes(findings.tolist(), options.bit_depth),
    )


def pack(found: ScannedImages) -> Packed:
    """For the cache."""
    tensors = {"rows": found.rows, "digests": found.digests, "sums": found.sums, "squares": found.squares}
    return tensors, {"image_shape": found.image_shape, "skipped": found.skipped, "notes": found.notes}


def unpack(packed: Packed) -> ScannedImages:
    """From the cache."""
    tensors, facts = packed
    channels, height, width = facts["image_shape"]
    return ScannedImages(
        tensors["rows"],
        tensors["digests"],
        tensors["sums"],
        tensors["squares"],
        (channels, height, width),
        tuple(facts["skipped"]),
        tuple(facts["notes"]),
    )


class _File(Protocol):
    @property
    def path(self) -> Path: ...


def streaming_reason(files: Sequence[_File], options: Data) -> str | None:
    """Why these files stay on disk, as part of a sentence; None where they are to be held in memory.

    `stream: auto` compares what all would take decoded, by the largest of a few of them, with `memory_limit_mb`; by
    default that is a quarter of the memory that is free.
    """
    if options.stream != "auto":
        return "data.stream: always" if options.stream == "always" else None
    limit = _free_memory() // _SHARE_OF_MEMORY // _processes_here()
    whose = "a quarter of the free memory"
    if options.memory_limit_mb is not None:
        limit, whose = options.memory_limit_mb * MEGABYTE, "data.memory_limit_mb"
    size = _decoded_bytes(files, options)
    if size <= limit:
        return None
    return f"{size / MEGABYTE:,.0f} MB decoded, {whose} is {limit / MEGABYTE:,.0f} MB"


def decoding_processes(options: Data) -> int:
    """`data.workers`, by default one for each core, at most 16, shared by the training processes of a machine."""
    if options.workers is not None:
        return options.workers
    return max(1, min(_MOST_WORKERS, usable_cores() // _processes_here()))


def _decoded_bytes(files: Sequence[_File], options: Data) -> int:
    sample = [file.path for file in files[:: max(1, -(-len(files) // _SAMPLED))]]
    items = [EncodedImage(path.name, partial(read_image_file, path)) for path in sample]
    decoded = [decode_one(item, options.image_size, options.bit_depth) for item in items]
    return len(files) * max((image.pixels.size for image in decoded if not isinstance(image, str)), default=0)


def _processes_here() -> int:
    # As torchrun and `accelerate launch` tell the processes that they start.
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _free_memory() -> int:
    """What the machine, or the container that this process runs in, has left."""
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        allowed = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return free
    return free if allowed == "max" else min(free, max(0, int(allowed) - used))
