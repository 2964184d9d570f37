"""The rows of a manifest, whoever wrote it: commas, tabs or semicolons, any line ends, quotes, a byte order mark."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TextIO
from unicodedata import normalize

from distail.errors import DataError, counted, first_of, listed

_DELIMITERS = (",", "\t", ";")
_LONGEST_LINE = 1 << 17


@dataclass(frozen=True)
class Row:
    """One image: ``line`` is where it ends in the file; ``split`` is None where the manifest has no such column."""

    line: int
    path: str
    label: str
    split: str | None


def read_rows(manifest: Path) -> list[Row]:
    """All rows, stripped of surrounding spaces.

    Raises ``DataError`` for a file that is no such table, and where it lists nothing.
    """
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            header = next(_lines(file, manifest), "")
            delimiter = next((d for d in _DELIMITERS if {"path", "label"} <= {*_columns(header, d)}), ",")
            columns = _columns(header, delimiter)
            _check_columns(columns, manifest)
            file.seek(0)
            reader = csv.reader(_lines(file, manifest), delimiter=delimiter, skipinitialspace=True)
            next(reader)
            table = [(reader.line_num, fields) for fields in reader if fields]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{manifest} cannot be read as CSV in UTF-8: {error}") from error
    if not table:
        raise DataError(f"{manifest} lists no image")
    too_long = [
        f"line {line}: {len(fields)} fields, but {len(columns)} columns; put text that holds {delimiter!r} in quotes"
        for line, fields in table
        if len(fields) > len(columns)
    ]
    if too_long:
        raise DataError(listed(first_of(too_long), f"{counted(len(too_long), 'problem')} in {manifest}:"))
    return [_row(line, dict(zip_longest(columns, fields, fillvalue=""))) for line, fields in table]


def _row(line: int, field_of: dict[str, str]) -> Row:
    split = field_of.get("split")
    return Row(
        line,
        field_of["path"].strip(),
        normalize("NFC", field_of["label"].strip()),
        None if split is None else split.strip(),
    )


def _lines(file: TextIO, manifest: Path) -> Iterator[str]:
    """Line by line, and never more than a line of a table can have: a file without line ends is read no further."""
    for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), ""), start=1):
        if len(line) == _LONGEST_LINE:
            raise DataError(f"{manifest}: line {number} has more than {_LONGEST_LINE:,} characters: it is no manifest")
        if "\0" in line:
            raise DataError(f"{manifest}: line {number} holds a NUL byte: it is no text in UTF-8")
        yield line


def _columns(header: str, delimiter: str) -> list[str]:
    return [name.strip() for name in next(csv.reader([header], delimiter=delimiter, skipinitialspace=True), [])]


def _check_columns(columns: list[str], manifest: Path) -> None:
    expected = "expected path,label and optionally split"
    missing = [name for name in ("path", "label") if name not in columns]
    if missing:
        raise DataError(
            f"{manifest} has the columns {', '.join(columns) or '(none)'}; missing: {', '.join(missing)} ({expected})"
        )
    twice = [name for name in ("path", "label", "split") if columns.count(name) > 1]
    if twice:
        raise DataError(f"{manifest} has the column {' and '.join(twice)} more than once; {expected}")
