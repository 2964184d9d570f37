"""The files of `csv-table` and `parquet` as tables of pyarrow: what a cell, a gap and a header are."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distail.data.sources.table_columns import without_empty_columns
from distail.errors import DataError, counted, some_of

DELIMITERS = (",", "\t", ";")


def read_table(path: Path, name: str, texts: Iterable[str], categories: Iterable[str] = ()) -> Any:
    """The table in a file of `csv-table` or `parquet`.

    In a CSV file NA, nan, null and their like are gaps. Not so in the columns `texts`, which are as they stand in it:
    there a gap is an empty cell alone. `categories` are texts too, even where they look like numbers. What has neither
    a name nor a value, as a separator at the end of each line leaves it, is no column.

    Raises:
        DataError: it is damaged, is a CSV file that is not UTF-8, has no row, or a column twice.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    texts = {*texts}
    try:
        if name == "parquet":
            table = parquet.read_table(path, partitioning=None)
        else:
            # Left to the reader, a gap of a text would be the same in every column.
            options = arrow_csv.ConvertOptions(column_types=dict.fromkeys({*texts, *categories}, pa.string()))
            parsing = arrow_csv.ParseOptions(delimiter=_header(path)[0])
            table = _with_gaps(arrow_csv.read_csv(path, parse_options=parsing, convert_options=options), texts)
    except Exception as error:  # of a damaged file pyarrow raises its own exceptions, and Python's
        raise _unreadable(path, name, error) from error
    if not len(table):
        raise DataError(f"{path} has no row")
    table = without_empty_columns(table)
    twice = sorted({column for column in table.column_names if table.column_names.count(column) > 1})
    if twice:
        raise DataError(f"{path} has the column {some_of([repr(column) for column in twice])} more than once")
    return table


def column_names(path: Path, name: str) -> list[str]:
    """What the columns of a file of `csv-table` or `parquet` are called, without its rows.

    Raises:
        DataError: it is damaged, or a CSV file that is not UTF-8.
    """
    from pyarrow import parquet

    try:
        return parquet.read_schema(path).names if name == "parquet" else _header(path)[1]
    except Exception as error:
        raise _unreadable(path, name, error) from error


def gaps_by_name(table: Any, names: Iterable[str], ways_out: str) -> list[str]:
    """A sentence for each of these columns, as they stand in a CSV file, that has NA, nan, null or their like."""
    from pyarrow import compute

    problems = []
    for name in names:
        if name not in table.column_names:
            continue
        texts = compute.utf8_trim_whitespace(table.column(name))
        rows = compute.indices_nonzero(compute.is_in(texts, _gap_names()))
        if len(rows):
            first = rows[0].as_py()
            problems.append(
                f"{counted(len(rows), 'cell')} of the column {name!r}, the first in row {first:,} (rows count from 0), "
                f"read {texts[first].as_py()!r}: a missing value, or a name? {ways_out}"
            )
    return problems


def _gap_names() -> Any:
    """What stands for a missing value, beside an empty cell."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    return pa.array([text for text in arrow_csv.ConvertOptions().null_values if text])


def _with_gaps(table: Any, texts: set[str]) -> Any:
    """The table with nulls for the gaps in its columns of texts."""
    import pyarrow as pa
    from pyarrow import compute

    for place, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
        if pa.types.is_binary(column.type):
            raise ValueError(f"the column {name!r} is not text")
        if pa.types.is_string(column.type):
            gap = compute.equal(compute.utf8_trim_whitespace(column) if name in texts else column, "")
            if name not in texts:
                gap = compute.or_(gap, compute.is_in(column, _gap_names()))
            table = table.set_column(place, name, compute.if_else(gap, pa.scalar(None, pa.string()), column))
    return table


def _header(path: Path) -> tuple[str, list[str]]:
    """What separates the columns of a CSV file, and their names."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        line = file.readline()
        delimiter = max(DELIMITERS, key=line.count)
        if "\0" in line:
            raise ValueError("it contains zero bytes")
        file.seek(0)
        return delimiter, next(csv.reader(file, delimiter=delimiter), [])


def _unreadable(path: Path, name: str, error: Exception) -> DataError:
    if name != "parquet" and (line := _line_not_utf8(path)):
        return DataError(
            f"{path} is not UTF-8 (line {line:,}); expected a CSV file in UTF-8: save it as such, in Excel as 'CSV "
            "UTF-8', or convert it with iconv"
        )
    return DataError(f"{path} cannot be read as {name}: {' '.join(str(error).split())}")


def _line_not_utf8(path: Path) -> int | None:
    """The first line, from 1, that is not UTF-8; zero bytes are those of UTF-16."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    zero = "\0" in line.decode()
                except UnicodeDecodeError:
                    return number
                if zero:
                    return number
    except OSError:
        pass
    return None
