"""`distail.Datasets`: what a function of the user's own gives for `data: {name: package.module:function}`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Datasets:
    """Map-style torch data sets, whose items are (input, label) or mappings of tensors with `label`.

    The tensors of a mapping, but for its label, reach the network as keywords. Labels are whole numbers that index
    `class_names`; with `data.targets: multi_label` rows of 0 and 1, one number for each class. What items draw at
    random, as augmentation does, is seeded anew for each item and epoch, through the generators of torch, numpy and
    `random`.

    Attributes:
        train, test: with `__len__` and `__getitem__`.
        validation: None to have one drawn from `train` (`data.validation`).
        class_names: in the order of the labels.
        collate: makes a batch of a list of items, by default torch's `default_collate`.
        groups: of each item of `train`, what must not be torn apart where validation is drawn, such as its patient.

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
