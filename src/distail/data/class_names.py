"""What the names of classes must be, and their natural order."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from distail.errors import DataError, first_of, listed

# Control characters, and the halves of characters that stand for bytes that are not UTF-8.
_UNPRINTABLE = ("Cc", "Cs")
_NUMBER = re.compile(r"([0-9]+)")


def check_class_names(names: Sequence[str], data: str) -> None:
    """Let pass the names of two classes at least, each given once and printable.

    Raises:
        DataError: there are fewer, or names cannot be used (they are listed).

    >>> check_class_names(["cat"], "pets.csv")
    Traceback (most recent call last):
        ...
    distail.errors.DataError: pets.csv has a single class, 'cat'; there is nothing to tell apart with fewer than two
    """
    if len(names) < 2:
        found = f"a single class, {names[0]!r}" if names else "no class"
        raise DataError(f"{data} has {found}; there is nothing to tell apart with fewer than two")
    problems = [f"{name!r} holds a character that cannot be printed" for name in names if not _printable(name)]
    seen_alike = Counter(unicodedata.normalize("NFC", name) for name in names)
    problems += [f"{name!r} is the name of {count} classes" for name, count in seen_alike.items() if count > 1]
    if problems:
        raise DataError(listed(first_of(problems), f"{data}: {len(problems)} class names cannot be used:"))


def _printable(name: str) -> bool:
    return all(unicodedata.category(character) not in _UNPRINTABLE for character in name)


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
