"""Values out of files that may hold anything: what does not fit is None or empty, never an error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


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
    """A whole number, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


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


def complete_figures(figures: Any, classes: int) -> bool:
    """Whether these are figures of `evaluate_predictions` for that many classes."""
    if not isinstance(figures, Mapping):
        return False
    groups = mapping(figures.get("groups"))
    return (
        all(number(figures.get(name)) is not None for name in ("top1", "balanced_accuracy"))
        and isinstance(figures.get("per_class_recall"), Sequence)
        and len(figures["per_class_recall"]) == classes
        and {"many", "medium", "few"} <= mapping(groups.get("shots")).keys()
        and {"head", "medium", "tail"} <= mapping(groups.get("thirds")).keys()
    )


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
