"""From a name to what a run trains, validates and tests on."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from distail.data.dataset import Images
from distail.data.long_tail import class_counts, long_tail_subset, subset_sha256
from distail.data.sources import load_source
from distail.data.splits import stratified_split

_DARKEST_MEAN = 4 / 255
_NAMED = 3
# One grey level: a channel that never changes must not be blown up to noise.
_SMALLEST_STD = 1 / 255


def leakage_warning(train: Images, test: Images) -> str | None:
    """How many test images are training images too, byte for byte; None where none is, or images have no files.

    >>> import torch
    >>> from distail.data.dataset import LabelledImages
    >>> digests = torch.arange(3, dtype=torch.uint8)[:, None].repeat(1, 32)
    >>> three = LabelledImages(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 1]), digests)
    >>> leakage_warning(three.subset(torch.tensor([0, 1])), three.subset(torch.tensor([1, 2])))
    '1 of 2 test images is, byte for byte, a training image too: figures on the test set are too good'
    """
    if train.digests is None or test.digests is None:
        return None
    known = {row.tobytes() for row in train.digests.numpy()}
    leaked = sum(row.tobytes() in known for row in test.digests.numpy())
    if not leaked:
        return None
    are = "is, byte for byte, a training image too" if leaked == 1 else "are, byte for byte, training images too"
    return f"{leaked} of {len(test)} test images {are}: figures on the test set are too good"


def dark_images_warning(mean: Sequence[float]) -> str | None:
    """That images are nearly black, as 12 bits in a 16-bit file are; ``mean`` per channel in units of 0 to 1.

    >>> dark_images_warning([0.01, 0.001])
    'images are nearly black (mean grey level 2.6 of 255); in 16-bit files only the upper 8 bits count'
    """
    if max(mean) >= _DARKEST_MEAN:
        return None
    return (
        f"images are nearly black (mean grey level {255 * max(mean):.1f} of 255); in 16-bit files only the upper "
        "8 bits count"
    )


def untested_classes_warning(test_labels_N: Tensor, class_names: tuple[str, ...], *, where: str = "test") -> str | None:
    """How many classes have no image ``where`` they are tested, which, and what follows; None where all have one.

    >>> import torch
    >>> untested_classes_warning(torch.tensor([0, 0, 2]), ("cat", "dog", "cow"))
    "1 of 3 classes has no test image ('dog'): its recall is not known, and no mean over classes counts it"
    """
    counts = class_counts(test_labels_N, len(class_names))
    untested = [repr(name) for name, images in zip(class_names, counts, strict=True) if images == 0]
    if not untested:
        return None
    more = len(untested) - _NAMED
    named = ", ".join(untested[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    have, their, them = ("has", "its", "it") if len(untested) == 1 else ("have", "their", "them")
    there = "" if where == "test" else f"in {where} "
    return (
        f"{len(untested)} of {len(class_names)} classes {have} no {where} image ({named}): "
        f"{their} recall {there}is not known, and no mean over classes counts {them}"
    )


@dataclass(frozen=True)
class PreparedData:
    """Everything a run knows of its data.

    Counts, hash, mean and deviation describe ``train``: the long-tailed subset after the validation split. ``mean`` and
    ``std`` are per channel, in units of 0 to 1.
    """

    train: Images
    validation: Images | None
    test: Images
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    subset_sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


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
    stream: str = "auto",
    memory_limit_mb: int | None = None,
    workers: int | None = None,
    allow_outside_root: bool = False,
) -> PreparedData:
    """Load a source, thin its training set to a long tail, then hold out a stratified validation set.

    The test set is left as it is. ``stream`` (auto, always, never), ``memory_limit_mb`` and ``workers`` decide whether
    image files stay on disk and how many processes decode them; nothing else of the result depends on them. Raises
    ``DataError`` for everything that is wrong with the data or the arguments.

    >>> data = prepare_data("digits", imbalance_factor=10, validation=0.1)
    >>> len(data.class_counts), sum(data.class_counts) == len(data.train), data.train.image_shape
    (10, True, (1, 8, 8))
    """
    source = load_source(
        name,
        root,
        image_size=image_size,
        skip_unreadable=skip_unreadable,
        progress=progress,
        stream=stream,
        memory_limit_mb=memory_limit_mb,
        workers=workers,
        allow_outside_root=allow_outside_root,
    )
    num_classes = len(source.class_names)
    subset = source.train.subset(long_tail_subset(source.train.labels, num_classes, imbalance_factor, profile, seed))
    kept, held_out = stratified_split(subset.labels, validation, seed)
    train = subset.subset(kept)
    mean, std = channel_statistics(train)
    notes = [
        untested_classes_warning(source.test.labels, source.class_names),
        untested_classes_warning(subset.labels[held_out], source.class_names, where="validation")
        if len(held_out)
        else None,
        leakage_warning(source.train, source.test),
        dark_images_warning(mean),
    ]
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
        notes=(*source.notes, *filter(None, notes)),
    )


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population deviation of each channel in units of 0 to 1, exact until the last rounding.

    >>> mean, deviation = channel_statistics(load_source("digits").train)
    >>> round(mean[0], 3), round(deviation[0], 3)
    (0.305, 0.376)
    """
    _, height, width = images.image_shape
    pixels = len(images) * height * width
    means, deviations = [], []
    for total, squares in zip(*(sums.tolist() for sums in images.level_sums()), strict=True):
        means.append(total / (255 * pixels))
        # Whole numbers of any length: nothing is lost where the deviation is small beside the mean.
        deviations.append(max(math.sqrt(pixels * squares - total**2) / (255 * pixels), _SMALLEST_STD))
    return tuple(means), tuple(deviations)
