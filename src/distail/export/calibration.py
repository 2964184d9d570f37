"""Which training images decide the ranges of int8, and which judge it: as many of each class.

Shapes: N images, C classes, K images chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distail.data.dataset import Examples, is_images
from distail.data.input_sources import inputs_in_order
from distail.data.labels import is_multi_label
from distail.data.pixels import images_in_order
from distail.data.seeding import stream_key

IMAGES = 512
_BATCH = 64


def balanced_rows(labels_N: Tensor, num_classes: int, images: int = IMAGES) -> Tensor:
    """Rows (K,) of the same number of images of each class, at least one; of a smaller class some come again.

    The frequent classes would else decide the ranges alone, and what only rare ones reach would be cut off. Where
    images may have several classes, labels (N, C) bool, those of none are one class more.

    >>> labels = torch.tensor([0, 0, 0, 0, 1])
    >>> labels[balanced_rows(labels, 2, images=4)].tolist()
    [0, 0, 1, 1]
    """
    if is_multi_label(labels_N) and not labels_N.any(1).all():
        labels_N, num_classes = torch.cat([labels_N, ~labels_N.any(1, keepdim=True)], dim=1), num_classes + 1
    each = max(1, images // num_classes)
    generator = torch.Generator().manual_seed(int(stream_key("calibration", 0)) >> 1)
    rows = []
    for label in range(num_classes):
        has_N = labels_N[:, label] if is_multi_label(labels_N) else labels_N == label
        members = has_N.nonzero().flatten()
        if len(members):
            shuffled = members[torch.randperm(len(members), generator=generator)]
            rows.append(shuffled.repeat(-(-each // len(shuffled)))[:each])
    return torch.cat(rows)


def raw_batches(data: Examples, batch_size: int = _BATCH) -> Iterator[NDArray[Any]]:
    """A data set in order, not normalized: levels (B, H, W, channels) uint8, or arrays (B, ...) as they are."""
    parts = [slice(first, min(first + batch_size, len(data))) for first in range(0, len(data), batch_size)]
    if not is_images(data):
        for inputs in inputs_in_order(data, parts, batch_size, (), (), "cpu", channels_last=False):
            assert isinstance(inputs, Tensor), "load_student takes networks of one tensor only"
            yield inputs.numpy()
        return
    for levels_BCHW in images_in_order(data, parts, batch_size, "cpu"):
        yield np.ascontiguousarray(levels_BCHW.permute(0, 2, 3, 1).numpy())
