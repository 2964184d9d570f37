"""From a name to what a run trains, validates and tests on."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from distail.data.images import Images
from distail.data.long_tail import class_counts, long_tail_subset, subset_sha256
from distail.data.sources import load_source
from distail.data.splits import stratified_split
from distail.data.suspicions import dark_note, leak_note
from distail.data.untested import untested_note

# One grey level: a channel that never changes must not be blown up to noise.
_SMALLEST_STD = 1 / 255


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
        untested_note(source.test.labels, source.class_names),
        untested_note(subset.labels[held_out], source.class_names, where="validation") if len(held_out) else None,
        leak_note(source.train, source.test),
        dark_note(mean),
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
