"""Every metric of a result, in one table: its title, how it is computed, and how the bootstrap draws it again.

Shapes: B resampled test sets, C classes, N samples, R runs. What a metric is computed from has the classes first and,
where many test sets are worked on at once, R and B behind them, written "...".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any, TypedDict, cast

import torch
from torch import Tensor

from distail.errors import DataError
from distail.evaluation.average_precision import average_precisions
from distail.evaluation.calibration import expected_calibration_error
from distail.evaluation.checks import checked_predictions, rows_at_once
from distail.evaluation.groups import RULES, classes_by_group
from distail.evaluation.headline import BY_CLASS, MAP, MEAN_AVERAGE_PRECISION
from distail.json_values import value_at

QUARTERS = ("most", "second", "third", "least")


@dataclass(frozen=True)
class Sums:
    """Sums over the images of a test set, float64: by class (C, ...), of the classes that have test images.

    Attributes:
        images: how many have the label; 0 where no image of the class was drawn.
        predictions: how many are given it.
        correct: how many have it and are given it.
        calibration_error: the expected calibration error in percent, (...).
    """

    images: Tensor
    predictions: Tensor
    correct: Tensor
    calibration_error: Tensor


@dataclass(frozen=True)
class OfImages:
    """A metric of all images: the bootstrap draws among all of them.

    Attributes:
        compute: `Sums` to (...).
        averages_classes: a mean over classes, of which the bootstrap knows nothing where a class has one or two images.
        centered: noise alone raises it, and drawing again adds noise: draws are centered on what was observed.
    """

    compute: Callable[[Sums], Tensor]
    averages_classes: bool = False
    centered: bool = False


@dataclass(frozen=True)
class OfRecalls:
    """A metric of the recalls of some classes: the bootstrap draws within each class, so that none grows or vanishes.

    Attributes:
        compute: recalls in percent (C, ...) of the classes that have test images, at least one, to (...).
        group: grouping and group, such as `("thirds", "tail")`; None for all classes.
        widened: a mean: the bootstrap knows by how much draws within small classes move it too little.
    """

    compute: Callable[[Tensor], Tensor]
    group: tuple[str, str] | None = None
    widened: bool = False


@dataclass(frozen=True)
class Metric:
    """One number of a result.

    Attributes:
        name: what a table's column is called in code.
        title: what people read.
        source: what it is computed from, how, and how it is drawn again.
        multi_label: whether it is for samples of several classes, where the mean of a group is that of average
            precisions; None: for both.
    """

    name: str
    title: str
    source: OfImages | OfRecalls
    multi_label: bool | None = False

    @property
    def group(self) -> tuple[str, str] | None:
        """Grouping and group of the classes that it is of; None for all classes."""
        return self.source.group if isinstance(self.source, OfRecalls) else None

    @property
    def path(self) -> str:
        """Where it stands in `student.test` of a `result.json`, between dots."""
        return self.name if self.group is None else ".".join(("groups", *self.group))

    @property
    def rule(self) -> str | None:
        """By which rule classes were grouped; None where they were not."""
        return None if self.group is None else RULES[self.group[0]]


def _accuracy(sums: Sums) -> Tensor:
    return 100 * (sums.correct.sum(0) / sums.images.sum(0))


def _macro_f1(sums: Sums) -> Tensor:
    f1 = 200 * sums.correct / (sums.images + sums.predictions)
    drawn = sums.images > 0
    return torch.where(drawn, f1, 0).sum(0) / drawn.sum(0)


def _mean(recall: Tensor) -> Tensor:
    return recall.mean(0)


def _group_mean(recall: Tensor) -> Tensor:
    if recall.ndim > 1:
        return recall.mean(0)
    # Rounded once, as `group_means` does it: a result and an audit agree in every digit.
    return torch.tensor(fsum(recall.tolist()) / len(recall), dtype=torch.float64)


def _lowest(recall: Tensor) -> Tensor:
    return recall.amin(0)


def _geometric_mean(recall: Tensor) -> Tensor:
    return 100 * (recall / 100).log().mean(0).exp()  # log 0 is -inf, and makes it 0


def _of_group(name: str, title: str, grouping: str, group: str) -> Metric:
    return Metric(name, title, OfRecalls(_group_mean, (grouping, group), widened=True), multi_label=None)


METRICS: dict[str, Metric] = {
    metric.path: metric
    for metric in (
        Metric("top1", "Top-1", OfImages(_accuracy)),
        Metric(MEAN_AVERAGE_PRECISION, MAP, OfRecalls(_group_mean), multi_label=True),
        Metric("balanced_accuracy", "Balanced accuracy", OfRecalls(_mean, widened=True)),
        Metric("macro_f1", "Macro F1", OfImages(_macro_f1, averages_classes=True)),
        Metric("gmean", "G-mean", OfRecalls(_geometric_mean)),
        _of_group("head", "Head third", "thirds", "head"),
        _of_group("medium", "Medium third", "thirds", "medium"),
        _of_group("tail", "Tail third", "thirds", "tail"),
        _of_group("many", "Many-shot", "shots", "many"),
        _of_group("medium_shot", "Medium-shot", "shots", "medium"),
        _of_group("few", "Few-shot", "shots", "few"),
        Metric("worst_class", "Worst class", OfRecalls(_lowest)),
        Metric("ece", "ECE", OfImages(lambda sums: sums.calibration_error, centered=True)),
    )
}
"""All metrics by their path, in the order in which they are shown. A new one is one entry here."""


class MetricValues(TypedDict):
    """What `evaluate_predictions` returns; the metrics of `METRICS` that are not named here stand beside `top1`.

    Where a sample has several classes, `mean_average_precision` and `per_class_average_precision` stand in place of all
    but the groups.
    """

    top1: float
    balanced_accuracy: float
    per_class_recall: list[float | None]
    groups: dict[str, dict[str, float | None]]


def metric_at(values: Mapping[str, object] | None, path: str) -> float | None:
    """A metric by its path; None where it was not measured, or a group has no class.

    >>> metric_at({"top1": 40, "groups": {"thirds": {"tail": None}}}, "groups.thirds.tail") is None
    True
    """
    found = value_at(values, path)
    return float(found) if isinstance(found, int | float) else None


def metric_values(
    by_path: Mapping[str, float | None], per_class: list[float | None] | None, *, multi_label: bool = False
) -> MetricValues:
    """Metrics by path as they stand in a result: every one of `METRICS`, None where it is not given.

    Args:
        per_class: recalls, or average precisions.
        multi_label: whether they are of samples that have several classes: other metrics.
    """
    values: dict[str, Any] = {}
    for path, metric in METRICS.items():
        if metric.multi_label not in (None, multi_label):
            continue
        *above, last = path.split(".")
        place = values
        for name in above:
            place = place.setdefault(name, {})
        place[last] = by_path.get(path)
    return cast(MetricValues, {**values, BY_CLASS[multi_label]: per_class})


@dataclass(frozen=True)
class ClassCounts:
    """Whole numbers per class as float64 (C,): images that have the label, that are given it, and both."""

    images: Tensor
    predictions: Tensor
    correct: Tensor

    @classmethod
    def of(cls, predicted_N: Tensor, target_N: Tensor, classes: int) -> ClassCounts:
        """Count predicted classes and labels, (N,) int64 each.

        >>> counts = ClassCounts.of(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 3)
        >>> counts.recalls(), counts.precisions()
        ([100.0, 50.0, None], [50.0, 100.0, None])
        """
        parts = (target_N, predicted_N, target_N[predicted_N == target_N])
        return cls(*(torch.bincount(part, minlength=classes).double() for part in parts))

    def recalls(self) -> list[float | None]:
        """Percent of each class's images that are given their label; None for a class without images."""
        return _percent(self.correct, self.images)

    def precisions(self) -> list[float | None]:
        """Percent of each class's predictions that are right; None for a class that is never predicted."""
        return _percent(self.correct, self.predictions)


