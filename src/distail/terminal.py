"""What a terminal is shown: text in which nothing steers it."""

from __future__ import annotations

import json
import time
import unicodedata
from collections.abc import Callable
from typing import Any

from rich.console import Console

LONGEST_SILENCE = 30
"""Seconds; a longer one looks like a hang in a log."""


def every_half_minute(task: str, total: int, tell: Callable[[str], None], unit: str = "") -> Callable[[int], None]:
    """What is called with how many more are done, and tells of the task as often as no log looks hung."""
    done, said = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, said
        done += count
        if time.monotonic() - said >= LONGEST_SILENCE and done < total:
            said = time.monotonic()
            tell(f"{task}: {done:,} of {total:,}{unit}")

    return advance


def printable(text: str) -> str:
    """Text in which control characters, and what stands for bytes of a name that are no text, are escapes.

    Names come out of strangers' files: ESC could set a terminal's title, or do worse.

    >>> print(printable("a\\x1b]0;x\\x07\\udcff, é"))
    a\\x1b]0;x\\x07\\xff, é
    """
    return "".join(sign if sign.isprintable() or sign in "\n\t" else _escape(sign) for sign in text)


def _escape(sign: str) -> str:
    if unicodedata.category(sign) == "Zs":  # such as the space that does not break
        return sign
    if 0xDC80 <= ord(sign) <= 0xDCFF:  # how Python keeps a byte that is no UTF-8
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return sign.encode("unicode_escape").decode("ascii")


def printable_json(text: str) -> str:
    """JSON that means the same, in which what `printable` would escape is written as JSON writes it.

    >>> print(printable_json('{"name": "é\x9b2J\x7f"}'))
    {"name": "é\\u009b2J\\u007f"}
    """
    return "".join(sign if sign.isprintable() or sign in "\n\t" else _json_escape(sign) for sign in text)


def _json_escape(sign: str) -> str:
    return json.dumps(sign)[1:-1] if ord(sign) != 0x7F else "\\u007f"  # which JSON leaves as it is


class PrintableConsole(Console):
    """Rich's console, for texts of any origin."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable(each) if isinstance(each, str) else each for each in objects), **options)
