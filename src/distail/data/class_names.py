"""What the names of classes must be."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

from distail.errors import DataError, first_of, listed

# Control characters, and the halves of characters that stand for bytes that are not UTF-8.
_UNPRINTABLE = ("Cc", "Cs")


def check_class_names(names: Sequence[str], data: str) -> None:
    """``DataError`` for fewer than two classes, and for names that are given twice or cannot be printed.

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
