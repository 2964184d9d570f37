"""`distail.Datasets`: what a function of the user's own gives for `data: {name: package.module:function}`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Datasets:
    """Map-style torch data sets with items (input, label) or mappings of tensors with `label`.

    The tensors of a mapping, except the label, are passed to the network as keyword arguments. Labels are integer
    indices into `class_names`; with `data.targets: multi_label`, rows of 0 and 1, one per class. The generators of
    torch, numpy and `random` are seeded per item and epoch, so that random augmentation in items is reproducible.

    Attributes:
        train, test: with `__len__` and `__getitem__`.
        validation: None draws one from `train` (`data.validation`).
        class_names: in the order of the labels.
        collate: turns a list of items into a batch; default: torch's `default_collate`.
        groups: the group of each item of `train`, such as its patient; a drawn validation set keeps groups together.

    >>> import torch
    >>> items = [(torch.zeros(3), 0), (torch.ones(3), 1)]
    >>> Datasets(train=items, validation=None, test=items, class_names=["no", "yes"]).collate is None
    True
    """

    train: Any
    validation: Any
    test: Any
    class_names: Sequence[str]
    collate: Callable[[list[Any]], Any] | None = None
    groups: Sequence[Any] | None = None
