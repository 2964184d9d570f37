"""Every image file decoded once, and what must be known of it written down: no image is kept."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distail.data.cache import Packed
from distail.data.decode import check_one_size, check_unreadable
from distail.data.file_work import Facts, LookAtFiles, Names
from distail.data.image_file import load_decoders
from distail.data.options import SourceOptions
from distail.data.progress import progress_bar
from distail.data.workers import Workers

_FILES_A_TASK = 64


@dataclass(frozen=True)
class Survey:
    """``rows`` (M,) int64 of the files that can be read; ``digests`` (M, 32) uint8, the SHA-256 of each.

    ``sums`` and ``squares`` (M, channels) int64: of each image's grey levels, and of their squares; ``image_shape``
    (channels, H, W): of all images, in colour if one of them is; ``skipped``: the other files, and why.
    """

    rows: Tensor
    digests: Tensor
    sums: Tensor
    squares: Tensor
    image_shape: tuple[int, int, int]
    skipped: tuple[str, ...]


def survey(folder: str, names: Names, options: SourceOptions, workers: int) -> Survey:
    """Decode every file of ``names`` (N,), relative to ``folder``, with as many processes as ``workers`` says.

    Raises ``DataError`` as ``decode_all`` does, with every unreadable image listed, and where sizes differ.
    """
    load_decoders()
    look = Workers(LookAtFiles(folder, options.image_size), min(workers, -(-len(names) // _FILES_A_TASK)))
    parts = [names[first : first + _FILES_A_TASK] for first in range(0, len(names), _FILES_A_TASK)]
    found: list[Facts] = []
    with progress_bar("Checking images", len(names), show=options.progress) as advance:
        for facts in look.results(parts):
            found.append(facts)
            advance(len(facts.problems))
    look.close()
    why = [problem for facts in found for problem in facts.problems]
    problems = [f"{os.fsdecode(names[row])}: {problem}" for row, problem in enumerate(why) if problem is not None]
    check_unreadable(problems, len(names), options)
    rows = torch.tensor([row for row, problem in enumerate(why) if problem is None], dtype=torch.int64)
    digests, shapes, sums, squares = (
        torch.from_numpy(np.concatenate(column))[rows] for column in list(zip(*found, strict=True))[1:]
    )
    check_one_size(Counter(map(tuple, shapes[:, :2].tolist())))
    height, width, channels = shapes.amax(0).tolist()
    return Survey(
        rows,
        digests,
        sums[:, :channels].contiguous(),
        squares[:, :channels].contiguous(),
        (channels, height, width),
        tuple(problems),
    )


def pack(found: Survey) -> Packed:
    """For the cache."""
    tensors = {"rows": found.rows, "digests": found.digests, "sums": found.sums, "squares": found.squares}
    return tensors, {"image_shape": found.image_shape, "skipped": found.skipped}


def unpack(packed: Packed) -> Survey:
    """From the cache."""
    tensors, facts = packed
    channels, height, width = facts["image_shape"]
    return Survey(
        tensors["rows"],
        tensors["digests"],
        tensors["sums"],
        tensors["squares"],
        (channels, height, width),
        tuple(facts["skipped"]),
    )
