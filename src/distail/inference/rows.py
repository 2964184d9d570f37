"""Rows as they come, by columns or as numbers, to the inputs (B, ...) of a student's file, not standardized yet.

Shapes: B rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distail.data.columns import Column, TableEncoding, Values, column_values, missing_in
from distail.errors import CheckpointError, DataError, Problems, counted, did_you_mean, some_of
from distail.models.array_description import ArrayDescription

_NAMED = 6


def encoding_of(description: ArrayDescription) -> TableEncoding | None:
    """How columns become numbers, of a student for tables.

    Raises:
        CheckpointError: what its file says of it is damaged.
    """
    if description.columns is None:
        return None
    try:
        encoding = TableEncoding.from_json(description.columns)
    except DataError as error:
        raise CheckpointError(str(error)) from None
    if (len(encoding.entries),) != description.input_shape:
        raise CheckpointError(
            f"columns: they make {len(encoding.entries)} numbers per row, but the network takes "
            f"{description.input_shape}"
        )
    return encoding


def inputs_of(rows: Any, description: ArrayDescription, encoding: TableEncoding | None) -> Tensor:
    """Inputs (B, ...) of columns by name, or of numbers as they are. What is odd is told by `warnings.warn`.

    Args:
        rows: for a student of tables, columns by name (a mapping of lists or arrays, a pandas or polars frame, a
            pyarrow table), others than its own unused; else a tensor or array (B, ...), or one example.

    Raises:
        DataError: what cannot be used, and why.
    """
    if isinstance(rows, Tensor | np.ndarray):
        inputs = _checked(torch.as_tensor(rows), description)
        if encoding is not None:
            _check_codes(inputs, encoding)
        return inputs
    if encoding is None:
        raise DataError(f"rows are {type(rows).__name__}; expected a tensor or an array {_shape_of(description)}")
    table = columns_of(rows, encoding)
    for note in notes_of(table, encoding):
        warnings.warn(note, stacklevel=2)
    return encoded(table, encoding)


def encoded(table: Mapping[str, Values], encoding: TableEncoding) -> Tensor:
    """Numbers (B, D) float32 of columns.

    Raises:
        DataError: some are infinite.
    """
    inputs_BD = np.ascontiguousarray(encoding.encode(table))
    encoding.check_finite(inputs_BD)
    return torch.from_numpy(inputs_BD)


def columns_of(rows: Any, encoding: TableEncoding) -> dict[str, Values]:
    """The columns that a student wants, each of numbers or of texts as it was for training.

    Raises:
        DataError: some are missing, of another kind or of several lengths; all is told.
    """
    names = _names(rows)
    problems = Problems()
    problems.add(*missing_columns(names, encoding))
    found: dict[str, Values] = {}
    for column in encoding.columns:
        if column.name in names:
            values = problems.attempt(lambda column=column: _like_training(rows[column.name], column))  # type: ignore[misc]
            if values is not None:
                found[column.name] = values
    lengths = {name: len(values) for name, values in found.items()}
    if len(set(lengths.values())) > 1:
        problems.add(f"the columns are of several lengths: {some_of([f'{n} {m}' for n, m in lengths.items()])}")
    problems.stop("the rows cannot be used", DataError)
    return found


def missing_columns(names: list[str], encoding: TableEncoding) -> list[str]:
    """What is wrong with the names of a table's columns, a sentence for each that is missing."""
    wanted = [column.name for column in encoding.columns]
    rest = [name for name in names if name not in wanted]
    return [f"there is no column {name!r}. {did_you_mean(name, rest)}" for name in wanted if name not in names]


