"""Columns of a table that are no inputs though nobody says so: an index of its rows, and empty ones without a name."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distail.data.column_notes import all_whole_and_different
from distail.errors import counted

# What pandas calls an index that it wrote without a name: to CSV nothing, read back, and in parquet.
_INDEX_NAME = re.compile(r"\s*|Unnamed: \d+(\.\d+)*|__index_level_\d+__")

ID = "id"
"""The column that names the rows, where a table has it."""


def is_unnamed(name: str) -> bool:
    """Whether a header says nothing."""
    return not name.strip()


def without_empty_columns(table: Any) -> Any:
    """A pyarrow table without those columns that have neither a name nor a value, as a separator at the end leaves."""
    kept = [
        place
        for place, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True))
        if not is_unnamed(name) or column.null_count < len(column)
    ]
    return table.select(kept)


def index_columns(parts: Mapping[str, Any], aside: Collection[str]) -> list[str]:
    """The columns without a name of their own that count the rows of every pyarrow table that has them.

    `aside` are the names of columns that are for something else.
    """
    names = dict.fromkeys(name for part in parts.values() for name in part.column_names)
    return [
        name
        for name in names
        if _INDEX_NAME.fullmatch(name) and name not in aside
        if all(_counts_rows(part.column(name)) for part in parts.values() if name in part.column_names)
    ]


def left_out_note(indexes: Sequence[str], empty: int) -> str | None:
    """What became of columns that are no inputs though nobody said so; None where there are none.

    >>> left_out_note([""], 0)
    "left out: the column '', which counts the rows (data.features can name it)"
    """
    told = [f"the column {name!r}, which counts the rows (data.features can name it)" for name in indexes]
    told += [f"{counted(empty, 'column')} without a name and without a value"] * bool(empty)
    return f"left out: {'; '.join(told)}" if told else None


def own_ids(table: Any) -> NDArray[Any] | None:
    """What the column `id` of a pyarrow table calls its rows (N,), int64 or bytes; None unless it differs in each."""
    import pyarrow as pa

    if ID not in table.column_names or (column := table.column(ID)).null_count:
        return None
    if pa.types.is_integer(column.type) and column.type != pa.uint64():
        ids = column.to_numpy().astype(np.int64)
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        ids = np.array([text.strip().encode() for text in column.to_pylist()], dtype=np.bytes_)
    else:
        return None
    return ids if len(np.unique(ids)) == len(ids) else None


def _counts_rows(column: Any) -> bool:
    import pyarrow as pa

    if column.null_count or not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return False
    numbers_N = column.cast(pa.float64()).to_numpy()
    return all_whole_and_different(numbers_N) and bool((numbers_N >= 0).all())
