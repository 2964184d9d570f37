"""Files of rows as a user names them, each row answered: tables, and arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from distail.data.columns import TableEncoding
from distail.data.sources.arrays import read_npz
from distail.data.sources.table_file import column_names, read_table
from distail.errors import ConfigError, DataError, Problems, did_you_mean
from distail.inference.predict import Answer
from distail.inference.rows import columns_of, encoded, inputs_of, missing_columns, notes_of
from distail.inference.student import Student
from distail.models.array_description import ArrayDescription
from distail.training.predict import evaluation_batch_size

_TABLES = {".csv": "csv-table", ".tsv": "csv-table", ".txt": "csv-table", ".parquet": "parquet"}
_ARRAYS = ".npz"
_EXPECTED_ARRAYS = "expected a file of np.savez with X (N, ...)"


def places_of(identity: str | None) -> tuple[str, ...]:
    """The columns that say which row an answer is of."""
    return ("row",) if identity is None else ("row", "id")


def predict_rows(
    student: Student, paths: Sequence[Path], top: int, identity: str | None, tell: Callable[[str], None]
) -> Iterator[Answer]:
    """An answer for each row of each file, in order, with the row's number from 0.

    Args:
        paths: CSV or parquet for a student of tables, or `.npz` with `X`, the numbers that the columns become; for one
            of arrays `.npz` alone. Columns other than the student's are not used.
        identity: the column whose texts the answers have beside their row's number.
        tell: told of categories and gaps that no training row had.

    Raises:
        ConfigError: a file is not there, of another kind, or lacks columns; all is told before the first answer.
        DataError: what is in a file cannot be used.
    """
    problems = Problems()
    for path in paths:
        problems.attempt(lambda path=path: _check(path, student.encoding, identity), str(path))  # type: ignore[misc]
    problems.stop("no predictions")
    return _answers(student, paths, top, identity, tell)


def _answers(
    student: Student, paths: Sequence[Path], top: int, identity: str | None, tell: Callable[[str], None]
) -> Iterator[Answer]:
    told = student.description
    assert isinstance(told, ArrayDescription)
    size = evaluation_batch_size(told.input_shape)
    for path in paths:
        try:
            inputs, names = _read(path, told, student.encoding, identity, tell)
        except DataError as error:
            raise DataError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None
        for first in range(0, len(inputs), size):
            with torch.inference_mode():
                found = student.named(student.logits(inputs[first : first + size]), top)
            for row, prediction in enumerate(found, start=first):
                yield Answer(path, prediction, place=(row,) if names is None else (row, names[row]))


def _check(path: Path, encoding: TableEncoding | None, identity: str | None) -> None:
    kinds = [_ARRAYS] if encoding is None else [*_TABLES, _ARRAYS]
    suffix = path.suffix.lower()
    if path.is_dir():
        raise ConfigError(f"it is a folder; expected a file of {' or '.join(kinds)}")
    if not path.is_file():
        raise ConfigError(f"there is no such file (current directory {Path.cwd()}); expected {' or '.join(kinds)}")
    if suffix not in kinds:
        of = "arrays" if encoding is None else "tables"
        raise ConfigError(f"the student is for {of}; expected a file of {' or '.join(kinds)}")
    if suffix == _ARRAYS:
        if identity is not None:
            raise ConfigError(f"--id {identity}: a file of arrays has no columns; leave it out")
        return
    assert encoding is not None
    names = column_names(path, _TABLES[suffix])
    problems = missing_columns(names, encoding)
    if identity is not None and identity not in names:
        problems.append(f"--id: there is no column {identity!r}. {did_you_mean(identity, names)}")
    if problems:
        raise ConfigError("; ".join(problems), problems)


def _read(
    path: Path,
    told: ArrayDescription,
    encoding: TableEncoding | None,
    identity: str | None,
    tell: Callable[[str], None],
) -> tuple[Tensor, list[str] | None]:
    """Inputs (N, ...) of a file, and what the column `identity` says of each row."""
    if path.suffix.lower() == _ARRAYS:
        arrays = read_npz(path, _EXPECTED_ARRAYS)
        if "X" not in arrays:
            raise DataError(f"there is no array 'X'; {_EXPECTED_ARRAYS}")
        if arrays["X"].dtype.kind not in "fiub" or arrays["X"].ndim != len(told.input_shape) + 1:
            raise DataError(
                f"X is {arrays['X'].dtype} {arrays['X'].shape}; the student takes {(*'N', *told.input_shape)}"
            )
        return inputs_of(arrays["X"], told, encoding), None
    assert encoding is not None
    kind = _TABLES[path.suffix.lower()]
    categories = [column.name for column in encoding.columns if column.levels is not None]
    # As a text a column has other gaps than training saw in it: of one that is an input, too, the names are read apart.
    an_input = identity in [column.name for column in encoding.columns]
    names_as_text = () if identity is None else (identity,)
    rows = read_table(path, kind, () if an_input else names_as_text, categories)
    table = columns_of(rows, encoding)
    for note in notes_of(table, encoding):
        tell(f"{path}: {note}")
    inputs = encoded(table, encoding)
    if identity is None:
        return inputs, None
    named = (read_table(path, kind, names_as_text) if an_input else rows)[identity]
    return inputs, ["" if name is None else str(name) for name in named.to_pylist()]
