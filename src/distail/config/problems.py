"""What is wrong with an experiment's keys and values, in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from distail.errors import did_you_mean

Key = tuple[str, ...]

_TEACHERS = ["teacher", "model", "members"]
_PAIRS = ("scale", "ratio")
"""Keys of augmentations that hold two numbers."""
_OF_TEACHERS = {"name": "model", "weights": "checkpoint"}
"""What is read as the first is written as the second in a list of teachers."""


_ABBREVIATED = {"lr": "learning_rate", "wd": "weight_decay"}


@dataclass(frozen=True)
class WrongKey:
    """One problem, and the key it is about; the empty key is the whole experiment."""

    key: Key
    problem: str


def wrong_keys(root: type[BaseModel], error: ValidationError, prefix: Key = ()) -> list[WrongKey]:
    """All that pydantic found; `prefix` is where `root` stands in the experiment."""
    found: dict[str, Key] = {}  # a pair of which both numbers are missing is one problem
    for detail in error.errors():
        found.setdefault(_in_words(root, detail, prefix), (*prefix, *(str(part) for part in detail["loc"])))
    return [WrongKey(key, problem) for problem, key in found.items()]


def without(raw: Mapping[str, Any], keys: Iterable[Key]) -> dict[str, Any]:
    """A nested mapping without some keys; an item of a list takes the whole list with it.

    >>> without({"seed": -1, "data": {"name": "digits", "augment": ["flp"]}}, [("seed",), ("data", "augment", "0")])
    {'data': {'name': 'digits'}}
    """
    return reduce(_without, keys, dict(raw))


def overlaps(key: str, keys: Iterable[Key]) -> bool:
    """Whether a dotted key is one of some keys, or lies above or below one.

    >>> overlaps("teacher", [("teacher", "views")]), overlaps("teacher.model", [("teacher", "views")])
    (True, False)
    """
    path = tuple(key.split("."))
    return any(path[: len(other)] == other[: len(path)] for other in keys)


def _without(raw: Mapping[str, Any], key: Key) -> dict[str, Any]:
    first, rest = key[:1], key[1:]
    if rest and isinstance(inner := raw.get(key[0]), Mapping):
        return {**raw, key[0]: _without(inner, rest)}
    return {name: value for name, value in raw.items() if (name,) != first}


def _in_words(root: type[BaseModel], detail: Mapping[str, Any], prefix: Key) -> str:
    location = [*prefix, *(str(part) for part in detail["loc"])]
    where = _as_written(location)
    kind, given = detail["type"], detail.get("input")
    pair = location[:-1] if location[-1:] and location[-1].isdigit() else location
    if pair[-1:] and pair[-1] in _PAIRS and kind in ("missing", "too_long", "tuple_type"):
        return f"{_as_written(pair)}: expected two numbers, such as [0.1, 1], not {given!r}"
    if kind == "extra_forbidden":
        valid = list(_section_at(root, [str(part) for part in detail["loc"][:-1]]).model_fields)
        if location[: len(_TEACHERS)] == _TEACHERS:
            valid = [_OF_TEACHERS.get(key, key) for key in valid if key not in ("members", "average")]
        name = _ABBREVIATED.get(location[-1], location[-1])
        elsewhere = None if prefix or name in valid else _place_of(root, name, location[0])
        if elsewhere is None:
            return f"{where}: unknown key. {did_you_mean(name, valid)}"
        if (location[0], elsewhere[0]) == ("teacher", "training"):
            elsewhere = ("teacher", *elsewhere)
        return f"{where}: unknown key. Did you mean {'.'.join(elsewhere)!r}? Valid: {', '.join(sorted(valid))}."
    if kind == "missing":
        field = _section_at(root, [str(part) for part in detail["loc"][:-1]]).model_fields[location[-1]]
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        return f"{where}: missing; it is needed" + (f". Valid: {', '.join(sorted(choices))}" if choices else "")
    if kind == "literal_error":
        valid = re.findall(r"'([^']*)'", str(detail["ctx"]["expected"]))
        return f"{where}: {given!r} is not valid. {did_you_mean(str(given), valid)}"
    if kind == "tuple_type":
        one = given.get("name", given) if isinstance(given, Mapping) else "" if given is None else given
        return f"{where}: expected a list, such as [{one}], not {given!r}"
    if kind == "model_type":
        return f"{where}: expected a mapping of keys to values, not {given!r}"
    message = str(detail["msg"]).removeprefix("Value error, ")
    if kind == "value_error" or isinstance(given, Mapping):
        return f"{where}: {message}" if where else message
    return f"{where}: {message[0].lower()}{message[1:]}, not {given!r}"


def _as_written(location: Sequence[str]) -> str:
    """The dotted key as users write it, to whom several teachers are a list.

    >>> _as_written(["teacher", "model", "members", "0", "weights"]), _as_written(["teacher", "model", "average"])
    ('teacher, number 1, checkpoint', 'teacher.average')
    """
    if location[:-1] == _TEACHERS[:2] and location[-1] in ("members", "average"):
        return f"teacher.{location[-1]}"
    if location[: len(_TEACHERS)] != _TEACHERS:
        return ".".join(location)
    place, *keys = location[len(_TEACHERS) :]
    return ", ".join([f"teacher, number {int(place) + 1}", *(_OF_TEACHERS.get(key, key) for key in keys)])


def _section_at(root: type[BaseModel], location: Sequence[str]) -> type[BaseModel]:
    section = root
    for part in location:
        if part.isdigit():  # a place in a list of sections
            continue
        section = _sections_of(section, part)[0]
    return section


def _sections_of(section: type[BaseModel], key: str) -> list[type[BaseModel]]:
    annotation = section.model_fields[key].annotation
    return [c for c in (annotation, *get_args(annotation)) if isinstance(c, type) and issubclass(c, BaseModel)]


def _place_of(root: type[BaseModel], name: str, beside: str) -> Key | None:
    """The key of this name in a section of the experiment, or in one of that: where a misplaced one belongs.

    Args:
        beside: the section in which it stands, which is looked through first.
    """
    level: list[tuple[Key, type[BaseModel]]] = [((), root)]
    for _ in range(2):
        level = [
            ((*path, key), section)
            for path, above in level
            for key in above.model_fields
            for section in _sections_of(above, key)
        ]
        found = [path for path, section in level if name in section.model_fields]
        if found:
            return (*min(found, key=lambda path: path[0] != beside), name)
    return None
