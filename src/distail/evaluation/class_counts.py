"""How many training images each class has, as a user writes it: in a word, in a file, or not at all."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from torch import Tensor

from distail.errors import DataError

_LISTED = re.compile(r"[\d\s,;\[\]]+")
_LARGEST_BYTES = 2**24


def read_class_counts(text_or_path: str) -> tuple[int, ...]:
    """Whole numbers, one a class in the order of the classes; that they are at least 1 is checked with the logits.

    Args:
        text_or_path: the numbers themselves (``500,120,30``), or a file: text with numbers between commas, blanks or
            line ends; JSON with a list, or with a list under ``class_counts``, as a run's result.json has.

    Raises:
        DataError: no such file, or one that holds something else.

    >>> read_class_counts("500, 120,30")
    (500, 120, 30)
    """
    if _LISTED.fullmatch(text_or_path):
        return _parsed(text_or_path, "class counts")
    path = Path(text_or_path)
    if not path.is_file():
        raise DataError(
            f"class counts: {text_or_path!r} is neither a list such as 500,120,30 nor a file (current directory "
            f"{Path.cwd()})."
        )
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise DataError(
                f"class counts: {path} is larger than {_LARGEST_BYTES // 2**20} MiB; expected one number a class."
            )
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"class counts: {path} is not a text file: {error}") from None
    return _from_json(text, path) if path.suffix.lower() == ".json" else _parsed(text, f"class counts: {path}")


def counted_labels(target_N: Tensor, classes: int) -> tuple[int, ...]:
    """The class counts of a file that has labels only: its own.

    Raises:
        DataError: a class has no label, so that nothing is known of its training images.
    """
    inside_N = target_N[(target_N >= 0) & (target_N < classes)].long()
    counts = torch.bincount(inside_N, minlength=classes).tolist()
    empty = [c for c, count in enumerate(counts) if count == 0]
    if empty:
        shown = ", ".join(str(c) for c in empty[:8]) + (f" and {len(empty) - 8} more" if len(empty) > 8 else "")
        raise DataError(
            f"{len(empty)} of {classes} classes have no label here (class {shown}), so their training images cannot be "
            "counted from the labels: give them with --class-counts."
        )
    return tuple(counts)


def _from_json(text: str, path: Path) -> tuple[int, ...]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"class counts: {path} is not JSON: {error}") from None
    counts = content.get("class_counts") if isinstance(content, dict) else content
    if not isinstance(counts, list) or any(not isinstance(n, int) or isinstance(n, bool) for n in counts):
        raise DataError(f"class counts: {path} holds no list of whole numbers, alone or under 'class_counts'.")
    return tuple(counts)


def _parsed(text: str, where: str) -> tuple[int, ...]:
    words = [word for word in re.split(r"[\s,;\[\]]+", text) if word]
    wrong = [word for word in words if not re.fullmatch(r"\d{1,18}", word)]
    if wrong or not words:
        shown = f"{wrong[0]!r} is not a whole number" if wrong else "there is none"
        raise DataError(f"{where}: expected one whole number a class, but {shown}.")
    return tuple(int(word) for word in words)
