"""Long-tail profiles: how many training images each class keeps, and which."""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from distail.data.arrays import LabeledArrays
from distail.data.dataset import Examples, LabeledImages, is_images
from distail.data.labels import is_multi_label
from distail.data.seeding import random_permutation, stream_key
from distail.errors import DataError, listed, some_of, unknown_name

# A class short by less than a tenth is noise of the data set, not a wrong expectation of the user.
_WORTH_SAYING = 0.9
_NAMED_CLASSES = 5


def _exponential(num_classes: int, largest: int, imbalance_factor: float) -> list[float]:
    return [largest * imbalance_factor ** (-index / max(1, num_classes - 1)) for index in range(num_classes)]


def _step(num_classes: int, largest: int, imbalance_factor: float) -> list[float]:
    large = (num_classes + 1) // 2
    return [float(largest)] * large + [largest / imbalance_factor] * (num_classes - large)


PROFILES: dict[str, Callable[[int, int, float], list[float]]] = {"exp": _exponential, "step": _step}


def long_tail_counts(num_classes: int, largest: int, imbalance_factor: float, profile: str = "exp") -> tuple[int, ...]:
    """Training images per class, class 0 largest: the profiles of the CIFAR-LT benchmarks (Cui 2019, Cao 2019).

    `exp`: class c keeps `int(largest * imbalance_factor ** (-c / (C - 1)))`. `step`: the first half of the
    classes (the larger half of an odd number) keeps `largest`, the others `int(largest / imbalance_factor)`. Every
    class keeps at least one image. `imbalance_factor` is the largest count over the smallest, at least 1.

    Raises:
        DataError: arguments are out of range; all of them are listed.

    >>> long_tail_counts(5, 100, 10)
    (100, 56, 31, 17, 10)
    >>> sum(long_tail_counts(100, 500, 100)), sum(long_tail_counts(10, 5000, 50))
    (10847, 13996)
    >>> long_tail_counts(4, 100, 10, profile="step")
    (100, 100, 10, 10)
    """
    problems = [
        f"{name} is {value!r}; expected a whole number of at least 1"
        for name, value in (("num_classes", num_classes), ("largest", largest))
        if not _is_positive_integer(value)
    ]
    if not _is_imbalance_factor(imbalance_factor):
        problems.append(
            f"imbalance_factor is {imbalance_factor!r}; expected a finite number of at least 1 "
            "(largest class over smallest; 1 keeps the data balanced)"
        )
    if profile not in PROFILES:
        problems.append(unknown_name("profile", profile, PROFILES))
    if problems:
        raise DataError(problems[0] if len(problems) == 1 else listed(problems, "no such long tail:"))
    wanted = PROFILES[profile](operator.index(num_classes), operator.index(largest), float(imbalance_factor))
    return tuple(max(1, int(count)) for count in wanted)


def long_tail_subset(
    labels_N: Tensor, num_classes: int, imbalance_factor: float | None, profile: str = "exp", seed: int = 0
) -> Tensor:
    """Sorted indices (M,) int64 of the images that a long-tailed training set keeps.

    The profile starts from the largest class there is. On data that is not balanced class c keeps the smaller of what
    the profile asks for and what it has (`short_classes_warning`). `imbalance_factor` None or 1 keeps everything. Which
    images stay depends on the seed and on how many images each class has, nothing else; for one seed a steeper profile
    keeps a subset of a flatter one.

    Raises:
        DataError: classes have no images, or `long_tail_counts` refuses the arguments.

    >>> long_tail_subset(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), 2, 4).shape
    torch.Size([5])
    """
    available_C = class_counts(labels_N, num_classes)
    require_every_class(available_C)
    factor = 1.0 if imbalance_factor is None else imbalance_factor
    wanted_C = long_tail_counts(num_classes, max(available_C), factor, profile)
    if factor == 1:
        return torch.arange(len(labels_N))
    labels = labels_N.numpy()
    kept = []
    for c in range(num_classes):
        rows = np.flatnonzero(labels == c)
        kept.append(rows[random_permutation(stream_key("long-tail", seed, c), len(rows))[: wanted_C[c]]])
    return torch.from_numpy(np.sort(np.concatenate(kept)).astype(np.int64))


