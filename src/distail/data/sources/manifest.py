"""`csv`: images listed in a manifest."""

from __future__ import annotations

import csv
import posixpath
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from unicodedata import normalize

import numpy as np

from distail.config.schema import Data
from distail.data.class_names import check_class_names
from distail.data.dataset import Source
from distail.data.labels import is_multi_label, separated
from distail.data.sources.encoded import ImageFile, load_files, with_file_rows, with_groups, with_validation
from distail.data.sources.locate import way_out
from distail.data.sources.rows import PARTS, SPLITS, check_split, classes_of, group_codes, is_no_group, parts_of
from distail.data.sources.table_file import DELIMITERS
from distail.errors import DataError, counted, did_you_mean, first_of, listed
from distail.outputs import MULTI_LABEL

_NO_LABEL = "there is no label"


@dataclass(frozen=True)
class Row:
    """One image: `line` is where it ends in the file; `split`, `group`: None where the manifest has no such column."""

    line: int
    path: str
    label: str
    split: str | None
    group: str | None = None


def load_manifest(options: Data) -> Source:
    """`root` is a CSV file with the columns `path`, `label` and optionally `split` (`train`, `val` or `test`).

    Images that have the same in the column `data.group` (by default `group`, where there is one) are not torn apart.

    With `targets: multi_label` a label is any number of classes with `|` between them, none of them where it is empty.

    Tabs or semicolons may stand for its commas. Paths are relative to the manifest's folder and may not leave it, by ..
    or by symbolic links either, unless `allow_outside_root`. Labels may be any text: class names are the
    distinct labels in natural order. Without `split` a stratified fifth, the same for every run's seed, is the test
    set.

    Raises:
        DataError: listing the rows that cannot be used.
    """
    root = options.root
    if root is None:
        raise DataError("data set 'csv' needs data.root: the path of the manifest, a CSV file with columns path,label")
    if not root.is_file():
        raise DataError(f"data.root is {root}, which is not a file; expected a CSV file with columns path,label")
    rows = read_rows(root, options.group)
    rows = [replace(row, path=_as_on_disk(row.path, root.parent)) for row in rows]
    _check_rows(rows, root, options)
    split = None if rows[0].split is None else np.array([row.split for row in rows])
    if split is not None:
        check_split(split, str(root))
    texts = np.array([row.label for row in rows])
    labels, names = separated(texts) if options.targets == MULTI_LABEL else classes_of(texts)
    check_class_names(names, str(root))
    found = map(tuple, labels.tolist()) if is_multi_label(labels) else labels.tolist()
    files = [ImageFile(row.path, root.parent, label) for row, label in zip(rows, found, strict=True)]
    codes = None if rows[0].group is None else group_codes(np.array([row.group for row in rows]))
    part_of = parts_of(labels, split, codes, str(root), noun="image", group=options.group)
    train, held_out, test = ([files[row] for row in np.flatnonzero(part_of == part)] for part in PARTS)
    source = load_files("csv", [*train, *held_out], test, names, options)
    if held_out:
        source = with_validation(source, {file.name for file in held_out})
    source = with_file_rows(source, {row.path: number for number, row in enumerate(rows)})
    if codes is None:
        return source
    return with_groups(source, {row.path: row.group or "" for row in rows})


def read_rows(manifest: Path, group: str | None = "group") -> list[Row]:
    """All rows, stripped of surrounding spaces; `group` names the column of groups, which need not be there.

    Raises:
        DataError: the file is no such table, or lists nothing.
    """
    table = listed_rows(manifest, ("path", "label"), ("split",))
    columns = list(table[0][1])
    if group not in {*columns, None} and group != Data.model_fields["group"].default:
        raise DataError(f"data.group: {manifest} has no column {group!r}. {did_you_mean(str(group), columns)}")
    return [_row(line, field_of, group) for line, field_of in table]


