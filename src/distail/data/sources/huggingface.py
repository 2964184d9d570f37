"""`huggingface`: image data sets in the layouts of the Hugging Face hub, from local files."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from distail.config.schema import Data
from distail.data.class_names import check_class_names, natural_sorted
from distail.data.dataset import Source
from distail.data.sources.encoded import ImageFile, load_files, with_file_rows, with_groups, with_validation
from distail.data.sources.locate import locate
from distail.data.sources.manifest import listed_rows
from distail.data.sources.parquet import find_parquet, groups_of, label_column, load_parquet
from distail.data.sources.rows import group_codes, is_no_group
from distail.data.splits import fixed_test_split
from distail.errors import DataError, counted, first_of, listed, some_of

_METADATA = ("metadata.csv", "metadata.jsonl")
_LAYOUTS = (
    "Layouts: train-00000-of-00002.parquet, ... and test-*.parquet (or validation), in data/ or not; or "
    "train/metadata.csv (or metadata.jsonl) with file_name and label, and test/ likewise; or one metadata.csv of all, "
    "whose file names may begin with train/ and test/. Class folders without metadata are `name: folder`."
)
_TRAIN = ("train", "training")
_SPLIT_OF = {
    **dict.fromkeys(_TRAIN, "train"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
}
"""What a folder of a split may be called, as the `imagefolder` of `datasets` has it."""


class Row(NamedTuple):
    """An image as the metadata name it, in which line; `group` is None where they have no such column."""

    path: str
    label: str
    group: str | None
    line: str


def load_huggingface(options: Data) -> Source:
    """`root` is a data set as `huggingface-cli download` leaves it: parquet files, or `imagefolder` with metadata.

    Parquet: columns `image` and `label`, class names from the ClassLabel in the schema's metadata. Metadata: a table of
    `file_name` and `label` beside the images; labels are names, or whole numbers. Images that have the same in the
    column `data.group` (by default `group`, where there is one) are not torn apart. Splits are the folders `train`,
    `test` and `validation`, or what `datasets` calls them else, each with metadata of its own, or those in which the
    images of one table lie. Beside `test` the validation split is used as such, else as the test set. Without either
    a stratified fifth, the same for every run's seed, is the test set.

    Raises:
        DataError: neither is there, or naming the rows that cannot be used.
    """
    place = locate(options, lambda place: place if place.is_dir() else None, hint=_LAYOUTS)
    if files := find_parquet(place):
        if options.stream == "always":
            raise DataError("data.stream: always, but images in parquet files are held in memory; set it auto")
        source = load_parquet(files, _common_class_names([*files.train, *files.validation, *files.test]), options)
        return with_groups(source, groups_of(files, options.group))
    splits = _splits(place, options.group)
    notes = []
    if (unused := _metadata(place)) and any(_metadata(place / name) for name in _TRAIN):
        notes.append(f"{unused} is not read: train/ has metadata of its own")
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
        notes.append(f"{place} holds no test/: validation/ is the test set")
    names = _names([row.label for row in splits["train"]])
    label_of = {name: label for label, name in enumerate(names)}
    for split, rows in splits.items():
        if unknown := sorted({row.label for row in rows} - set(names)):
            raise DataError(f"{place}: {split} has the labels {some_of(unknown)}, of which train has no image")
    group_of = _groups_of([row for rows in splits.values() for row in rows], options.group, place)
    row_of: dict[str, int] | None = None
    parts = {split: [ImageFile(row.path, place, label_of[row.label]) for row in rows] for split, rows in splits.items()}
    if "test" not in parts:
        codes = group_codes(np.array([group_of[file.name] for file in parts["train"]])) if group_of else None
        kept, held_out = fixed_test_split(
            torch.tensor([file.label for file in parts["train"]]), codes, group=options.group or ""
        )
        whole = parts["train"]
        row_of = {file.name: row for row, file in enumerate(whole)}
        parts = {"train": [whole[row] for row in kept.tolist()], "test": [whole[row] for row in held_out.tolist()]}
    validation = parts.get("validation", [])
    source = load_files("huggingface", [*parts["train"], *validation], parts["test"], names, options, notes)
    if validation:
        source = with_validation(source, {file.name for file in validation})
    if row_of is not None:
        source = with_file_rows(source, row_of)
    return with_groups(source, group_of)


def _splits(place: Path, group: str | None) -> dict[str, list[Row]]:
    """The images of each split, `train` among them, each image once."""
    tables = [(split, place / name) for name, split in _SPLIT_OF.items() if _metadata(place / name) is not None]
    splits: dict[str, list[Row]] = defaultdict(list)
    if all(split != "train" for split, _ in tables):
        if (file := _metadata(place)) is None:
            raise DataError(f"{place} holds no parquet files and no {' or '.join(_METADATA)}. {_LAYOUTS}")
        splits |= _by_folder(_rows(place, place, group), file)
    for split, folder in tables:
        splits[split] += _rows(folder, place, group)
    lines_of = defaultdict(list)
    for row in (row for rows in splits.values() for row in rows):
        lines_of[row.path].append(row.line)
    twice = [f"{path!r}: {', '.join(lines)}" for path, lines in lines_of.items() if len(lines) > 1]
    if twice:
        raise DataError(listed(first_of(twice), f"{counted(len(twice), 'image')} of {place} listed more than once:"))
    return splits


def _by_folder(rows: Sequence[Row], file: Path) -> Mapping[str, list[Row]]:
    """The images of one table by the outermost folder of each that is called as a split; else all are for training."""
    found: dict[str | None, list[Row]] = defaultdict(list)
    for row in rows:
        folders = (folder.lower() for folder in row.path.split("/")[:-1])
        found[next((_SPLIT_OF[folder] for folder in folders if folder in _SPLIT_OF), None)].append(row)
    if found.keys() <= {"train", None}:
        return {"train": list(rows)}
    held_out = " and ".join(split for split in ("validation", "test") if split in found)
    if outside := found.get(None):
        raise DataError(
            f"{file} has images in folders of {held_out}, and {counted(len(outside), 'image')} in the folder of no "
            f"split, such as {outside[0].path!r}; expected all of them in train/, test/ or validation/, or none"
        )
    if "train" not in found:
        raise DataError(f"{file} has images in folders of {held_out}, and none in train/; expected some")
    return {split: of_split for split, of_split in found.items() if split is not None}


def _groups_of(rows: Sequence[Row], column: str | None, place: Path) -> dict[str, str] | None:
    """The group of each image's path; None where no table has such a column."""
    if all(row.group is None for row in rows):
        if column not in (None, Data.model_fields["group"].default):
            raise DataError(f"data.group: no metadata in {place} has a column {column!r}")
        return None
    without = [row.path for row in rows if is_no_group(row.group)]
    if without:
        raise DataError(listed(first_of(without), f"{counted(len(without), 'image')} of {place} without {column!r}:"))
    return {row.path: row.group or "" for row in rows}


