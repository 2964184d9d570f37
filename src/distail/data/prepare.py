"""From a name to what a run trains, validates and tests on, and what is odd about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from distail.config.data import Folds
from distail.config.problems import wrong_keys
from distail.config.schema import Data
from distail.data.arrays import LabeledArrays
from distail.data.class_names import lookalikes_warning
from distail.data.columns import TableEncoding
from distail.data.dataset import Examples, Groups, Images, is_images
from distail.data.duplicates import contradiction_warning, leakage_warning
from distail.data.labels import is_multi_label, never_absent
from distail.data.long_tail import (
    class_counts,
    long_tail_subset,
    require_every_class,
    short_classes_warning,
    subset_sha256,
)
from distail.data.sources import load_source
from distail.data.splits import stratified_folds, validation_split
from distail.errors import DataError, counted, problems_in, some_of

_DARKEST_MEAN = 4 / 255
_NAMED_CLASSES = 3
# One gray level: a channel that never changes must not be blown up to noise.
_SMALLEST_STD = 1 / 255


@dataclass(frozen=True)
class PreparedData:
    """The data of a run.

    Counts, `subset_sha256`, mean and standard deviation describe `train`, the long-tailed subset without the validation
    split; `validation_sha256` and `test_sha256` are the same hash of the other two. `mean` and
    `std` are per channel of images, in units of 0 to 1; per column or channel of arrays, in their own units; empty for
    inputs that are not normalized. `skipped` lists unreadable images with the reason;
    `notes` are messages for the user about unusual data and how the data are held.
    """

    train: Examples
    validation: Examples | None
    test: Examples
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    subset_sha256: str
    validation_sha256: str | None
    test_sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    encoding: str | None = None
    """Of a table: how its columns became numbers, as `distail.data.columns` writes it."""
    train_rows: Tensor | None = None
    """(N,) int64: where the images of `train` stand in the data set's whole training part; `validation_rows` too, and
    those of a validation set of the data's own after all of them."""
    validation_rows: Tensor | None = None
    file_rows: tuple[Tensor, Tensor] | None = None
    """Of a table that is one file: where in it each row of that whole training part stands, and each of the test."""
    ids: tuple[NDArray[Any], NDArray[Any]] | None = None
    """Of a table with a column `id` that differs in every row: what it says of each of these rows."""

    @property
    def samples(self) -> int | None:
        """Number of training examples of multi-label data; None for single-label data."""
        return len(self.train) if is_multi_label(self.train.labels) else None


def prepare_data(data: Data | str, *, seed: int = 0, **options: Any) -> PreparedData:
    """Load a data set, subsample its training set to a long tail, then hold out a stratified validation set.

    The test set is not changed.

    Args:
        data: the section `data` of an experiment; or the name of a data set, with the section's other keys as keywords
            and `validation` 0 by default.
        seed: random seed of the subset and of the validation split.

    Raises:
        DataError: the data or the options are invalid.

    >>> data = prepare_data("digits", imbalance_factor=10, validation=0.1)
    >>> len(data.class_counts), sum(data.class_counts) == len(data.train), data.train.image_shape
    (10, True, (1, 8, 8))
    """
    if isinstance(data, str):
        data = _options(data, options)
    elif options:
        raise TypeError(f"keywords in addition to the section data: {', '.join(options)}; change the section instead")
    source = load_source(data)
    num_classes = len(source.class_names)
    available = class_counts(source.train.labels, num_classes)
    rows = long_tail_subset(source.train.labels, num_classes, data.imbalance_factor, data.profile, seed)
    subset, groups = source.train.subset(rows), None if source.groups is None else source.groups.train[rows]
    if source.validation is None:
        kept, held_out = validation_split(
            subset.labels, data.validation, seed, groups, noun=subset.noun, group=data.group or ""
        )
        train, validation = subset.subset(kept), subset.subset(held_out) if len(held_out) else None
    elif isinstance(data.validation, Folds):
        raise DataError(
            f"the data has a validation set of its own ({counted(len(source.validation), source.validation.noun)}), so "
            f"that data.validation: {{folds: {data.validation.folds}}} has no effect; leave it out"
        )
    else:
        train, validation = subset, source.validation if data.validation else None  # 0 asks for none
        kept, held_out = torch.arange(len(rows)), len(source.train) + torch.arange(len(source.validation))
    check_learnable(train.labels, source.class_names, train.noun)
    check_values(train, [part for part in (validation, source.test) if part], source.encoding)
    mean, std = input_statistics(train)
    warnings = [
        lookalikes_warning(source.class_names, available),
        short_classes_warning(available, data.imbalance_factor, data.profile),
        untested_classes_warning(source.test.labels, source.class_names, noun=train.noun),
        validation
        and untested_classes_warning(validation.labels, source.class_names, where="validation", noun=train.noun),
        leakage_warning(train, source.test),
        validation and leakage_warning(train, validation, "validation"),
        contradiction_warning([part for part in (train, validation, source.test) if part], source.class_names),
        groups_note(source.groups, data.group, train.noun),
        *shared_groups_warnings(source.groups, own_validation=bool(validation and source.validation)),
        validation and source.validation and own_validation_note(validation),
        unjudged_note(subset, data.validation, seed, groups),
        dark_images_warning(mean) if is_images(train) else None,
    ]
    return PreparedData(
        train=train,
        validation=validation,
        test=source.test,
        class_names=source.class_names,
        class_counts=class_counts(train.labels, num_classes),
        subset_sha256=subset_sha256(train),
        validation_sha256=subset_sha256(validation) if validation else None,
        test_sha256=subset_sha256(source.test),
        mean=mean,
        std=std,
        skipped=source.skipped,
        notes=(*source.notes, *(warning for warning in warnings if warning)),
        encoding=source.encoding,
        train_rows=rows[kept],
        validation_rows=None if validation is None else held_out if source.validation else rows[held_out],
        file_rows=source.file_rows,
        ids=source.ids,
    )


