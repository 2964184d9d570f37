"""A teacher's answers: what it predicts, how sure it is, and how both spread over classes and groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import fsum
from typing import Any

import torch
from torch import Tensor

from distail.evaluation.calibration import bins_of_confidence, calibration_gap, top_confidence
from distail.evaluation.groups import group_of_class, shots, thirds
from distail.evaluation.metrics import ClassCounts, mean_probability
from distail.evaluation.teacher_bias import tail_errors

Describe = Callable[[Tensor], dict[str, Any]]


class TeacherStatistics:
    """What a teacher's logits (N, C) say of images with labels (N,) int64, given the training images of each class."""

    def __init__(self, logits_NC: Tensor, target_N: Tensor, counts: tuple[int, ...]) -> None:
        self.target_N, self.counts = target_N, counts
        self.predicted_N = logits_NC.argmax(1)
        self.correct_N = self.predicted_N == target_N
        self.confidence_N = top_confidence(logits_NC)
        self.counted = ClassCounts.of(self.predicted_N, target_N, len(counts))
        self.recalls, self.precisions = self.counted.recalls(), self.counted.precisions()
        self.probability_C = mean_probability(logits_NC)

    def figures(self, classes: Sequence[int], chosen_N: Tensor) -> dict[str, Any]:
        """Figures of some classes and of the images (N,) bool that have their labels."""
        index_C = torch.tensor(classes, dtype=torch.int64)
        images = int(chosen_N.sum())
        if images == 0:
            measured = dict.fromkeys(("accuracy", "wrong", "confidence", "ece", "confidence_when_wrong"))
        else:
            correct_M, confidence_M = self.correct_N[chosen_N], self.confidence_N[chosen_N]
            measured = {
                "accuracy": percent(correct_M),
                "wrong": percent(~correct_M),
                "confidence": percent(confidence_M),
                "ece": calibration_gap(bins_of_confidence(confidence_M, correct_M)),
                "confidence_when_wrong": percent(confidence_M[~correct_M]),
            }
        return {
            "classes": len(classes),
            "training_images": sum(self.counts[c] for c in classes),
            "images": images,
            "recall": _mean_known(self.recalls[c] for c in classes),
            "precision": _mean_known(self.precisions[c] for c in classes),
            **measured,
            **{name: float(100 * share_C[index_C].sum()) for name, share_C in self._shares().items()},
        }

    def by_class(self, names: Sequence[str], groups: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
        """The figures of each class, in order."""
        third_C = group_of_class(groups, len(names)).tolist()
        swallowed_C = tail_errors(self.predicted_N, self.target_N, self.counts).tolist()
        confidence = _class_means(self.confidence_N, self.target_N, len(names))
        wrong_N = ~self.correct_N
        when_wrong = _class_means(self.confidence_N[wrong_N], self.target_N[wrong_N], len(names))
        shares = {name: (100 * share_C).tolist() for name, share_C in self._shares().items()}
        chief = _chief_errors(self.predicted_N[wrong_N], self.target_N[wrong_N], len(names))
        return [
            {
                "class": c,
                "name": names[c],
                "third": list(groups)[third_C[c]],
                "training_images": self.counts[c],
                "images": int(self.counted.images[c]),
                "recall": self.recalls[c],
                "precision": self.precisions[c],
                "confidence": confidence[c],
                "confidence_when_wrong": when_wrong[c],
                **{name: share[c] for name, share in shares.items()},
                "errors_go_to": chief.get(c),
                "tail_errors": swallowed_C[c],
            }
            for c in range(len(names))
        ]

    def _shares(self) -> dict[str, Tensor]:
        return {
            "true_share": self.counted.images / len(self.target_N),
            "predicted_share": self.counted.predictions / len(self.target_N),
            "mean_probability": self.probability_C,
        }


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


def _chief_errors(predicted_M: Tensor, target_M: Tensor, classes: int) -> dict[int, dict[str, Any]]:
    """Of each class with errors, the class that most of them name (ties by index), without a C x C table."""
    pairs, counts = torch.unique(target_M * classes + predicted_M, return_counts=True)
    errors = torch.bincount(target_M, minlength=classes).tolist()
    chief: dict[int, dict[str, Any]] = {}
    for position in torch.argsort(counts, descending=True, stable=True).tolist():
        c, into = divmod(int(pairs[position]), classes)
        count = int(counts[position])
        chief.setdefault(c, {"class": into, "errors": count, "share": 100 * count / errors[c]})
    return chief


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
