"""Whether image files are held decoded in memory, or stay on disk and are decoded batch by batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from distail.data.decode import EncodedImage, decode_one, usable_cores
from distail.data.image_file import read_image_file
from distail.data.options import SourceOptions

MEGABYTE = 2**20
# While it is decoded, thinned and given its border for crops, a data set in memory takes up to four times its size.
_SHARE_OF_MEMORY = 4
_MOST_WORKERS = 16
_SAMPLED = 16


class _File(Protocol):
    @property
    def path(self) -> Path: ...


def why_stream(files: Sequence[_File], options: SourceOptions) -> str | None:
    """Why these files stay on disk, as part of a sentence; None where they are to be held in memory.

    ``stream: auto`` compares what all would take decoded, by the largest of a few of them, with ``memory_limit_mb``; by
    default that is a quarter of the memory that is free.
    """
    if options.stream != "auto":
        return "data.stream: always" if options.stream == "always" else None
    limit = _free_memory() // _SHARE_OF_MEMORY // _processes_here()
    whose = "a quarter of the free memory"
    if options.memory_limit_mb is not None:
        limit, whose = options.memory_limit_mb * MEGABYTE, "data.memory_limit_mb"
    size = _decoded_bytes(files, options.image_size)
    if size <= limit:
        return None
    return f"{size / MEGABYTE:,.0f} MB decoded, {whose} is {limit / MEGABYTE:,.0f} MB"


def decoding_processes(options: SourceOptions) -> int:
    """``data.workers``, by default one for each core, at most 16, shared by the training processes of a machine."""
    if options.workers is not None:
        return options.workers
    return max(1, min(_MOST_WORKERS, usable_cores() // _processes_here()))


def _decoded_bytes(files: Sequence[_File], image_size: int | None) -> int:
    sample = [file.path for file in files[:: max(1, -(-len(files) // _SAMPLED))]]
    decoded = [decode_one(EncodedImage(path.name, partial(read_image_file, path)), image_size) for path in sample]
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
