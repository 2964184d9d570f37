"""A few test images of each class, kept with a run: its report shows them when the data are no longer at hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import interpolate

from distail import files
from distail.data.batches import evaluation_batches
from distail.data.dataset import Images
from distail.errors import CheckpointError
from distail.inputs import first_tensor

BUDGET_BYTES = 950_000
# Largest side in pixels and images per class, best first; the last is used even where not every class fits.
CHOICES = ((64, 3), (48, 3), (32, 3), (32, 2), (32, 1))


@dataclass(frozen=True)
class Samples:
    """``images`` (M, channels, H, W) uint8 of the test images ``index`` (M,) int64 with their ``label`` (M,) int64."""

    index: Tensor
    label: Tensor
    images: Tensor


def delta_order(own: Sequence[float | None], other: Sequence[float | None]) -> list[int]:
    """Classes from the largest change of recall to the smallest, ties by index; unmeasured ones last.

    >>> delta_order([50.0, 10.0, None], [45.0, 40.0, 3.0])
    [1, 0, 2]
    """
    deltas = [-1.0 if a is None or b is None else abs(a - b) for a, b in zip(own, other, strict=True)]
    return sorted(range(len(deltas)), key=lambda c: (-deltas[c], c))


def sample_images(test: Images, class_order: Sequence[int]) -> Samples:
    """The first test images of each class, shrunk so that all together stay below `BUDGET_BYTES`.

    Args:
        test: the test set, in the order of the stored predictions.
        class_order: classes by how much they are wanted; with more classes than fit, the last ones get no image.
    """
    channels, height, width = test.image_shape
    for side, per_class in CHOICES:
        shrink = min(1.0, side / max(height, width))
        size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
        fitting = BUDGET_BYTES // (per_class * channels * math.prod(size))
        if fitting >= len(class_order):
            break
    rows = [_first_rows(test.labels, c, per_class) for c in sorted(class_order[:fitting])]
    index = torch.cat(rows) if rows else torch.empty(0, dtype=torch.int64)
    return Samples(index, test.labels[index], _shrunk(test, index, size))


def save_samples(path: Path, samples: Samples) -> None:
    """Write one safetensors file; it appears complete or not at all."""
    files.write_tensors(path, {"images": samples.images, "index": samples.index, "label": samples.label})


def load_samples(path: Path) -> Samples:
    """What `save_samples` wrote.

    Raises:
        CheckpointError: no such file, a damaged one, or one that holds something else.
    """
    if not path.is_file():
        raise CheckpointError(f"there are no sample images at {path}")
    try:
        tensors, _ = files.read_tensors(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error})") from error
    found = {name: (tensor.dtype, tensor.ndim, len(tensor)) for name, tensor in tensors.items() if tensor.ndim}
    count = len(tensors.get("index", ()))
    expected = {
        "images": (torch.uint8, 4, count),
        "index": (torch.int64, 1, count),
        "label": (torch.int64, 1, count),
    }
    if found != expected or 0 in tensors["images"].shape[1:]:
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        raise CheckpointError(
            f"{path} holds {shapes}; expected uint8 images (M, channels, H, W) with int64 index and label (M,)"
        )
    return Samples(tensors["index"], tensors["label"], tensors["images"])


def _first_rows(labels_N: Tensor, c: int, at_most: int) -> Tensor:
    return torch.nonzero(labels_N == c).flatten()[:at_most]


def _shrunk(test: Images, index: Tensor, size: tuple[int, int]) -> Tensor:
    channels = test.image_shape[0]
    batches = evaluation_batches(
        test.subset(index),
        batch_size=64,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        device=torch.device("cpu"),
    )
    # With mean 0 and deviation 1 a batch holds gray levels between 0 and 1.
    shrunk = [interpolate(first_tensor(batch.inputs), size=size, mode="area") for batch in batches]
    images = torch.cat(shrunk) if shrunk else torch.empty(0, channels, *size)
    return (255 * images).round().clamp(0, 255).to(torch.uint8).contiguous()
