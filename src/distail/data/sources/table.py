"""`csv-table` and `parquet`: tables of numbers and categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distail.config.schema import Data
from distail.data.arrays import LabeledArrays
from distail.data.column_notes import column_notes, identifiers_note
from distail.data.columns import TableEncoding, Values, column_values
from distail.data.dataset import Source
from distail.data.labels import separated
from distail.data.sources.rows import Rows, as_written, check_groups, classes_of, group_codes, parts_of, source_of_rows
from distail.data.sources.table_columns import index_columns, is_unnamed, left_out_note, own_ids
from distail.data.sources.table_file import column_names, gaps_by_name, read_table
from distail.errors import DataError, Problems, counted, did_you_mean, some_of
from distail.outputs import MULTI_LABEL

_SUFFIX = {"csv-table": ".csv", "parquet": ".parquet"}
_SPLIT = "split"
_NAMED = 6
_YES, _NO = ("1", "1.0", "true"), ("0", "0.0", "false")


def load_table(options: Data) -> Source:
    """`root` is a CSV or parquet file, or a folder of `train`, `test` and perhaps `val` as such files.

    `label` names the column of the classes, `features` those that the network is given (by default all others but
    `split` and `group`). With `targets: multi_label` a label is any number of classes with `|` between them, or `label`
    names several columns of 0 and 1, one for each class. Numbers are standardized by the training rows, categories are
    one number for each level, or with `categories: embedded` one code (`distail.data.columns`).

    Raises:
        DataError: listing what cannot be used.
    """
    import pyarrow as pa

    suffix = _SUFFIX[options.name]
    root = options.root
    if root is None or not root.exists():
        what = "needs data.root" if root is None else f"has data.root {root}, which does not exist"
        raise DataError(f"data set {options.name!r} {what}; expected a {suffix} file, or a folder of train{suffix} and "
                        f"test{suffix}")  # fmt: skip
    if options.label is None:
        raise DataError(f"data set {options.name!r} needs data.label: the name of the column that holds the classes")
    files = _files(root, suffix)
    texts = (*_label_columns(options), *_group_column(options), _SPLIT)
    parts = {part: read_table(path, options.name, texts) for part, path in files.items()}
    if options.name == "csv-table":
        _check_gaps(parts, files, options)
    left_out = None
    if options.features is None:
        indexes = index_columns(parts, texts)
        empty = sum(map(is_unnamed, column_names(files[next(iter(files))], options.name)))
        empty -= sum(map(is_unnamed, next(iter(parts.values())).column_names))
        left_out = left_out_note(indexes, empty)
        parts = {
            part: table.drop_columns([name for name in indexes if name in table.column_names])
            for part, table in parts.items()
        }
    columns = next(iter(parts.values())).column_names
    for part, table in parts.items():
        if set(table.column_names) != set(columns):
            other = {*table.column_names} ^ {*columns}
            raise DataError(
                f"{files[part]} has other columns than {files[next(iter(files))]}: {some_of(sorted(other))}"
            )
    try:
        table = pa.concat_tables([each.select(columns) for each in parts.values()], promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(f"{root}: the files' columns are of different types: {error}") from None
    split = None
    if len(files) > 1:
        split = np.repeat(np.array(list(files), dtype=str), [len(each) for each in parts.values()])
    elif _SPLIT in columns:
        split = _texts(table, _SPLIT, root)
    names = [
        f"{files[part].name}, row {row}" if len(files) > 1 else f"row {row}"
        for part, each in parts.items()
        for row in range(len(each))
    ]
    return _source(table, split, options, root, left_out, np.array(names, dtype=np.bytes_))


def _source(
    table: Any,
    split: NDArray[np.str_] | None,
    options: Data,
    root: Path,
    left_out: str | None,
    row_names: NDArray[np.bytes_],
) -> Source:
    columns, labeled, group = table.column_names, _label_columns(options), options.group
    problems = Problems()
    aside = {*labeled, _SPLIT, *_group_column(options)}
    features = list(options.features or [name for name in columns if name not in aside])
    for key, name in [*(("label", name) for name in labeled), *(("features", name) for name in features)]:
        if name not in columns:
            problems.add(f"data.{key}: there is no column {name!r}. {did_you_mean(name, columns)}")
    for name in aside & {*features}:
        kind = "label" if name in labeled else "group" if name == group else name
        way = "; data.group=null makes no groups, or data.group names another column" if kind == "group" else ""
        problems.add(f"data.features: {name!r} is the column of the {kind}{way}")
    if not features:
        problems.add("no column is left for the network")
    if group is not None and group not in columns and group != Data.model_fields["group"].default:
        problems.add(f"data.group: there is no column {group!r}. {did_you_mean(group, columns)}; null for no groups")
    problems.stop(str(root), DataError)
    found: dict[str, Values] = {}
    for name in features:
        values = problems.attempt(lambda name=name: column_values(table.column(name), name))  # type: ignore[misc]
        if values is not None:
            found[name] = values
    problems.stop(str(root), DataError)
    labels, class_names = _labels(table, options, root)
    of_group = _texts(table, group, root) if group is not None and group in columns else None
    if of_group is not None:
        check_groups(of_group, f"{root}, {group}")
    codes = None if of_group is None else group_codes(of_group)
    training_N = parts_of(labels, split, codes, str(root), group=group) == "train"
    encoding = TableEncoding.learned(found, training_N, embedded=options.categories == "embedded")
    inputs = np.ascontiguousarray(encoding.encode(found))
    problems.attempt(lambda: encoding.check_finite(inputs))
    problems.stop(str(root), DataError)
    examples = LabeledArrays(
        torch.from_numpy(inputs), labels, row_names, encoding.plain, cardinalities=encoding.cardinalities
    )
    notes = column_notes(found, encoding, training_N, root.is_file() and split is not None)
    if options.features is None:
        identifiers = identifiers_note({name: values[training_N] for name, values in found.items()})
        notes += tuple(note for note in (left_out, identifiers) if note)
    rows = Rows(
        examples, class_names, split, of_group, notes, encoding.to_json(), one_file=root.is_file(), ids=own_ids(table)
    )
    return source_of_rows(rows, str(root))


def _check_gaps(parts: Mapping[str, Any], files: Mapping[str, Path], options: Data) -> None:
    """Let pass labels and groups of CSV files none of which is NA, nan or null.

    Raises:
        DataError: listing the columns in which some are.
    """
    labels = (options.label,) if isinstance(options.label, str) else ()  # of several, flags, all must be 0 or 1
    empty = ", leave the cells of rows without a class empty," if options.targets == MULTI_LABEL else ""
    problems = Problems()
    for part, table in parts.items():
        found = [
            *gaps_by_name(table, labels, f"Leave such rows out{empty} or give the class another name"),
            *gaps_by_name(table, _group_column(options), "Leave such rows out or give the group another name"),
        ]
        problems.add(*(f"{files[part].name}: {problem}" if len(parts) > 1 else problem for problem in found))
    problems.stop(str(options.root), DataError)


def _label_columns(options: Data) -> tuple[str, ...]:
    """The columns that say which classes a row has."""
    assert options.label is not None
    return (options.label,) if isinstance(options.label, str) else options.label


def _group_column(options: Data) -> tuple[str, ...]:
    """The column of groups, where there may be one."""
    return () if options.group is None else (options.group,)


def _labels(table: Any, options: Data, root: Path) -> tuple[Tensor, tuple[str, ...]]:
    """Labels (N,) int64 or, where a row may have several classes, (N, C) bool; and the class names."""
    import pyarrow as pa

    names, multi_label = _label_columns(options), options.targets == MULTI_LABEL
    if not isinstance(options.label, str):
        return _flags(table, names, root), names
    classes = _texts(table, options.label, root, empty=multi_label)
    if multi_label:
        return separated(classes)
    labels, class_names = classes_of(classes)
    kind = table.schema.field(options.label).type
    if options.name == "csv-table" or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        _check_no_measurement(class_names, options.label, root)
    return labels, class_names


def _check_no_measurement(class_names: Sequence[str], label: str, root: Path) -> None:
    try:
        numbers = [float(name) for name in class_names]
    except ValueError:
        return
    if fractions := [name for name, number in zip(class_names, numbers, strict=True) if number % 1 > 0]:
        raise DataError(
            f"{root}: {len(fractions):,} of the {len(numbers):,} different values of the label {label!r} are fractions "
            f"({some_of(fractions, 3)}); expected whole numbers or texts. Make classes of a measurement, or give its "
            "values names that are not numbers"
        )


def _flags(table: Any, names: Sequence[str], root: Path) -> Tensor:
    """Labels (N, C) bool of columns of 0 and 1, one for each class."""
    import pyarrow as pa

    expected = "expected 0 or 1, or false or true: whether a row has the class"
    problems, flags = Problems(), []
    for name in names:
        column = table.column(name)
        try:
            texts = column.cast(pa.string()).to_pylist()
        except pa.ArrowException:
            problems.add(f"the column {name!r} is {column.type}; {expected}")
            continue
        given_N = np.array(["" if text is None else text.strip().lower() for text in texts], dtype=str)
        has_N = np.isin(given_N, _YES)
        wrong = np.flatnonzero(~has_N & ~np.isin(given_N, _NO))
        if len(wrong):
            some = [f"{texts[row] or 'nothing'!r} in row {row:,}" for row in wrong[:_NAMED].tolist()]
            more = f" and {len(wrong) - _NAMED:,} more" if len(wrong) > _NAMED else ""
            problems.add(f"the column {name!r} holds {', '.join(some)}{more} (rows count from 0); {expected}")
        flags.append(has_N)
    problems.stop(str(root), DataError)
    return torch.from_numpy(np.column_stack(flags))


def _files(root: Path, suffix: str) -> dict[str, Path]:
    """Files by the name of their split; of a single file the name says nothing."""
    if root.is_file():
        return {"": root}
    names = ("train", "test", "val", "valid", "validation")
    found = {name: root / f"{name}{suffix}" for name in names if (root / f"{name}{suffix}").is_file()}
    if not {"train", "test"} <= found.keys():
        raise DataError(
            f"{root} is a folder without train{suffix} and test{suffix}; expected these, and perhaps val{suffix}, or "
            f"one {suffix} file"
        )
    return found


def _texts(table: Any, name: str, root: Path, *, empty: bool = False) -> NDArray[np.str_]:
    """A column of texts; with `empty` what is missing is an empty one."""
    import pyarrow as pa

    column = table.column(name)
    if empty and (pa.types.is_dictionary(column.type) or pa.types.is_large_string(column.type)):
        column = column.cast(pa.string())
    if empty and pa.types.is_string(column.type):
        column = column.fill_null("")
    if column.null_count:
        first = column.is_null().index(True).as_py()
        have = "has" if column.null_count == 1 else "have"
        raise DataError(
            f"{root}: {counted(column.null_count, 'row')} {have} no {name!r}, the first is row {first:,} (rows count "
            "from 0); expected one in every row"
        )
    try:
        texts = column.cast(pa.string()).to_pylist()
    except pa.ArrowException:
        raise DataError(f"{root}: the column {name!r} is {column.type}; expected texts or whole numbers") from None
    return as_written(texts)
