"""What the names of classes must be, which look alike, and their natural order."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from distail.errors import DataError, first_of, listed

# Control characters, the halves of characters that stand for bytes that are not UTF-8, and what formats text unseen.
_UNPRINTABLE = ("Cc", "Cs", "Cf", "Zl", "Zp")
# These two decide, within words of some scripts and in emoji, how their neighbors are written.
_JOINERS = "\u200c\u200d"
# Letters and marks by their category, but nothing to see.
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u2800\u3164\ufe00-\ufe0f\uffa0]")
_LATIN = str.maketrans("\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u03bf", "aeopcyxijso")
_LEADING_ZEROS = re.compile(r"(?<![0-9.])0+(?=[0-9])")
_DECIMAL = re.compile(r"[+-]?[0-9]+\.[0-9]*")
_MISSING = frozenset({"", "nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nil", "undefined"})
_NUMBER = re.compile(r"([0-9]+)")
_WHOLE = re.compile(r"[+-]?[0-9]+(\.0*)?")
_BACKWARDS = str.maketrans("0123456789", "9876543210")


def check_class_names(names: Sequence[str], data: str) -> None:
    """Let pass the names of two classes at least, each given once and printable.

    Raises:
        DataError: there are fewer, or names cannot be used (they are listed).

    >>> check_class_names(["cat"], "pets.csv")
    Traceback (most recent call last):
        ...
    distail.errors.DataError: pets.csv has a single class, 'cat'; expected at least two classes
    """
    if len(names) < 2:
        found = f"a single class, {names[0]!r}" if names else "no class"
        raise DataError(f"{data} has {found}; expected at least two classes")
    problems = [f"{name!a} contains an invisible or unprintable character" for name in names if not _printable(name)]
    seen_alike = defaultdict(list)
    for name in filter(_printable, names):
        seen_alike[_as_seen(name)].append(name)
    for same in seen_alike.values():
        spellings = sorted(set(same))
        if len(spellings) > 1:
            problems.append(f"{' and '.join(map(ascii, spellings))} differ only in invisible characters")
        elif len(same) > 1:
            problems.append(f"{same[0]!r} is the name of {len(same)} classes")
    if problems:
        raise DataError(listed(first_of(problems), f"{data}: {len(problems)} class names cannot be used:"))


def lookalikes_warning(class_names: Sequence[str], counts: Sequence[int]) -> str | None:
    """Which names of classes may stand for the same, or for a missing label, with their images; None where none do.

    Told, not mended: `Turkey` and `turkey` may be two.

    >>> lookalikes_warning(["cat", "Cat", "dog", "nan"], [40, 4, 9, 5])
    "class names that look alike (and their images): 'cat' (40), 'Cat' (4); like no label: 'nan' (5)"
    """
    alike, missing = defaultdict(list), []
    for name, count in zip(class_names, counts, strict=True):
        key = _key(name)
        alike[key].append(f"{name!r} ({count})")
        if key in _MISSING:
            missing.append(f"{name!r} ({count})")
    groups = [", ".join(same) for same in alike.values() if len(same) > 1]
    groups += [f"like no label: {', '.join(missing)}"] if missing else []
    return f"class names that look alike (and their images): {'; '.join(first_of(groups))}" if groups else None


def _key(name: str) -> str:
    """The same for names that differ in case, spaces, width, zeros or look-alike letters of other alphabets."""
    text = " ".join(unicodedata.normalize("NFKC", _as_seen(name)).casefold().translate(_LATIN).split())
    text = _LEADING_ZEROS.sub("", text)
    return text.rstrip("0").rstrip(".").lstrip("+") if _DECIMAL.fullmatch(text) else text


def _as_seen(name: str) -> str:
    seen = (character for character in name if unicodedata.category(character) != "Cf")
    return unicodedata.normalize("NFC", _UNSEEN.sub("", "".join(seen)))


def _printable(name: str) -> bool:
    return all(unicodedata.category(character) not in _UNPRINTABLE or character in _JOINERS for character in name)


def natural_sorted(names: Iterable[str]) -> list[str]:
    """Sorted without regard to case, with numbers by value; independent of the order given.

    Of a name that is a whole number the sign counts; in others it is a sign like any other.

    >>> natural_sorted(["class10", "Class2", "class1"])
    ['class1', 'Class2', 'class10']
    >>> natural_sorted(["1", "-1", "-10"])
    ['-10', '-1', '1']
    """

    def key(name: str) -> tuple[list[str | tuple[int, str]], str]:
        parts = _NUMBER.split(name.casefold())
        # Python refuses to make an int of thousands of digits; without leading zeros, longer is larger.
        numbers = [(len(digits), digits) for digits in (part.lstrip("0") for part in parts[1::2])]
        if _WHOLE.fullmatch(name):
            if name.startswith("-"):
                numbers[0] = (-numbers[0][0], numbers[0][1].translate(_BACKWARDS))
            parts[0] = ""
        ordered: list[str | tuple[int, str]] = [*parts]
        ordered[1::2] = numbers
        return ordered, name

    return sorted(names, key=key)