def check_learnable(labels: Tensor, class_names: tuple[str, ...], noun: str = "example") -> None:
    """Let pass training labels of which each class is there, and of several classes per sample none always.

    Raises:
        DataError: listing the others.
    """
    require_every_class(class_counts(labels, len(class_names)), class_names, noun=noun)
    if always := never_absent(labels, class_names):
        raise DataError(
            f"every training example has {some_of(always, _NAMED_CLASSES)}: a class that is always present cannot be "
            "learned; leave it out"
        )


def check_values(train: Examples, others: Sequence[Examples], encoding: str | None) -> None:
    """Let pass arrays of which the training examples have a value wherever other parts have one.

    Raises:
        DataError: naming the others: nothing could be learned of them, nor by what to standardize them.
    """
    if not isinstance(train, LabeledArrays):
        return
    has_D = train.entries_with_values()
    elsewhere_D = [part.entries_with_values() for part in others if isinstance(part, LabeledArrays)]
    new = [entry for entry in (~has_D).nonzero().flatten().tolist() if any(has[entry] for has in elsewhere_D)]
    if new:
        names = None if encoding is None else TableEncoding.from_json(encoding).entries
        named = [repr(names[entry]) if names else f"X[:, {entry}]" for entry in new]
        raise DataError(
            f"no training {train.noun} has a value in {some_of(named)}, though others have: nothing can be learned of "
            "it; expected some, or leave it out" + (" of data.features" if names else "")
        )


