"""One description of all images, and of those of each group of classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from distail.evaluation.groups import group_of_class, shots, thirds

Describe = Callable[[Tensor], dict[str, Any]]


class ByGroup:
    """The images (N,) bool of each third and of each shot group, by the class of their label.

    >>> by_group = ByGroup(torch.tensor([0, 1, 1]), [300, 50, 5])
    >>> found = by_group.describe(lambda chosen_N: {"images": int(chosen_N.sum())})
    >>> found["overall"], found["groups"]["thirds"]
    ({'images': 3}, {'head': {'images': 1}, 'medium': {'images': 2}, 'tail': None})
    """

    def __init__(self, target_N: Tensor, class_counts: Sequence[int]) -> None:
        self.classes: Mapping[str, Mapping[str, tuple[int, ...]]] = {
            "thirds": thirds(class_counts),
            "shots": shots(class_counts),
        }
        self.everything = torch.ones(len(target_N), dtype=torch.bool)
        self.chosen: dict[str, dict[str, Tensor]] = {}
        for grouping, groups in self.classes.items():
            group_N = group_of_class(groups, len(class_counts))[target_N]
            self.chosen[grouping] = {name: group_N == position for position, name in enumerate(groups)}

    def describe(self, describe: Describe) -> dict[str, Any]:
        """``overall`` and ``groups``; None for a group without images."""
        groups = {
            grouping: {name: describe(chosen_N) if chosen_N.any() else None for name, chosen_N in part.items()}
            for grouping, part in self.chosen.items()
        }
        return {"overall": describe(self.everything), "groups": groups}
