"""The metric by which epochs, methods and settings are chosen: of one class per sample, and of several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MEAN_AVERAGE_PRECISION, BALANCED_ACCURACY = "mean_average_precision", "balanced_accuracy"
MAP = "mAP"
"""What mean average precision is called wherever people read it; tables define it once, with `MAP_RULE`."""
MAP_RULE = f"{MAP}: mean average precision, over the classes that have test images"
HEADLINE_WORDS = {MEAN_AVERAGE_PRECISION: MAP, BALANCED_ACCURACY: "balanced accuracy"}
BY_CLASS = {True: "per_class_average_precision", False: "per_class_recall"}


def is_multi_label(values: Mapping[str, object]) -> bool:
    """Whether metrics are of samples that have several classes."""
    return MEAN_AVERAGE_PRECISION in values


def headline_path(values: Mapping[str, object]) -> str:
    """The path of the metric by which epochs and methods are chosen: balanced accuracy, or mean average precision."""
    return MEAN_AVERAGE_PRECISION if is_multi_label(values) else BALANCED_ACCURACY


def headline(values: Mapping[str, Any]) -> float:
    """The metric by which epochs and methods are chosen.

    >>> headline({"mean_average_precision": 61.0}), headline({"top1": 80.0, "balanced_accuracy": 70.0})
    (61.0, 70.0)
    """
    return float(values[headline_path(values)])


def by_class(values: Mapping[str, Any]) -> list[float | None] | None:
    """Of each class its recall, or its average precision; None where it has no test image, or nothing is known."""
    found: list[float | None] | None = values.get(BY_CLASS[is_multi_label(values)])
    return found
