"""Values out of JSON files that may hold anything: what does not fit is None or empty, never an error."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distail.errors import CheckpointError

_LARGEST = 2**53  # the largest whole number that JavaScript and float64 hold exactly


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises:
        CheckpointError: the file cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} cannot be read (it holds no mapping)")
    return content


def as_mapping(value: object) -> Mapping[str, Any]:
    """The mapping, or an empty one."""
    return value if isinstance(value, Mapping) else {}


def as_mappings(value: object) -> list[Mapping[str, Any]]:
    """The mappings in a list; whatever else is in it is left out."""
    return [item for item in as_items(value) if isinstance(item, Mapping)]


def as_items(value: object) -> list[Any]:
    """The list, or an empty one."""
    return value if isinstance(value, list) else []


def as_number(value: object) -> float | None:
    """A finite number, or None.

    >>> as_number(3), as_number(True), as_number("3"), as_number(float("nan")), as_number(10**400)
    (3.0, None, None, None, None)
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def as_whole(value: object) -> int | None:
    """A whole number that a page can count with, or None.

    >>> as_whole(3), as_whole(3.0), as_whole(10**400)
    (3, None, None)
    """
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST else None


def as_text(value: object) -> str | None:
    """A string, or None."""
    return value if isinstance(value, str) else None


def as_pair(value: object) -> tuple[float, float] | None:
    """Two finite numbers, or None."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        return None
    low, high = as_number(value[0]), as_number(value[1])
    return None if low is None or high is None else (low, high)


def value_at(values: object, path: str) -> object:
    """What stands at a path, such as ``groups.thirds.tail``, in nested mappings; None where there is nothing.

    >>> value_at({"groups": {"thirds": {"tail": 12.5}}}, "groups.thirds.tail")
    12.5
    """
    for name in path.split("."):
        values = values.get(name) if isinstance(values, Mapping) else None
    return values
