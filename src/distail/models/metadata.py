"""The texts that a file of weights holds beside them, read as what they stand for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from distail.errors import CheckpointError
from distail.outputs import SINGLE_LABEL

_LARGEST = 2**53  # that float64 holds exactly
Value = TypeVar("Value")

TARGETS = "targets"
"""The key of files whose logits are not a softmax's, and what others are."""
ADJUST = "adjust"
"""In the file of a student: the tau of the logits that its run tested; the weights themselves are not adjusted."""


@dataclass(frozen=True)
class Metadata:
    """Texts of a file, read as what they stand for; a `CheckpointError` names the key."""

    texts: Mapping[str, str]

    def text(self, key: str) -> str:
        if not self.texts.get(key):
            raise CheckpointError(f"{key}: missing; files written by `distail run` have it")
        return self.texts[key]

    def optional(self, key: str, read: Callable[[str], Value]) -> Value | None:
        return read(key) if key in self.texts else None

    def whole(self, key: str) -> int:
        value: int = self._json(key)
        return value if _is_count(value) else self.refuse(key, "a whole number of at least 1")

    def whole_from_zero(self, key: str) -> int:
        value: int = self._json(key)
        return value if value == 0 or _is_count(value) else self.refuse(key, "a whole number of at least 0")

    def share(self, key: str) -> float:
        value = self._json(key)
        usable = type(value) in (int, float) and 0 <= value < 1
        return float(value) if usable else self.refuse(key, "a number from 0 to below 1")

    def wholes(self, key: str) -> tuple[int, ...]:
        values = self._list(key)
        return tuple(values) if all(map(_is_count, values)) else self.refuse(key, "whole numbers of at least 1")

    def numbers(self, key: str) -> tuple[float, ...]:
        values = self._list(key)
        usable = all(type(value) in (int, float) and abs(value) < _LARGEST for value in values)
        return tuple(map(float, values)) if usable else self.refuse(key, "finite numbers")

    def names(self, key: str) -> tuple[str, ...]:
        values = self._list(key)
        if not all(isinstance(value, str) for value in values):
            self.refuse(key, "texts")
        return tuple(values)

    def mapping(self, key: str) -> Mapping[str, Any]:
        value = self._json(key)
        return value if isinstance(value, dict) and value else self.refuse(key, "a JSON mapping")

    def _list(self, key: str) -> Sequence[Any]:
        value = self._json(key)
        return value if isinstance(value, list) and value else self.refuse(key, "a JSON list")

    def _json(self, key: str) -> Any:
        text = self.text(key)
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return self.refuse(key, "JSON")

    def refuse(self, key: str, expected: str) -> Any:
        raise CheckpointError(f"{key}: it says {self.texts[key][:80]!r}; expected {expected}")


@contextmanager
def naming(file: str | Path) -> Iterator[None]:
    """What is wrong with the texts of a file names the file."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{str(file)!r}: {error}") from None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < _LARGEST


def told_targets(targets: str) -> dict[str, str]:
    """What a file says of its labels: nothing where an example has one class, as files of before."""
    return {} if targets == SINGLE_LABEL else {TARGETS: targets}


def stored_options(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What only some networks know, as far as a file says it: `hidden`, `depth` and `dropout` of `mlp`.

    Raises:
        CheckpointError: it is damaged.

    >>> stored_options({"model": "mlp", "hidden": "64", "dropout": "0.1"})
    {'hidden': 64, 'dropout': 0.1}
    """
    told = Metadata(metadata)
    read = {"hidden": told.whole, "depth": told.whole_from_zero, "dropout": told.share}
    return {key: read[key](key) for key in read if key in metadata}
