"""Which training images decide the ranges of int8, and which judge it: as many of each class.

Shapes: N images, C classes, K images chosen.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distail.data.dataset import Examples, is_images
from distail.data.pixels import images_in_order
from distail.data.seeding import stream_key

IMAGES = 512
_BATCH = 64


def balanced_rows(labels_N: Tensor, num_classes: int, images: int = IMAGES) -> Tensor:
    """Rows (K,) of the same number of images of each class, at least one; of a smaller class some come again.

    The frequent classes would else decide the ranges alone, and what only rare ones reach would be cut off.

    >>> labels = torch.tensor([0, 0, 0, 0, 1])
    >>> labels[balanced_rows(labels, 2, images=4)].tolist()
    [0, 0, 1, 1]
    """
    each = max(1, images // num_classes)
    generator = torch.Generator().manual_seed(int(stream_key("calibration", 0)) >> 1)
    rows = []
    for label in range(num_classes):
        members = (labels_N == label).nonzero().flatten()
        if len(members):
            shuffled = members[torch.randperm(len(members), generator=generator)]
            rows.append(shuffled.repeat(-(-each // len(shuffled)))[:each])
    return torch.cat(rows)


def level_batches(images: Examples, batch_size: int = _BATCH) -> Iterator[NDArray[np.uint8]]:
    """Levels (B, H, W, channels) of a data set, in order."""
    assert is_images(images), "load_student takes networks for images only"
    parts = [slice(first, min(first + batch_size, len(images))) for first in range(0, len(images), batch_size)]
    for levels_BCHW in images_in_order(images, parts, batch_size, "cpu"):
        yield np.ascontiguousarray(levels_BCHW.permute(0, 2, 3, 1).numpy())