def input_statistics(train: Examples) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What inputs are normalized or standardized with: mean and deviation of the training examples alone."""
    if is_images(train):
        return channel_statistics(train)
    return train.statistics() if isinstance(train, LabeledArrays) else ((), ())


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population deviation of each channel in units of 0 to 1, exact until the last rounding.

    >>> digits = load_source(Data(name="digits")).train
    >>> assert is_images(digits)
    >>> mean, deviation = channel_statistics(digits)
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


def dark_images_warning(mean: Sequence[float]) -> str | None:
    """That images are nearly black, as 12 bits in a 16-bit file are; `mean` per channel in units of 0 to 1.

    >>> dark_images_warning([0.01, 0.001])
    'images are nearly black (mean gray level 2.6 of 255); in 16-bit files only the upper 8 bits count'
    """
    if max(mean) >= _DARKEST_MEAN:
        return None
    return (
        f"images are nearly black (mean gray level {255 * max(mean):.1f} of 255); in 16-bit files only the upper "
        "8 bits count"
    )


def groups_note(groups: Groups | None, name: str | None, noun: str) -> str | None:
    """That examples are kept together, by what, and how many groups there are; None without groups.

    >>> import torch
    >>> groups_note(Groups(train=torch.tensor([0, 1, 1]), test=torch.tensor([2])), "patient", "row")
    "rows of one 'patient' stay together: 2 groups for training, 1 for the test (data.group; null for none)"
    """
    if groups is None:
        return None
    parts = {"training": groups.train, "validation": groups.validation, "the test": groups.test}
    numbers = {part: len(set(codes.tolist())) for part, codes in parts.items() if codes is not None and len(codes)}
    first, *others = numbers.items()
    told = [f"{counted(first[1], 'group')} for {first[0]}", *(f"{number:,} for {part}" for part, number in others)]
    return f"{noun}s of one {name!r} stay together: {', '.join(told)} (data.group; null for none)"


def shared_groups_warnings(groups: Groups | None, *, own_validation: bool = False) -> list[str]:
    """How many groups of the test set, and of a validation set of the data's own, lie in training or in the other too.

    >>> import torch
    >>> shared_groups_warnings(Groups(train=torch.tensor([0, 1, 1]), test=torch.tensor([1, 2])))
    ['1 of 2 groups of the test set is in the training set too: test metrics are too optimistic for new groups']
    """
    if groups is None:
        return []
    validation = groups.validation if own_validation else None
    pairs = [
        (groups.test, "test", groups.train, "training", "test metrics are"),
        (validation, "validation", groups.train, "training", "validation metrics are"),
        (groups.test, "test", validation, "validation", "test metrics are"),
    ]
    warnings = []
    for inner, part, outer, other, metrics in pairs:
        if inner is None or outer is None:
            continue
        judged = set(inner.tolist())
        if shared := len(judged & set(outer.tolist())):
            warnings.append(
                f"{shared:,} of {counted(len(judged), 'group')} of the {part} set {'is' if shared == 1 else 'are'} in "
                f"the {other} set too: {metrics} too optimistic for new groups"
            )
    return warnings


def own_validation_note(validation: Examples) -> str:
    """That the data's own validation set stands in place of one drawn."""
    return (
        f"the data's own {counted(len(validation), f'validation {validation.noun}')} are used; none are drawn "
        "(data.validation)"
    )


def unjudged_note(subset: Examples, validation: float | Folds | Path, seed: int, groups: Tensor | None) -> str | None:
    """How many training examples no fold holds out; None where each is held out by one."""
    if not isinstance(validation, Folds):
        return None
    kept = int((stratified_folds(subset.labels, validation.folds, seed, groups) < 0).sum())
    if not kept:
        return None
    alone = (
        "are the only one of their class" if groups is None else "are in groups that contain all examples of a class"
    )
    return f"{counted(kept, f'training {subset.noun}')} {alone}: they are in no held-out fold and not evaluated"


def untested_classes_warning(
    labels_N: Tensor, class_names: tuple[str, ...], *, where: str = "test", noun: str = "image"
) -> str | None:
    """How many classes have no image `where` they are tested, which, and what follows; None where all have one.

    >>> import torch
    >>> untested_classes_warning(torch.tensor([0, 0, 2]), ("cat", "dog", "cow"))
    "1 of 3 classes has no test image ('dog'): its recall is not known, and no mean over classes counts it"
    """
    counts = class_counts(labels_N, len(class_names))
    untested = [repr(name) for name, images in zip(class_names, counts, strict=True) if images == 0]
    if not untested:
        return None
    have, their, them = ("has", "its", "it") if len(untested) == 1 else ("have", "their", "them")
    there = "" if where == "test" else f"in {where} "
    return (
        f"{len(untested)} of {len(class_names)} classes {have} no {where} {noun} "
        f"({some_of(untested, _NAMED_CLASSES)}): {their} recall {there}is not known, and no mean over classes counts "
        f"{them}"
    )


def _options(name: str, others: dict[str, Any]) -> Data:
    try:
        return Data.model_validate({"name": name, "validation": 0, **others})
    except ValidationError as error:
        problems = [wrong.problem for wrong in wrong_keys(Data, error)]
        raise DataError(problems_in(f"the options of data set {name!r}", problems), problems) from None
