"""What a teacher predicts, how confident it is, and how both spread over classes and groups.

Shapes: C classes, M chosen samples, N samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import fsum
from typing import TypeVar

import torch
from torch import Tensor

from distail.audit.content import ClassStatistics, Grouped, GroupStatistics
from distail.evaluation.calibration import bins_of_confidence, calibration_gap, top_confidence
from distail.evaluation.groups import GROUPINGS, group_of_class
from distail.evaluation.metrics import ClassCounts, mean_probability
from distail.evaluation.teacher_bias import Confusion, tail_errors

T = TypeVar("T")


class TeacherStatistics:
    """What a teacher's logits (N, C) say of images with labels (N,) int64, given the training images of each class."""

    def __init__(self, logits_NC: Tensor, target_N: Tensor, class_counts: tuple[int, ...]) -> None:
        self.target_N, self.class_counts = target_N, class_counts
        self.predicted_N = logits_NC.argmax(1)
        self.correct_N = self.predicted_N == target_N
        self.confidence_N = top_confidence(logits_NC)
        self.counted = ClassCounts.of(self.predicted_N, target_N, len(class_counts))
        self.recalls, self.precisions = self.counted.recalls(), self.counted.precisions()
        self.true_share_C = self.counted.images / len(target_N)
        self.predicted_share_C = self.counted.predictions / len(target_N)
        self.mean_probability_C = mean_probability(logits_NC)

    def of_group(self, classes: Sequence[int], chosen_N: Tensor) -> GroupStatistics:
        """Statistics of some classes and of the images (N,) bool that have their labels."""
        index_C = torch.tensor(classes, dtype=torch.int64)
        correct_M, confidence_M = self.correct_N[chosen_N], self.confidence_N[chosen_N]
        images = len(correct_M)
        return {
            "classes": len(classes),
            "training_images": sum(self.class_counts[c] for c in classes),
            "images": images,
            "recall": _mean_known(self.recalls[c] for c in classes),
            "precision": _mean_known(self.precisions[c] for c in classes),
            "accuracy": percent(correct_M),
            "wrong": percent(~correct_M),
            "confidence": percent(confidence_M),
            "ece": calibration_gap(bins_of_confidence(confidence_M, correct_M)) if images else None,
            "confidence_when_wrong": percent(confidence_M[~correct_M]),
            "true_share": float(100 * self.true_share_C[index_C].sum()),
            "predicted_share": float(100 * self.predicted_share_C[index_C].sum()),
            "mean_probability": float(100 * self.mean_probability_C[index_C].sum()),
        }

    def of_classes(self, names: Sequence[str], thirds: Mapping[str, Sequence[int]]) -> list[ClassStatistics]:
        """The statistics of each class, in order."""
        classes = len(names)
        third_names, third_C = list(thirds), group_of_class(thirds, classes).tolist()
        wrong_N = ~self.correct_N
        confidence = _class_means(self.confidence_N, self.target_N, classes)
        confidence_when_wrong = _class_means(self.confidence_N[wrong_N], self.target_N[wrong_N], classes)
        top_confusion = _top_confusions(self.predicted_N[wrong_N], self.target_N[wrong_N], classes)
        tail_errors_C = tail_errors(self.predicted_N, self.target_N, self.class_counts)
        rows: list[ClassStatistics] = []
        for c, name in enumerate(names):
            rows.append(
                {
                    "class": c,
                    "name": name,
                    "third": third_names[third_C[c]],
                    "training_images": self.class_counts[c],
                    "images": int(self.counted.images[c]),
                    "recall": self.recalls[c],
                    "precision": self.precisions[c],
                    "confidence": confidence[c],
                    "confidence_when_wrong": confidence_when_wrong[c],
                    "true_share": float(100 * self.true_share_C[c]),
                    "predicted_share": float(100 * self.predicted_share_C[c]),
                    "mean_probability": float(100 * self.mean_probability_C[c]),
                    "errors_go_to": top_confusion.get(c),
                    "tail_errors": int(tail_errors_C[c]),
                }
            )
        return rows


class ImageGroups:
    """The images (N,) bool of each third and of each shot group, by the class of their label.

    >>> groups = ImageGroups(torch.tensor([0, 1, 1]), [300, 50, 5])
    >>> found = groups.describe(lambda chosen_N: {"images": int(chosen_N.sum())})
    >>> found["overall"], found["groups"]["thirds"]
    ({'images': 3}, {'head': {'images': 1}, 'medium': {'images': 2}, 'tail': None})
    """

    def __init__(self, target_N: Tensor, class_counts: Sequence[int]) -> None:
        self.all_N = torch.ones(len(target_N), dtype=torch.bool)
        self.classes: dict[str, dict[str, tuple[int, ...]]] = {}
        self.images: dict[str, dict[str, Tensor]] = {}
        for grouping in ("thirds", "shots"):
            groups = GROUPINGS[grouping](class_counts)
            group_N = group_of_class(groups, len(class_counts))[target_N]
            self.classes[grouping] = groups
            self.images[grouping] = {name: group_N == position for position, name in enumerate(groups)}

    def describe(self, describe: Callable[[Tensor], T]) -> Grouped[T]:
        """Something of all images and of those (N,) bool of each group; None for a group without images."""
        groups: dict[str, dict[str, T | None]] = {}
        for grouping, parts in self.images.items():
            groups[grouping] = {}
            for name, chosen_N in parts.items():
                groups[grouping][name] = describe(chosen_N) if chosen_N.any() else None
        return {"overall": describe(self.all_N), "groups": groups}


def percent(values: Tensor) -> float | None:
    """The mean of shares or of booleans (N,) in percent; None for none."""
    return float(100 * values.double().mean()) if len(values) else None


def _mean_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fsum(known) / len(known) if known else None


def _class_means(values_N: Tensor, target_N: Tensor, classes: int) -> list[float | None]:
    images = torch.bincount(target_N, minlength=classes).tolist()
    sums = torch.bincount(target_N, values_N, minlength=classes).tolist()
    return [100 * total / count if count else None for total, count in zip(sums, images, strict=True)]


def _top_confusions(predicted_M: Tensor, target_M: Tensor, classes: int) -> dict[int, Confusion]:
    """Of each class with errors, the class that most of them name (ties by index), without a C x C table."""
    pairs, counts = torch.unique(target_M * classes + predicted_M, return_counts=True)
    errors = torch.bincount(target_M, minlength=classes).tolist()
    top: dict[int, Confusion] = {}
    for position in torch.argsort(counts, descending=True, stable=True).tolist():
        c, into = divmod(int(pairs[position]), classes)
        count = int(counts[position])
        top.setdefault(c, {"class": into, "errors": count, "share": 100 * count / errors[c]})
    return top
