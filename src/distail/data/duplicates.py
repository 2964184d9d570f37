"""The same image where it must not be twice: in two parts of the data, or in two classes.

Shapes: N images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from distail.data.arrays import LabeledArrays
from distail.data.dataset import Examples
from distail.data.labels import is_multi_label
from distail.errors import counted, some_of

_NAMED_PAIRS = 3


def leakage_warning(train: Examples, other: Examples, where: str = "test") -> str | None:
    """How many images of another part (`where`) are training images too; None where none is.

    >>> import torch
    >>> from distail.data.dataset import LabeledImages
    >>> digests = torch.arange(3, dtype=torch.uint8)[:, None].repeat(1, 32)
    >>> three = LabeledImages(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 1]), digests)
    >>> leakage_warning(three.subset(torch.tensor([0, 1])), three.subset(torch.tensor([1, 2])))
    '1 of 2 test images is a byte-for-byte copy of a training image: test metrics are too optimistic'
    """
    leaked = int(np.isin(_contents(other), _contents(train)).sum())
    if not leaked:
        return None
    noun = train.noun
    training = f"training {noun}{'s' * (leaked > 1)}"
    if _is_encoded(train):
        have = "has the same inputs as a" if leaked == 1 else "have the same inputs as"
        return (
            f"{leaked:,} of {len(other):,} {where} {noun}s {have} {training}, as the network sees them: {where} "
            "metrics may be too optimistic"
        )
    are = "is a byte-for-byte copy of a" if leaked == 1 else "are byte-for-byte copies of"
    return f"{leaked:,} of {len(other):,} {where} {noun}s {are} {training}: {where} metrics are too optimistic"


def contradiction_warning(parts: Iterable[Examples], class_names: Sequence[str]) -> str | None:
    """How many images lie in several classes, and which; None where none does.

    >>> import torch
    >>> from distail.data.dataset import LabeledImages
    >>> same = LabeledImages(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]))
    >>> contradiction_warning([same], ["cat", "dog"])
    "1 image lies, byte for byte, in several classes ('cat' and 'dog'): no network can be correct on all of them"
    """
    parts = list(parts)
    if any(is_multi_label(images.labels) for images in parts):
        return None  # several classes contradict nothing there
    labels_N = np.concatenate([images.labels.numpy() for images in parts])
    contents, content_of_N = np.unique(np.concatenate([_contents(images) for images in parts]), return_inverse=True)
    first, last = np.full(len(contents), len(class_names)), np.full(len(contents), -1)
    np.minimum.at(first, content_of_N, labels_N)
    np.maximum.at(last, content_of_N, labels_N)
    several = np.flatnonzero(first < last)
    if not len(several):
        return None
    pairs = dict.fromkeys(f"{class_names[first[row]]!r} and {class_names[last[row]]!r}" for row in several)
    lie = "lies" if len(several) == 1 else "lie"
    alike = "with the same inputs" if _is_encoded(parts[0]) else "byte for byte"
    return (
        f"{counted(len(several), parts[0].noun)} {lie}, {alike}, in several classes "
        f"({some_of(list(pairs), _NAMED_PAIRS)}): no network can be correct on all of them"
    )


def _is_encoded(examples: Examples) -> bool:
    """Whether different rows of a table may look alike to the network."""
    return isinstance(examples, LabeledArrays) and examples.plain is not None


def _contents(examples: Examples) -> NDArray[np.void]:
    """(N,) 32 bytes per example."""
    return np.ascontiguousarray(examples.contents()).view("V32").ravel()
