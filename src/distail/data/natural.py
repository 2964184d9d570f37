"""Class names in the order in which people count."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NUMBER = re.compile(r"([0-9]+)")


def natural_sorted(names: Iterable[str]) -> list[str]:
    """Sorted without regard to case, with numbers by value; independent of the order given.

    >>> natural_sorted(["class10", "Class2", "class1"])
    ['class1', 'Class2', 'class10']
    """

    def key(name: str) -> tuple[list[str | int], str]:
        parts = _NUMBER.split(name.casefold())
        return [int(part) if place % 2 else part for place, part in enumerate(parts)], name

    return sorted(names, key=key)
