"""From a name to what a run trains, validates and tests on."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from distail.data.images import LabelledImages
from distail.data.long_tail import class_counts, long_tail_subset, subset_sha256
from distail.data.sources import load_source
from distail.data.splits import stratified_split

# One grey level: a channel that never changes must not be blown up to noise.
_SMALLEST_STD = 1 / 255


@dataclass(frozen=True)
class PreparedData:
    """Everything a run knows of its data.

    Counts, hash, mean and deviation describe ``train``: the long-tailed subset after the validation split. ``mean`` and
    ``std`` are per channel, in units of 0 to 1.
    """

    train: LabelledImages
    validation: LabelledImages | None
    test: LabelledImages
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    subset_sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    skipped: tuple[str, ...] = ()


def prepare_data(
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    imbalance_factor: float | None = None,
    profile: str = "exp",
    validation: float = 0.0,
    seed: int = 0,
    image_size: int | None = None,
    skip_unreadable: bool = False,
    progress: bool = True,
) -> PreparedData:
    """Load a source, thin its training set to a long tail, then hold out a stratified validation set.

    The test set is left as it is. Raises ``DataError`` for everything that is wrong with the data or the arguments.

    >>> data = prepare_data("digits", imbalance_factor=10, validation=0.1)
    >>> len(data.class_counts), sum(data.class_counts) == len(data.train), data.train.images.shape[1:]
    (10, True, torch.Size([1, 8, 8]))
    """
    source = load_source(name, root, image_size=image_size, skip_unreadable=skip_unreadable, progress=progress)
    num_classes = len(source.class_names)
    subset = source.train.subset(long_tail_subset(source.train.labels, num_classes, imbalance_factor, profile, seed))
    kept, held_out = stratified_split(subset.labels, validation, seed)
    train = subset.subset(kept)
    mean, std = channel_statistics(train.images)
    return PreparedData(
        train=train,
        validation=subset.subset(held_out) if len(held_out) else None,
        test=source.test,
        class_names=source.class_names,
        class_counts=class_counts(train.labels, num_classes),
        subset_sha256=subset_sha256(train),
        mean=mean,
        std=std,
        skipped=source.skipped,
    )


def channel_statistics(images_NCHW: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population deviation of each channel in units of 0 to 1, exact, from the histogram of grey levels.

    >>> channel_statistics(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))
    ((0.5,), (0.5,))
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in range(images_NCHW.shape[1]):
        histogram = torch.bincount(images_NCHW[:, channel].flatten(), minlength=256).double()
        share = histogram / histogram.sum()
        mean = (share * levels).sum()
        means.append(mean.item())
        deviations.append(max((share * (levels - mean) ** 2).sum().sqrt().item(), _SMALLEST_STD))
    return tuple(means), tuple(deviations)