def _percent(part_C: Tensor, whole_C: Tensor) -> list[float | None]:
    shares = (100 * part_C / whole_C).tolist()
    return [share if whole else None for share, whole in zip(shares, whole_C.tolist(), strict=True)]


def evaluate_predictions(logits_NC: Tensor, target_N: Tensor, class_counts: Sequence[int] | Tensor) -> MetricValues:
    """All metrics of one model on one test set, in percent.

    Args:
        logits_NC: (N, C) floating and finite.
        target_N: (N,) integer labels, 0 to C - 1; (N, C) bool for multi-label data.
        class_counts: (C,) training images per class, at least 1; they define the groups.

    Returns:
        ``top1``; ``balanced_accuracy`` (mean recall), ``gmean`` (geometric mean of the recalls), ``macro_f1`` and
        ``worst_class`` (lowest recall), all four over the classes that have test images; ``ece`` (15 equal-width bins);
        ``per_class_recall`` (a list, None for a class without test images); ``groups.shots`` and ``groups.thirds``
        (mean recall, None for a group without classes to measure). Plain floats, ready for JSON. For multi-label data:
        ``mean_average_precision``, ``per_class_average_precision`` and the groups, means of the latter.

    Raises:
        DataError: shapes that do not match, nothing to evaluate, logits that are not finite, labels out of range.

    >>> metrics = evaluate_predictions(torch.eye(3), torch.tensor([0, 1, 1]), [300, 50, 5])
    >>> metrics["balanced_accuracy"], metrics["per_class_recall"]
    (75.0, [100.0, 50.0, None])
    >>> metrics["groups"]["shots"]
    {'many': 100.0, 'medium': 50.0, 'few': None}
    """
    if target_N.ndim == 2:
        return _evaluate_multi_label(logits_NC, target_N, class_counts)
    logits_NC, target_N, counts = checked_predictions(logits_NC, target_N, class_counts)
    found = ClassCounts.of(logits_NC.argmax(1), target_N, len(counts))
    present_C = found.images > 0
    recalls = found.recalls()
    recall_C = torch.tensor([0.0 if recall is None else recall for recall in recalls], dtype=torch.float64)
    calibration_error = torch.tensor(expected_calibration_error(logits_NC, target_N), dtype=torch.float64)
    sums = Sums(found.images[present_C], found.predictions[present_C], found.correct[present_C], calibration_error)
    members = classes_by_group(counts)
    by_path: dict[str, float | None] = {}
    for path, metric in METRICS.items():
        if metric.multi_label:
            continue
        if isinstance(metric.source, OfImages):
            by_path[path] = float(metric.source.compute(sums))
            continue
        classes = [c for c in members.get(path, range(len(counts))) if present_C[c]]
        by_path[path] = float(metric.source.compute(recall_C[classes])) if classes else None
    return metric_values(by_path, recalls)


