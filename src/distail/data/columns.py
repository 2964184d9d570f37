"""The columns of a table as numbers, and how they became them, so that other rows can be treated alike.

Shapes: N rows, D numbers of a row.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distail.errors import DataError, counted, some_of

MOST_LEVELS, MOST_CODES = 64, 1000
"""How many levels of a category are told apart at most: where each is a number of its own, and where it is a code."""
OTHER = "(other)"
MISSING = "(missing)"
CODE = "(code)"

Values = NDArray[np.float64] | NDArray[np.object_]
"""Of a column of numbers, float64 with nan where one is missing; of categories, texts, and None."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        levels: of a category, each a number that is 1 or 0, in this order; None of a column of numbers, which stays
            one number, nan where it is missing.
        missing: whether a further number says that the value is missing.
        other: whether a further number stands for every other level.
        embedded: whether a category is a single number instead, its code: from 1 on for the levels, then for others,
            then for a missing value, as far as there are such; 0 for whatever is none of these.
    """

    name: str
    levels: tuple[str, ...] | None = None
    missing: bool = False
    other: bool = False
    embedded: bool = False

    @property
    def entries(self) -> tuple[str, ...]:
        """What each of its numbers is called."""
        return (f"{self.name}={CODE}",) if self.embedded else self._told_apart

    @property
    def cardinality(self) -> int:
        """How many codes there are, 0 among them; 0 where it has none."""
        return 1 + len(self._told_apart) if self.embedded else 0

    @property
    def _told_apart(self) -> tuple[str, ...]:
        own = (self.name,) if self.levels is None else tuple(f"{self.name}={level}" for level in self.levels)
        own += (f"{self.name}={OTHER}",) * self.other
        return own + (f"{self.name}={MISSING}",) * self.missing


@dataclass(frozen=True)
class TableEncoding:
    """Encoding of the columns of a table as D numbers per row, fitted on the training rows.

    >>> table = {"age": np.array([4.0, np.nan]), "kind": np.array(["a", "b"], dtype=object)}
    >>> encoding = TableEncoding.learned(table, np.array([True, True]))
    >>> encoding.entries
    ('age', 'age=(missing)', 'kind=a', 'kind=b')
    >>> encoding.encode({"age": np.array([7.0]), "kind": np.array(["c"], dtype=object)}).tolist()
    [[7.0, 0.0, 0.0, 0.0]]
    >>> embedding = TableEncoding.learned(table, np.array([True, True]), embedded=True)
    >>> embedding.encode(table)[:, -1].tolist(), embedding.cardinalities
    ([1.0, 2.0], (0, 0, 3))
    """

    columns: tuple[Column, ...]

    @classmethod
    def learned(
        cls, table: Mapping[str, Values], training_N: NDArray[np.bool_], *, embedded: bool = False
    ) -> TableEncoding:
        """Fit on the training rows only: the levels of each column, and which columns have missing values.

        At most the 64 most frequent levels are kept (with `embedded`, 1,000); all others share one.
        """
        return cls(tuple(_column(name, values[training_N], embedded) for name, values in table.items()))

    learnt = learned  # the name before

    @property
    def entries(self) -> tuple[str, ...]:
        """Names (D,) of the encoded numbers."""
        return tuple(entry for column in self.columns for entry in column.entries)

    @property
    def plain(self) -> NDArray[np.bool_]:
        """(D,): which numbers are indicators of 0 or 1, which are not standardized."""
        return np.array([entry != column.name for column in self.columns for entry in column.entries], dtype=bool)

    @property
    def cardinalities(self) -> tuple[int, ...] | None:
        """(D,): the number of codes of an embedded category, 0 for other numbers; None without embedded categories."""
        found = tuple(column.cardinality for column in self.columns for _ in column.entries)
        return found if any(found) else None

    def encode(self, table: Mapping[str, Values]) -> NDArray[np.float32]:
        """(N, D); a level that is not known is 0 everywhere, or another where there are others."""
        return np.column_stack([part for column in self.columns for part in _encoded(column, table[column.name])])

    def check_finite(self, inputs_ND: NDArray[np.float32]) -> None:
        """Encoded rows have finite numbers, or NaN where one is missing.

        Raises:
            DataError: some are infinite; their columns are named.
        """
        columns = np.nonzero(np.isinf(inputs_ND))[1]
        if number := len(columns):
            where = [repr(self.entries[column]) for column in np.unique(columns)]
            raise DataError(
                f"{counted(number, 'number')} {'is' if number == 1 else 'are'} infinite, or too large for float32, "
                f"in {some_of(where)}; expected finite ones"
            )

    def to_json(self) -> str:
        """As text that `from_json` reads."""
        told = [asdict(column) for column in self.columns]
        for each in told:
            if not each["embedded"]:  # as in files of before
                del each["embedded"]
        return json.dumps(told)

    @classmethod
    def from_json(cls, text: str) -> TableEncoding:
        """What `to_json` wrote.

        Raises:
            DataError: it is damaged.
        """
        try:
            stored = json.loads(text)
        except (ValueError, RecursionError):
            stored = None
        if not isinstance(stored, list) or not stored or not all(map(_is_column, stored)):
            raise DataError(f"columns: {text[:80]!r}; expected what TableEncoding.to_json writes")
        levels = (None if each["levels"] is None else tuple(each["levels"]) for each in stored)
        return cls(tuple(Column(**{**each, "levels": known}) for each, known in zip(stored, levels, strict=True)))


def missing_in(values: Values) -> NDArray[np.bool_]:
    """(N,): where a column has no value."""
    if values.dtype != object:
        return np.isnan(values.astype(np.float64))
    return np.array([value is None for value in values.tolist()], dtype=bool)


def column_values(column: Any, name: str) -> Values:
    """A column of a pyarrow table as numbers or as texts.

    Raises:
        DataError: it is neither, or has no value at all.
    """
    import pyarrow as pa

    kind = column.type
    if column.null_count == len(column):
        raise DataError(f"the column {name!r} has no values; name the other columns in data.features")
    if (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
    ):
        wide = column.cast(pa.int8()) if pa.types.is_boolean(kind) else column
        numbers: NDArray[np.float64] = wide.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return numbers
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(column.to_pylist(), dtype=object)
    raise DataError(
        f"the column {name!r} is {kind}; expected numbers, texts or booleans. Name the other columns in data.features, "
        "or convert it to numbers"
    )


def _is_column(stored: Any) -> bool:
    kinds = {"name": str, "levels": list | None, "missing": bool, "other": bool, "embedded": bool}
    if not isinstance(stored, dict) or {"embedded", *stored} != kinds.keys():
        return False
    fits = all(isinstance(stored[key], kind) for key, kind in kinds.items() if key in stored)
    if stored.get("embedded") and stored["levels"] is None:
        return False
    return fits and all(isinstance(level, str) for level in stored["levels"] or ())


def _column(name: str, values: Values, embedded: bool) -> Column:
    missing = bool(missing_in(values).any())
    if values.dtype != object:
        return Column(name, missing=missing)
    counts = Counter(value for value in values.tolist() if value is not None)
    most = MOST_CODES if embedded else MOST_LEVELS
    frequent = sorted(counts, key=lambda level: (-counts[level], level))[:most]
    return Column(name, tuple(sorted(frequent)), missing=missing, other=len(counts) > most, embedded=embedded)


def _encoded(column: Column, values: Values) -> list[NDArray[np.float32]]:
    """(N,) for each of its numbers."""
    if column.levels is None:
        with np.errstate(over="ignore"):  # check_finite tells it
            numbers = values.astype(np.float32)
        return [numbers, *([np.isnan(numbers).astype(np.float32)] if column.missing else [])]
    place = {level: number for number, level in enumerate(column.levels)}
    if column.missing:
        place[None] = len(place) + column.other  # type: ignore[index]
    unknown = len(column.levels) if column.other else -1
    where_N = np.array([place.get(value, unknown if value is not None else -1) for value in values.tolist()])
    if column.embedded:
        return [(where_N + 1).astype(np.float32)]
    return [(where_N == number).astype(np.float32) for number in range(len(column.entries))]