def notes_of(table: Mapping[str, Values], encoding: TableEncoding) -> list[str]:
    """What training rows never had, and what becomes of it: one sentence each."""
    unknown, missing = [], []
    for column in encoding.columns:
        values = table[column.name]
        if not column.missing and (gone := int(missing_in(values).sum())):
            missing.append(f"{column.name!r} ({gone:,})")
        if column.levels is not None and not column.other:
            new = {value for value in values.tolist() if value is not None} - {*column.levels}
            rows = sum(value in new for value in values.tolist())
            unknown += [f"{column.name}: {some_of(sorted(map(repr, new)), _NAMED)} ({counted(rows, 'row')})"] * bool(
                new
            )
    notes = []
    if unknown:
        notes.append(f"categories that no training row had, treated as none of the known ones: {'; '.join(unknown)}")
    if missing:
        notes.append(
            f"values are missing in columns without missing values in training: {some_of(missing, _NAMED)}: numbers "
            "become the training mean, categories none"
        )
    return notes


def _names(rows: Any) -> list[str]:
    for attribute in ("column_names", "keys", "columns"):
        found = getattr(rows, attribute, None)
        if found is not None and hasattr(rows, "__getitem__"):
            return [str(name) for name in (found() if callable(found) else found)]
    raise DataError(
        f"rows are {type(rows).__name__}; expected columns by name (a mapping, or a pandas, polars or pyarrow table), "
        "or a tensor of numbers"
    )


def _like_training(values: Any, column: Column) -> Values:
    import pyarrow as pa
    from pyarrow import compute

    try:
        given = values if isinstance(values, pa.ChunkedArray | pa.Array) else pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"the column {column.name!r} cannot be read: {' '.join(str(error).split())[:200]}") from None
    given = given.combine_chunks() if isinstance(given, pa.ChunkedArray) else given
    if pa.types.is_dictionary(given.type):
        given = given.cast(given.type.value_type)
    if pa.types.is_large_string(given.type) or pa.types.is_string_view(given.type):
        given = given.cast(pa.string())
    if pa.types.is_string(given.type) and "" not in (column.levels or ()):
        # As in a CSV file, an empty text is a gap.
        given = compute.if_else(compute.equal(given, ""), pa.scalar(None, pa.string()), given)
    if column.levels is not None:
        try:
            return np.array(given.cast(pa.string()).to_pylist(), dtype=object)
        except pa.ArrowException:
            raise DataError(f"the column {column.name!r} is {given.type}; expected texts, as for training") from None
    if pa.types.is_null(given.type):
        return np.full(len(given), np.nan)
    if pa.types.is_string(given.type):
        try:
            given = compute.utf8_trim_whitespace(given).cast(pa.float64())
        except pa.ArrowException as error:  # which names the first that is none
            raise DataError(f"the column {column.name!r}: {error}; expected numbers, as for training") from None
    if not len(given):
        return np.empty(0)
    found = column_values(given, column.name) if given.null_count < len(given) else np.full(len(given), np.nan)
    if found.dtype == object:
        raise DataError(f"the column {column.name!r} is {given.type}; expected numbers, as for training")
    return found


def _checked(inputs: Tensor, description: ArrayDescription) -> Tensor:
    shape, whole = description.input_shape, not description.dtype.is_floating_point
    if inputs.ndim == len(shape):
        inputs = inputs[None]
    if tuple(inputs.shape[1:]) != shape:
        raise DataError(f"inputs are of shape {tuple(inputs.shape)}; expected {_shape_of(description)}")
    if whole and inputs.is_floating_point():
        raise DataError(f"inputs are {inputs.dtype}; the network takes whole numbers ({description.input_type})")
    inputs = inputs.to(description.dtype)
    if infinite := int(inputs.isinf().sum()):
        raise DataError(f"{infinite:,} inputs are infinite; expected finite numbers, and nan where a value is missing")
    return inputs


def _check_codes(inputs_BD: Tensor, encoding: TableEncoding) -> None:
    problems = Problems()
    for entry, count, numbers_B in zip(encoding.entries, encoding.cardinalities or (), inputs_BD.T, strict=False):
        if count and not bool(((numbers_B >= 0) & (numbers_B < count) & (numbers_B == numbers_B.round())).all()):
            problems.add(f"{entry}: expected whole numbers from 0 (an unknown category) to {count - 1}")
    problems.stop("the rows contain invalid category codes", DataError)


def _shape_of(description: ArrayDescription) -> str:
    return f"(rows, {', '.join(map(str, description.input_shape))}) of {description.input_type}"