def _common_class_names(files: Sequence[Path]) -> tuple[str, ...]:
    """The class names of the first file, which no other file may number in another way."""
    first, *others = files
    names = _class_label_names(first)
    if names is None:
        column = label_column(first, _schema(first).names)
        raise DataError(
            f"{first} does not contain the names of its labels: there is no ClassLabel of {column!r} in the schema's "
            "metadata (key 'huggingface'); save it with `datasets`, its label cast to ClassLabel"
        )
    check_class_names(names, str(first))
    for file in others:
        own = _class_label_names(file)
        if own is not None and own != names:
            raise DataError(
                f"{file} numbers its classes {some_of(own)}, but {first} {some_of(names)}; expected the same "
                "ClassLabel in all files: cast the labels of all splits to one"
            )
    return names


def _class_label_names(file: Path) -> tuple[str, ...] | None:
    """The names of the ClassLabel that the schema's metadata holds of the label's column."""
    schema = _schema(file)
    column = label_column(file, schema.names)
    try:
        told: Any = json.loads((schema.metadata or {})[b"huggingface"])
        names = told["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError):
        names = None
    if isinstance(names, dict):  # as older exports have it: {"0": "cat", ...}
        names = [names[key] for key in sorted(names, key=int)]
    usable = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    return tuple(names) if usable else None


def _schema(file: Path) -> Any:
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(file)
    except Exception as error:  # pyarrow raises its own exceptions, and Python's
        raise DataError(f"{file} cannot be read as parquet: {' '.join(str(error).split())}") from error


def _metadata(folder: Path) -> Path | None:
    return next((folder / name for name in _METADATA if (folder / name).is_file()), None)


def _rows(folder: Path, place: Path, group: str | None) -> list[Row]:
    """The images of a split, their paths relative to `place`."""
    file = _metadata(folder)
    assert file is not None
    table: Sequence[tuple[int, Mapping[str, Any]]] = (
        listed_rows(file, ("file_name", "label")) if file.suffix == ".csv" else _read_json_lines(file)
    )
    rows, problems = [], []
    for line, row in table:
        path, label = (_text(row.get(key)) for key in ("file_name", "label"))
        where = os.path.normpath(folder / path)
        if not path or not label:
            problems.append(f"line {line}: no {'file_name' if not path else 'label'}; the columns are {', '.join(row)}")
        elif not Path(where).is_relative_to(os.path.normpath(place)):
            problems.append(f"line {line}: {path!r} leaves {place}")
        elif not os.path.isfile(where):
            problems.append(f"line {line}: {path!r} is not a file in {folder}")
        else:
            together = None if group is None or row.get(group) is None else str(row[group]).strip()
            said = f"{file.relative_to(place)}, line {line}"
            rows.append(Row(os.path.relpath(where, place).replace(os.sep, "/"), label, together, said))
    if problems or not rows:
        problems = first_of(problems) or ["it lists no image"]
        raise DataError(listed(problems, f"{counted(len(problems), 'problem')} in {file}:"))
    return rows


def _text(value: Any) -> str:
    """What stands in a cell; pandas writes whole numbers with .0 where a column has gaps."""
    whole = isinstance(value, float) and value.is_integer()
    return "" if value is None else str(int(value) if whole else value).strip()


def _read_json_lines(file: Path) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    try:
        for number, line in enumerate(file.read_text(encoding="utf-8-sig").split("\n"), start=1):
            if line.strip():
                row = json.loads(line)
                rows.append((number, row if isinstance(row, dict) else {}))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: a line is not JSON in UTF-8: {error}") from error
    return rows


def _names(labels: Sequence[str]) -> list[str]:
    """The classes in natural order: by number where they are numbers."""
    names = natural_sorted(set(labels))
    check_class_names(names, "data set 'huggingface'")
    return names
