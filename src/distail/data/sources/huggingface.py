"""`huggingface`: image data sets in the layouts of the Hugging Face hub, from local files."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from distail.config.schema import Data
from distail.data.class_names import check_class_names, natural_sorted
from distail.data.dataset import Source
from distail.data.sources.encoded import ImageFile, load_files, with_groups, with_validation
from distail.data.sources.locate import locate
from distail.data.sources.parquet import TEST_NAMES, find_parquet, label_column, load_parquet
from distail.data.sources.rows import group_codes
from distail.data.splits import fixed_test_split
from distail.errors import DataError, counted, first_of, listed

_METADATA = ("metadata.csv", "metadata.jsonl")
_LAYOUTS = (
    "Layouts: train-00000-of-00002.parquet, ... and test-*.parquet (or validation), in data/ or not; or "
    "train/metadata.csv (or metadata.jsonl) with file_name and label, and test/ likewise. Class folders without "
    "metadata are `name: folder`."
)


class Row(NamedTuple):
    """An image as the metadata name it; `group` is None where they have no such column."""

    path: str
    label: str
    group: str | None


def load_huggingface(options: Data) -> Source:
    """`root` is a data set as `huggingface-cli download` leaves it: parquet files, or `imagefolder` with metadata.

    Parquet: columns `image` and `label`, class names from the ClassLabel in the schema's metadata. Metadata: a table of
    `file_name` and `label` beside the images; labels are names, or whole numbers; images that have the same in the
    column `data.group` (by default `group`, where there is one) are not torn apart. Without a test set a stratified
    fifth, the same for every run's seed, is it; beside `test` a split `validation`, `valid` or `val` is used as such.

    Raises:
        DataError: neither is there, or naming the rows that cannot be used.
    """
    place = locate(options, lambda place: place if place.is_dir() else None, hint=_LAYOUTS)
    if files := find_parquet(place):
        if options.stream == "always":
            raise DataError("data.stream: always, but images in parquet files are held in memory; set it auto")
        return load_parquet(files, _class_label_names(files.train[0]), options)
    folders = [folder for folder in (place / "train", place) if _metadata(folder) is not None]
    if not folders:
        raise DataError(f"{place} holds no parquet files and no {' or '.join(_METADATA)}. {_LAYOUTS}")
    tests = [place / name for name in TEST_NAMES if _metadata(place / name) is not None]
    own = tests[1:2] if tests and tests[0].name == TEST_NAMES[0] else []
    folder_of = {"train": folders[0]} | dict(zip(("test", "validation"), [*tests[:1], *own], strict=False))
    splits = {split: _rows(folder, place, options.group) for split, folder in folder_of.items()}
    names = _names([row.label for row in splits["train"]])
    label_of = {name: label for label, name in enumerate(names)}
    for split, rows in splits.items():
        if unknown := sorted({row.label for row in rows} - set(names)):
            raise DataError(
                f"{folder_of[split]} has the labels {', '.join(unknown[:8])}, of which {folders[0]} has no image"
            )
    group_of = _groups_of([row for rows in splits.values() for row in rows], options.group, place)
    parts = {split: [ImageFile(row.path, place, label_of[row.label]) for row in rows] for split, rows in splits.items()}
    notes = []
    if not tests:
        codes = group_codes(np.array([group_of[file.name] for file in parts["train"]])) if group_of else None
        kept, held_out = fixed_test_split(torch.tensor([file.label for file in parts["train"]]), codes)
        whole = parts["train"]
        parts = {"train": [whole[row] for row in kept.tolist()], "test": [whole[row] for row in held_out.tolist()]}
    elif tests[0].name != TEST_NAMES[0]:
        notes.append(f"{place} holds no test/: {tests[0].name}/ is the test set")
    validation = parts.get("validation", [])
    source = load_files("huggingface", [*parts["train"], *validation], parts["test"], names, options, notes)
    if validation:
        source = with_validation(source, {file.name for file in validation})
    return with_groups(source, group_of)


def _groups_of(rows: Sequence[Row], column: str, place: Path) -> dict[str, str] | None:
    """The group of each image's path; None where no table has such a column."""
    if all(row.group is None for row in rows):
        if column != Data.model_fields["group"].default:
            raise DataError(f"data.group: no metadata in {place} has a column {column!r}")
        return None
    without = [row.path for row in rows if not row.group]
    if without:
        raise DataError(listed(first_of(without), f"{counted(len(without), 'image')} of {place} without {column!r}:"))
    return {row.path: row.group or "" for row in rows}


def _class_label_names(file: Path) -> tuple[str, ...]:
    """The names of the ClassLabel that the schema's metadata holds of the label's column."""
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
    except Exception as error:  # pyarrow raises its own exceptions, and Python's
        raise DataError(f"{file} cannot be read as parquet: {' '.join(str(error).split())}") from error
    column = label_column(file, schema.names)
    try:
        told: Any = json.loads((schema.metadata or {})[b"huggingface"])
        names = told["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError):
        names = None
    if isinstance(names, dict):  # as older exports have it: {"0": "cat", ...}
        names = [names[key] for key in sorted(names, key=int)]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"{file} does not say what its labels are called: there is no ClassLabel of {column!r} in the schema's "
            "metadata (key 'huggingface'); save it with `datasets`, its label cast to ClassLabel"
        )
    check_class_names(names, str(file))
    return tuple(names)


def _metadata(folder: Path) -> Path | None:
    return next((folder / name for name in _METADATA if (folder / name).is_file()), None)


def _rows(folder: Path, place: Path, group: str) -> list[Row]:
    """The images of a split, their paths relative to `place`."""
    file = _metadata(folder)
    assert file is not None
    table = _read_csv(file) if file.suffix == ".csv" else _read_json_lines(file)
    rows, problems = [], []
    for line, row in table:
        path, label = (str(row.get(key) or "").strip() if row.get(key) != 0 else "0" for key in ("file_name", "label"))
        where = os.path.normpath(folder / path)
        if not path or not label:
            problems.append(f"line {line}: no {'file_name' if not path else 'label'}; the columns are {', '.join(row)}")
        elif not Path(where).is_relative_to(os.path.normpath(place)):
            problems.append(f"line {line}: {path!r} leaves {place}")
        elif not os.path.isfile(where):
            problems.append(f"line {line}: {path!r} is not a file in {folder}")
        else:
            together = None if row.get(group) is None else str(row[group]).strip()
            rows.append(Row(os.path.relpath(where, place).replace(os.sep, "/"), label, together))
    if problems or not rows:
        problems = first_of(problems) or ["it lists no image"]
        raise DataError(listed(problems, f"{counted(len(problems), 'problem')} in {file}:"))
    return rows


def _read_csv(file: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            return [(reader.line_num, row) for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as CSV in UTF-8: {error}") from error


def _read_json_lines(file: Path) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    try:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if line.strip():
                row = json.loads(line)
                rows.append((number, row if isinstance(row, dict) else {}))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: a line is no JSON in UTF-8: {error}") from error
    return rows


def _names(labels: Sequence[str]) -> list[str]:
    """The classes in natural order: by number where they are numbers."""
    names = natural_sorted(set(labels))
    check_class_names(names, "data set 'huggingface'")
    return names
