"""A number for each class, as a user gives it in a file: `share`, or `threshold`."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from distail.errors import ConfigError, Problems, did_you_mean
from distail.json_values import as_number, read_json


def read_class_numbers(path: Path, option: str, column: str) -> dict[str, float]:
    """Numbers by class: a JSON mapping, or CSV with the columns `class` and another.

    Args:
        option: of the command line, which messages name.

    Raises:
        ConfigError: the file cannot be read as one of them.
    """
    if path.suffix.lower() == ".json":
        values = {name: as_number(value) for name, value in read_json(path).items()}
    else:
        values = _read_csv(path, option, column)
    wrong = [repr(name) for name, value in values.items() if value is None]
    if wrong or not values:
        raise ConfigError(f"{option} {path}: expected a number for each class; none for {', '.join(wrong) or 'any'}")
    return {name: value for name, value in values.items() if value is not None}


def in_class_order(
    values: Mapping[str, float], class_names: Sequence[str], what: str, fits: Callable[[float], bool], expected: str
) -> list[float]:
    """The numbers in the order of the classes.

    Raises:
        ConfigError: a class without one, a number that does not fit, or a name that is no class; all are told.

    >>> in_class_order({"dog": 1.0, "cat": 3.0}, ["cat", "dog"], "share", lambda share: share > 0, "above 0")
    [3.0, 1.0]
    """
    problems = Problems()
    for name in class_names:
        if name not in values:
            problems.add(f"no {what} of class {name!r}")
        elif not fits(values[name]):
            problems.add(f"the {what} of class {name!r} is {values[name]:g}; expected {expected}")
    for name in values:
        if name not in class_names:
            problems.add(f"{name!r} is not a class of the student. {did_you_mean(name, class_names)}")
    problems.stop(f"the {what}s of the classes cannot be used")
    return [values[name] for name in class_names]


def _read_csv(path: Path, option: str, column: str) -> dict[str, float | None]:
    expected = f"expected the columns class,{column}, or a .json file that maps classes to {column}s"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not {"class", column} <= set(rows.fieldnames or ()):
                raise ConfigError(f"{option} {path} has the columns {', '.join(rows.fieldnames or ())}; {expected}")
            return {str(row["class"]): _number(row[column]) for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{option} {path} cannot be read ({error}); {expected}") from None


def _number(text: str | None) -> float | None:
    try:
        return as_number(float(text or ""))
    except ValueError:
        return None
