"""Values out of files that may hold anything: what does not fit is None or empty, never an error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from distail.evaluation.metrics import METRICS, MetricValues, metric_values, value_at

_LARGEST = 2**53  # the largest whole number that JavaScript and float64 hold exactly


def mapping(value: Any) -> Mapping[str, Any]:
    """The mapping, or an empty one."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list; whatever else is in it is left out."""
    return [item for item in items(value) if isinstance(item, Mapping)]


def items(value: Any) -> list[Any]:
    """The list, or an empty one."""
    return value if isinstance(value, list) else []


def number(value: Any) -> float | None:
    """A finite number, or None.

    >>> number(3), number(True), number("3"), number(float("nan"))
    (3.0, None, None, None)
    """
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and _finite(value) else None


def whole(value: Any) -> int | None:
    """A whole number that a page can count with, or None.

    >>> whole(3), whole(3.0), whole(10**400)
    (3, None, None)
    """
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST else None


def text(value: Any) -> str | None:
    """A string, or None."""
    return value if isinstance(value, str) else None


def pair(value: Any) -> tuple[float, float] | None:
    """Two finite numbers, or None."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return None if low is None or high is None else (low, high)


def usable_counts(value: Any) -> bool:
    """Whether this is a list of training images for at least one class."""
    return isinstance(value, list) and bool(value) and all(whole(count) is not None and count >= 1 for count in value)


def clean_metrics(metrics: Any, classes: int) -> MetricValues | None:
    """Metrics of `evaluate_predictions` for that many classes, numbers or None throughout; None where they are not."""
    found = mapping(metrics)
    recalls = items(found.get("per_class_recall"))
    if number(found.get("top1")) is None or number(found.get("balanced_accuracy")) is None or len(recalls) != classes:
        return None
    by_path = {path: number(value_at(found, path)) for path in METRICS}
    return metric_values(by_path, [number(recall) for recall in recalls])


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