def _evaluate_multi_label(logits_NC: Tensor, target_NC: Tensor, class_counts: Sequence[int] | Tensor) -> MetricValues:
    logits_NC, target_NC, counts = checked_predictions(logits_NC, target_NC, class_counts, multi_label=True)
    return multi_label_metrics(average_precisions(logits_NC, target_NC), counts)


def multi_label_metrics(precisions: list[float | None], counts: Sequence[int]) -> MetricValues:
    """The metrics of multi-label data out of average precisions (C,) and training images (C,) of each class."""
    if all(precision is None for precision in precisions):
        raise DataError("no test image has any class; expected positives, since average precision is a mean over them")
    everything = {MEAN_AVERAGE_PRECISION: range(len(counts)), **classes_by_group(counts)}
    by_path = {path: group_means(precisions, {"": classes})[""] for path, classes in everything.items()}
    return metric_values(by_path, precisions, multi_label=True)


def group_means(values: Sequence[float | None], groups: Mapping[str, Sequence[int]]) -> dict[str, float | None]:
    """The mean of a per-class value in each group, over the classes that have one; None where no class has.

    >>> group_means([90.0, None, 30.0], {"head": (0, 1), "medium": (1,), "tail": (2,)})
    {'head': 90.0, 'medium': None, 'tail': 30.0}
    """
    known = {name: [v for v in (values[c] for c in classes) if v is not None] for name, classes in groups.items()}
    return {name: fsum(part) / len(part) if part else None for name, part in known.items()}


def mean_probability(logits_NC: Tensor) -> Tensor:
    """The teacher's mean probability of each class over a data set: (N, C) logits to (C,) float64 summing to 1."""
    total_C = torch.zeros(logits_NC.shape[1], dtype=torch.float64)
    for rows in torch.split(logits_NC.detach().cpu(), rows_at_once(logits_NC)):
        total_C += rows.double().softmax(1).sum(0)
    return total_C / len(logits_NC)


def recall_by_quarter(
    recall_per_class: Sequence[float | None], mean_probability_per_class: Sequence[float] | Tensor
) -> dict[str, float | None]:
    """Mean recall in four quarters of the classes, from the most to the least favored by the teacher.

    IPWD (arXiv 2210.12787), Table 1 [paper]: plain distillation lifts the most favored quarter far more than the
    least; a repair closes that gap. Classes are ranked by the teacher's mean probability, descending, ties by index,
    and cut at round(i * C / 4) [ours].

    Args:
        recall_per_class: (C,), percent, None for a class without test images (left out of its quarter's mean).
        mean_probability_per_class: (C,), the teacher's, as `mean_probability` computes it.

    Returns:
        ``most``, ``second``, ``third``, ``least``: percent, None where a quarter has no class to measure.

    Raises:
        DataError: lengths that differ, or probabilities that are not finite.

    >>> recall_by_quarter([10.0, 20.0, 30.0, 40.0], [0.1, 0.2, 0.3, 0.4])
    {'most': 40.0, 'second': 30.0, 'third': 20.0, 'least': 10.0}
    """
    favor_C = torch.as_tensor(mean_probability_per_class).detach().cpu().double()
    if favor_C.shape != (len(recall_per_class),):
        raise DataError(
            f"got recalls of {len(recall_per_class)} classes and mean probabilities of shape {tuple(favor_C.shape)}; "
            "expected one of each for every class."
        )
    if not favor_C.isfinite().all():
        raise DataError("the teacher's mean probabilities are not all finite; expected numbers between 0 and 1.")
    ranked = torch.argsort(favor_C, descending=True, stable=True).tolist()
    cuts = [round(i * len(ranked) / 4) for i in range(5)]
    quarters = {name: ranked[cuts[i] : cuts[i + 1]] for i, name in enumerate(QUARTERS)}
    return group_means(recall_per_class, quarters)