def listed_rows(file: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file, each with the line where it ends; tabs or semicolons may stand for its commas.

    Raises:
        DataError: it is no such table, has not the columns that are needed, or lists nothing.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            header = lines.readline()
            delimiter = next((d for d in DELIMITERS if {*needed} <= {*_columns(header, d)}), ",")
            columns = _columns(header, delimiter)
            _check_columns(columns, file, needed, optional)
            lines.seek(0)
            reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
            next(reader)
            table = [(reader.line_num, fields) for fields in reader if fields]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as CSV in UTF-8: {error}") from error
    if not table:
        raise DataError(f"{file} lists no image")
    too_long = [
        f"line {line}: {len(fields)} fields, but {len(columns)} columns; put text that holds {delimiter!r} in quotes"
        for line, fields in table
        if len(fields) > len(columns)
    ]
    if too_long:
        raise DataError(listed(first_of(too_long), f"{counted(len(too_long), 'problem')} in {file}:"))
    return [(line, dict(zip_longest(columns, fields, fillvalue=""))) for line, fields in table]


def _row(line: int, field_of: dict[str, str], group: str | None) -> Row:
    split, together = field_of.get("split"), None if group is None else field_of.get(group)
    return Row(
        line,
        field_of["path"].strip(),
        normalize("NFC", field_of["label"].strip()),
        None if split is None else split.strip(),
        None if together is None else together.strip(),
    )


def _columns(header: str, delimiter: str) -> list[str]:
    return [name.strip() for name in next(csv.reader([header], delimiter=delimiter, skipinitialspace=True), [])]


def _check_columns(columns: list[str], file: Path, needed: Sequence[str], optional: Sequence[str]) -> None:
    expected = f"expected {','.join(needed)}" + "".join(f" and optionally {name}" for name in optional)
    missing = [name for name in needed if name not in columns]
    if missing:
        raise DataError(
            f"{file} has the columns {', '.join(columns) or '(none)'}; missing: {', '.join(missing)} ({expected})"
        )
    twice = [name for name in (*needed, *optional) if columns.count(name) > 1]
    if twice:
        raise DataError(f"{file} has the column {' and '.join(twice)} more than once; {expected}")


def _as_on_disk(path: str, folder: Path) -> str:
    """The path with its accents composed (NFC) or apart (NFD), as the file has them; if there is none, as it is."""
    if path.isascii():
        return path
    spellings = (path, normalize("NFC", path), normalize("NFD", path))
    try:
        return next((spelling for spelling in spellings if (folder / spelling).exists()), path)
    except (OSError, ValueError):  # too long, or no path at all: told with the others
        return path


def _check_rows(rows: list[Row], manifest: Path, options: Data) -> None:
    inside = None if options.allow_outside_root else manifest.parent.resolve()
    problems = [
        f"line {row.line}: {problem}"
        for row in rows
        for problem in _problems(row, manifest.parent, inside)
        if problem != _NO_LABEL or options.targets != MULTI_LABEL
    ]
    lines_of = defaultdict(list)
    for row in rows:
        lines_of[posixpath.normpath(row.path) if row.path else ""].append(row.line)
    problems += [
        f"lines {', '.join(str(line) for line in lines)}: {path!r} is listed more than once"
        for path, lines in lines_of.items()
        if path and len(lines) > 1
    ]
    if problems:
        raise DataError(listed(first_of(problems), f"{counted(len(problems), 'problem')} in {manifest}:"))


def _problems(row: Row, folder: Path, inside: Path | None) -> list[str]:
    problems = []
    if not row.label:
        problems.append(_NO_LABEL)
    if row.group is not None and is_no_group(row.group):
        problems.append("there is no group" + (f", but {row.group!r}" if row.group else ""))
    if row.split is not None and row.split not in SPLITS:
        problems.append(f"split is {row.split!r}; expected {', '.join(SPLITS)}")
    if problem := _path_problem(row.path, folder, inside):
        problems.append(problem)
    return problems


def _path_problem(path: str, folder: Path, inside: Path | None) -> str | None:
    if not path:
        return "there is no path"
    if inside is not None and (problem := _way_out(path, folder, inside)):
        return f"{path!r} {problem}; data.allow_outside_root: true allows it"
    try:
        if (folder / path).is_file():
            return None
        exists = (folder / path).exists()
    except OSError as error:
        return f"{path!r}: {error.strerror or error}"
    slashes = " (folders are separated by / here)" if "\\" in path else ""
    return f"{path!r} is not a file" if exists else f"{path!r} does not exist{slashes}"


def _way_out(path: str, folder: Path, inside: Path) -> str | None:
    if told := way_out(path, "the manifest's folder"):
        return told
    try:
        resolved = (folder / path).resolve()
    except (OSError, RuntimeError, ValueError):  # a link to itself, or no path at all: it does not exist
        return None
    return None if resolved.is_relative_to(inside) else "leaves the manifest's folder by a symbolic link"
