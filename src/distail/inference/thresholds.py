"""From which probability on an example has a class, where it may have several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from distail.errors import ConfigError
from distail.evaluation.predictions import THRESHOLD
from distail.inference.class_numbers import in_class_order, read_class_numbers

_EXPECTED = "a probability above 0 and below 1"


def thresholds_of(
    given: float | Mapping[str, float] | None, class_names: Sequence[str], *, multi_label: bool
) -> tuple[float, ...] | None:
    """A threshold for each class; None where an example has one class, the most probable.

    Args:
        given: one for all classes, or one for each by name; None: a half.

    Raises:
        ConfigError: numbers that are none between 0 and 1, classes without one, or a student of one class per example.

    >>> thresholds_of({"dog": 0.2, "cat": 0.7}, ["cat", "dog"], multi_label=True)
    (0.7, 0.2)
    """
    if not multi_label:
        if given is not None:
            raise ConfigError(
                "this student predicts a single class; --threshold is for a student that was trained "
                "with data.targets: multi_label"
            )
        return None
    if isinstance(given, Mapping):
        return tuple(in_class_order(given, class_names, "threshold", _fits, _EXPECTED))
    threshold = THRESHOLD if given is None else given
    if not _fits(threshold):
        raise ConfigError(f"threshold {threshold:g}: expected {_EXPECTED}, or one for each class")
    return (threshold,) * len(class_names)


def read_threshold(text: str) -> float | dict[str, float]:
    """What `--threshold` says: a number for all classes, or a file with the columns `class` and `threshold`.

    Raises:
        ConfigError: it is neither.

    >>> read_threshold("0.3")
    0.3
    """
    try:
        return float(text)
    except ValueError:
        path = Path(text)
    if not path.is_file():
        raise ConfigError(
            f"--threshold {text!r} is neither a number nor a file; expected {_EXPECTED}, or a file with the "
            "columns class,threshold"
        )
    return read_class_numbers(path, "--threshold", "threshold")


def _fits(threshold: float) -> bool:
    return 0 < threshold < 1