def short_classes_warning(available_C: tuple[int, ...], imbalance_factor: float | None, profile: str) -> str | None:
    """Which classes have fewer images than their long tail asks for; None where none is short by a tenth.

    >>> print(short_classes_warning((100, 20), 2, "exp"))  # doctest: +NORMALIZE_WHITESPACE
    imbalance_factor 2 on data that is not balanced: 1 of 2 classes has fewer images than the profile asks for and keeps
    all its images (class 1 has 20 of 50)
    """
    if imbalance_factor is None or imbalance_factor == 1:
        return None
    wanted_C = long_tail_counts(len(available_C), max(available_C), imbalance_factor, profile)
    pairs = enumerate(zip(available_C, wanted_C, strict=True))
    short = [
        f"class {c} has {available} of {wanted}"
        for c, (available, wanted) in pairs
        if available < _WORTH_SAYING * wanted
    ]
    if not short:
        return None
    have, keep = ("has", "keeps all its images") if len(short) == 1 else ("have", "keep all their images")
    return (
        f"imbalance_factor {imbalance_factor:g} on data that is not balanced: {len(short)} of {len(available_C)} "
        f"classes {have} fewer images than the profile asks for and {keep} ({some_of(short, _NAMED_CLASSES)})"
    )


def subset_sha256(images: Examples) -> str:
    """SHA-256 over what the images are, then the labels as little-endian int64, in order.

    Images that come from files of their own are the SHA-256 of each file, then the shape (channels, H, W) of one as
    little-endian int64, whether they are in memory or streamed; all others are their pixels (N, channels, H, W). Other
    examples are the SHA-256 of each. Weights, where there are some, come last as little-endian float32.

    >>> subset_sha256(LabeledImages(torch.zeros(1, 1, 1, 1, dtype=torch.uint8), torch.tensor([0])))[:8]
    '3e7077fd'
    """
    if isinstance(images, LabeledImages) and images.digests is None:
        digest = hashlib.sha256(images.images.cpu().numpy().data)
    else:
        digest = hashlib.sha256(np.ascontiguousarray(images.contents()).data)
    if is_images(images) and images.digests is not None:
        digest.update(np.array(images.image_shape, dtype="<i8").data)
    digest.update(images.labels.cpu().numpy().astype("<i8").data)
    if isinstance(images, LabeledArrays) and images.weights is not None:
        digest.update(images.weights.numpy().astype("<f4").data)
    return digest.hexdigest()


def class_counts(labels_N: Tensor, num_classes: int) -> tuple[int, ...]:
    """Images per class; of labels (N, C) bool how many have each class.

    Raises:
        DataError: labels lie outside 0 to `num_classes - 1`.

    >>> class_counts(torch.tensor([0, 2, 2]), 3)
    (1, 0, 2)
    """
    if is_multi_label(labels_N):
        return tuple(labels_N.sum(0).tolist())
    outside = labels_N[(labels_N < 0) | (labels_N >= num_classes)]
    if len(outside):
        values, counts = torch.unique(outside, return_counts=True)
        problems = [
            f"label {value} ({count} images)" for value, count in zip(values.tolist(), counts.tolist(), strict=True)
        ]
        raise DataError(listed(problems, f"labels must lie between 0 and {num_classes - 1}; out of range:"))
    return tuple(torch.bincount(labels_N, minlength=num_classes).tolist())


def require_every_class(
    counts_C: tuple[int, ...], class_names: tuple[str, ...] | None = None, *, noun: str = "image"
) -> None:
    """Let pass classes that each have a training image, or whatever `noun` calls one.

    Raises:
        DataError: listing those that have none.
    """
    names = class_names or tuple(str(c) for c in range(len(counts_C)))
    empty = [f"class {c} ({name})" if class_names else f"class {c}" for c, name in enumerate(names) if not counts_C[c]]
    if empty:
        has, their = ("has", "its") if len(empty) == 1 else ("have", "their")
        raise DataError(
            listed(
                [*empty, f"add some to the training set, or remove {their} {noun}s from the test and validation sets"],
                f"{len(empty)} of {len(counts_C)} classes {has} no training {noun}:",
            )
        )


def _is_positive_integer(value: object) -> bool:
    try:
        return not isinstance(value, bool) and operator.index(value) >= 1  # type: ignore[arg-type]
    except TypeError:
        return False


def _is_imbalance_factor(value: object) -> bool:
    if isinstance(value, bool):
        return False
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return not isinstance(value, str) and math.isfinite(number) and number >= 1
