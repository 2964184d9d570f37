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

    def key(name: str) -> tuple[list[str | tuple[int, str]], str]:
        parts = _NUMBER.split(name.casefold())
        # Python refuses to make an int of thousands of digits; without leading zeros, longer is larger.
        numbers = [(len(digits), digits) for digits in (part.lstrip("0") for part in parts[1::2])]
        ordered: list[str | tuple[int, str]] = [*parts]
        ordered[1::2] = numbers
        return ordered, name

    return sorted(names, key=key)
