"""What users are told of columns of numbers and categories: what became of them, and what was lost on the way.

Shapes: N rows, D numbers of a row.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from distail.data.columns import MOST_CODES, MOST_LEVELS, TableEncoding, Values, missing_in
from distail.errors import counted, some_of

_NAMED = 6
MOST_COMPARED = 10_000
"""How many values of a column are looked at for what float32 loses: enough to see it, and quick for wide arrays."""
_FEW_LEVELS, _NEARLY_ALL = 5, 0.9
_FEWEST_ROWS = 20
"""Of fewer rows each may have another value by chance."""
_LISTED = 12
# Also with separators of thousands, a decimal comma, a currency or a percent sign.
_LIKE_NUMBER = re.compile(
    r"[+-]?[$€£]?(?=[.,]?\d)(?:\d{1,3}(?:[,.' ]\d{3})+|\d*)(?:[.,]\d*)?(?:e[+-]?\d+)?\s*%?", re.IGNORECASE
)
_NUMBER = re.compile(r"[+-]?(?=\.?\d)\d*(?:\.\d*)?(?:e[+-]?\d+)?", re.IGNORECASE)


def column_notes(
    found: Mapping[str, Values], encoding: TableEncoding, training_N: NDArray[np.bool_], split: bool
) -> tuple[str, ...]:
    """What became of the columns, and what was missing or lost."""
    numbers = [column.name for column in encoding.columns if column.levels is None]
    categories = [column.name for column in encoding.columns if column.levels is not None]
    known = {column.name: {*(column.levels or ())} for column in encoding.columns}
    notes = [
        f"{counted(len(numbers), 'column')} of numbers, {counted(len(categories), 'column')} of categories: "
        f"{len(encoding.entries)} numbers per row"
        + (", one code per category" if encoding.cardinalities else "")
        + ("; the column 'split' selects the training rows" if split else "")
    ]
    missing, unseen, others = [], [], [column.name for column in encoding.columns if column.other]
    for name, values in found.items():
        if gone := int(missing_in(values).sum()):
            missing.append(f"{name!r} ({gone:,})")
        if name in categories and name not in others:
            new = {value for value in values[~training_N].tolist() if value is not None} - known[name]
            unseen += [f"{name}={value!r}" for value in sorted(new)]
    trained = (
        (name, values[training_N].astype(np.float64)) for name, values in found.items() if values.dtype != object
    )
    odd = numbers_as_texts_note(found), rounded_note(trained), missing_note(missing, categories=True)
    notes += [note for note in odd if note]
    if unseen:
        notes.append(
            f"categories that no training row has, treated as none of the known ones: {some_of(unseen, _NAMED)}"
        )
    if others:
        most = MOST_CODES if encoding.cardinalities else MOST_LEVELS
        notes.append(f"only the {most:,} most frequent levels of {some_of(others, _NAMED)} are distinguished")
    return tuple(notes)


def missing_note(missing: Sequence[str], *, categories: bool = False) -> str | None:
    """Which columns lack values, and what becomes of these; None where none does.

    >>> missing_note(["'age' (2)"])
    "missing values in 'age' (2): numbers become the training mean"
    """
    if not missing:
        return None
    return f"missing values in {some_of(missing, _NAMED)}: numbers become the training mean" + (
        ", categories none, and where training rows lack a value a number, or code, of its own says so"
        if categories
        else ""
    )


def numbers_as_texts_note(table: Mapping[str, Values]) -> str | None:
    """Which columns of texts look like numbers nearly all, with what keeps them from being such; None where none does.

    >>> numbers_as_texts_note({"age": np.array([*"123456789", "?"], dtype=object)})
    "treated as categories although nearly all values look like numbers: 'age' ('?'). If they are numbers, leave \
missing values empty and write 1234.5"
    """
    found = []
    for name, values in table.items():
        if values.dtype != object:
            continue
        counts = Counter(value.strip() for value in values.tolist() if value is not None)
        alike = {level for level in counts if _LIKE_NUMBER.fullmatch(level)}
        share_of_levels, share_of_rows = len(alike), sum(counts[level] for level in alike)
        nearly = share_of_levels >= _NEARLY_ALL * len(counts) or share_of_rows >= _NEARLY_ALL * counts.total()
        if len(alike) <= _FEW_LEVELS or not nearly:
            continue
        by_count = [level for level, _ in counts.most_common()]
        none = [level for level in by_count if level not in alike][:1]
        other = [level for level in by_count if level in alike and not _NUMBER.fullmatch(level)][:1]
        found.append(f"{name!r} ({', '.join(map(repr, none + other or by_count[:1]))})")
    if not found:
        return None
    return (
        f"treated as categories although nearly all values look like numbers: {some_of(found, _NAMED)}. If they are "
        "numbers, leave missing values empty and write 1234.5"
    )


def rounded_note(columns: Iterable[tuple[str, NDArray[np.float64]]]) -> str | None:
    """Of which columns float32, which networks compute with, keeps half of the different values at most; or None.

    Looks at the first 10,000 values of each.

    >>> rounded_note([("time", 1.7e9 + np.arange(200.0))])
    "float32 cannot represent the differences in 'time' (of 200 different values 3 are left): subtract the smallest \
value, or divide, before you save them"
    """
    found = []
    for name, values in columns:
        some = values[:MOST_COMPARED]
        some = some[~np.isnan(some)]
        if not len(some):
            continue
        left = len(np.unique(some.astype(np.float32)))
        if 2 * left <= len(some) and 2 * left <= (before := len(np.unique(some))):
            found.append(f"{name!r} (of {before:,} different values {left:,} {'is' if left == 1 else 'are'} left)")
    if not found:
        return None
    return (
        f"float32 cannot represent the differences in {some_of(found, _NAMED)}: subtract the smallest value, or "
        "divide, before you save them"
    )


def identifiers_note(training: Mapping[str, Values]) -> str | None:
    """Which columns seem to name the rows: whole numbers, or texts, of which each training row has another.

    None where no column does, or of fewer than 20 rows.

    >>> identifiers_note({"id": np.arange(20.0), "age": np.arange(20.0) + 0.5})
    "every training row has another value in 'id'. If that names rows and measures nothing, leave it out: \
data.features=[age]"
    """
    found = [name for name, values in training.items() if len(values) >= _FEWEST_ROWS and _names_rows(name, values)]
    if not found:
        return None
    rest = [name for name in training if name not in found]
    way = f"data.features=[{','.join(rest)}]" if 0 < len(rest) <= _LISTED else "data.features lists those that stay"
    names, measures, it = ("names", "measures", "it") if len(found) == 1 else ("name", "measure", "them")
    return (
        f"every training row has another value in {some_of([repr(name) for name in found], _NAMED)}. If that {names} "
        f"rows and {measures} nothing, leave {it} out: {way}"
    )


def all_whole_and_different(numbers_N: NDArray[np.float64]) -> bool:
    """Whether numbers are whole, as those of rows are, and none occurs twice."""
    whole = bool(np.isfinite(numbers_N).all() and (numbers_N == np.rint(numbers_N)).all())
    return whole and len(np.unique(numbers_N)) == len(numbers_N)


def _names_rows(name: str, values: Values) -> bool:
    if values.dtype != object:
        return all_whole_and_different(values.astype(np.float64))
    texts = values.tolist()
    # Numbers with a decimal comma are told as such.
    return None not in texts and len({*texts}) == len(texts) and numbers_as_texts_note({name: values}) is None
