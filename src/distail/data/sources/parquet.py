"""Parquet files of encoded images and labels, whole or in parts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distail.config.schema import Data
from distail.data.cache import cached, fingerprint
from distail.data.dataset import Source, image_names
from distail.data.decode import EncodedImage, decoding_options
from distail.data.sources.encoded import EncodedSplit, decode_source, with_validation
from distail.data.sources.rows import check_groups
from distail.errors import DataError, did_you_mean, first_of, listed, some_of

_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("fine_label", "label")
_ROWS_AT_ONCE = 256
_ROW = ", row "  # between the name of a file and the place in it: what an image is called
TEST_NAMES = ("test", "validation", "valid", "val")
"""What a test set is called, the preferred name first."""
# train-00000-of-00002.parquet, and as older exports have it, train-00000-of-00002-1a2b3c4d.parquet.
_NUMBERED = re.compile(r"-([0-9]{1,6})-of-([0-9]{1,6})(-[0-9a-f]+)?\.parquet")


@dataclass(frozen=True)
class ParquetFiles:
    """The files of the splits in their order, and what is odd about them."""

    train: list[Path]
    test: list[Path]
    notes: tuple[str, ...]
    validation: Sequence[Path] = ()


def find_parquet(place: Path) -> ParquetFiles | None:
    """`train.parquet`, or all of `train-*.parquet`, and `test` or `validation` likewise; in `place` or a folder in it.

    Beside `test` the first of `validation`, `valid` and `val` is the data's own validation set.

    Raises:
        DataError: several folders hold such files, parts are missing or double, or there is no test set.
    """
    if not place.is_dir():
        return None
    inner = sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [folder for folder in ([place] if _files(place, "train") else inner) if _files(folder, "train")]
    if not found:
        return None
    if len(found) > 1:
        raise DataError(
            f"{place} holds training images as parquet in {len(found)} folders: "
            f"{some_of([f'{folder.name}/' for folder in found])}; set data.root to the one that is meant"
        )
    folder = found[0]
    tests = [name for name in TEST_NAMES if _files(folder, name)]
    held_out = tests[1:2] if tests[:1] == [TEST_NAMES[0]] else []
    problems = [
        problem for split in ("train", *tests[:1], *held_out) for problem in _problems(_files(folder, split), split)
    ]
    if problems:
        raise DataError(listed(first_of(problems), f"the parquet files in {folder} are not one whole data set:"))
    train = _files(folder, "train")
    if not tests:
        raise DataError(
            f"{folder} holds {train[0].name} but no test.parquet or test-*.parquet (or validation) beside it"
        )
    notes = [f"{folder} holds no test.parquet or test-*.parquet: {tests[0]} is the test set"] * (tests[0] != "test")
    notes += [
        f"{folder}: {tests[0]} is the test set, and {other} is not used" for other in tests[1:] if other not in held_out
    ]
    validation = [file for name in held_out for file in _files(folder, name)]
    return ParquetFiles(train, _files(folder, tests[0]), tuple(notes), validation)


def _files(folder: Path, split: str) -> list[Path]:
    whole = folder / f"{split}.parquet"
    return [whole] * whole.is_file() + sorted(folder.glob(f"{split}-*.parquet"))


def _problems(files: Sequence[Path], split: str) -> list[str]:
    """What keeps these files from being the parts of one export, each once."""
    exports: dict[str, list[str]] = defaultdict(list)
    part: dict[str, int] = {}
    for file in files:
        numbered = _NUMBERED.fullmatch(file.name.removeprefix(split))
        if numbered:
            part[file.name] = int(numbered[1])
        export = f"-of-{numbered[2]}" if numbered else "whole" if file.name == f"{split}.parquet" else "parts"
        exports[export].append(file.name)
    if len(exports) > 1:
        each = "; ".join(some_of(names, 3) for names in exports.values())
        return [f"{split} exists {len(exports)} times ({each}): keep one"]
    ((export, names),) = exports.items()
    if not export.startswith("-of-"):
        return []
    width, total = len(export.removeprefix("-of-")), int(export.removeprefix("-of-"))
    named: dict[int, list[str]] = defaultdict(list)
    for name in names:
        named[part[name]].append(name)
    problems = [f"{split}-{n:0{width}}{export}.parquet is missing" for n in range(total) if n not in named]
    problems += [f"{' and '.join(same)} are the same part: keep one" for same in named.values() if len(same) > 1]
    return problems + [f"{same[0]}: there is no such part" for n, same in named.items() if n >= total]


def load_parquet(files: ParquetFiles, class_names: tuple[str, ...], options: Data) -> Source:
    """The splits, or from the cache.

    Raises:
        DataError: columns are missing, or files are damaged.
    """
    train = [*files.train, *files.validation]
    key = fingerprint(
        ["parquet", *decoding_options(options), len(train)],
        [(path.name, path) for path in (*train, *files.test)],
    )
    source = cached(options.name, key, lambda: decode_source(_read(train), _read(files.test), class_names, options))
    if files.validation:
        of_validation = {path.name for path in files.validation}
        names = image_names(source.train, "train")
        source = with_validation(source, {name for name in names if name.rpartition(_ROW)[0] in of_validation})
    return replace(source, notes=(*files.notes, *source.notes))


def groups_of(files: ParquetFiles, column: str | None) -> dict[str, str] | None:
    """The group of each image, by what it is called; None where no file has such a column.

    Raises:
        DataError: a column that was asked for is in none of the files, or only in some; or rows have no group.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if column is None:
        return None
    paths = [*files.train, *files.validation, *files.test]
    without = [path for path in paths if column not in pq.read_schema(path).names]
    if len(without) == len(paths):
        if column != Data.model_fields["group"].default:
            columns = pq.read_schema(paths[0]).names
            raise DataError(f"data.group: {paths[0]} has no column {column!r}. {did_you_mean(column, columns)}")
        return None
    if without:
        raise DataError(f"{without[0]} has no column {column!r}, which other files have")
    found: dict[str, str] = {}
    for path in paths:
        table = pq.read_table(path, columns=[column]).column(0)
        try:
            texts = table.cast(pa.string()).to_pylist()
        except pa.ArrowException:
            raise DataError(f"{path}: the column {column!r} is {table.type}; expected texts or whole numbers") from None
        groups = np.array(["" if text is None else text.strip() for text in texts], dtype=str)
        check_groups(groups, f"{path}, column {column!r}")
        found |= {f"{path.name}{_ROW}{row}": group for row, group in enumerate(groups.tolist())}
    return found


def _read(paths: list[Path]) -> EncodedSplit:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images: list[EncodedImage] = []
    labels: list[int] = []
    for path in paths:
        before = len(images)
        try:
            with pq.ParquetFile(path) as file:
                image_column, label = _columns(path, file.schema_arrow)
                for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[image_column, label]):
                    rows = batch.column(image_column).to_pylist()
                    images += [
                        EncodedImage(f"{path.name}{_ROW}{row}", _reader(value))
                        for row, value in enumerate(rows, start=len(images) - before)
                    ]
                    found = batch.column(label)
                    if found.null_count:
                        raise DataError(f"{path}: the column {label} must hold a whole number in every row")
                    labels += found.cast(pa.int64()).to_pylist()
        except DataError:
            raise
        # Of a damaged file pyarrow raises its own exceptions, which are several of Python's as well, and Python's.
        except Exception as error:
            raise DataError(f"{path} cannot be read as parquet: {' '.join(str(error).split())}") from error
    return EncodedSplit(images, labels)


def _columns(path: Path, schema: Any) -> tuple[str, str]:
    """The columns of images and labels, each there once and of the right type."""
    import pyarrow as pa

    names = schema.names
    image_column, label = _column(path, names, _IMAGE_COLUMNS), label_column(path, names)
    if twice := [name for name in (image_column, label) if names.count(name) > 1]:
        raise DataError(f"{path} has the column {' and '.join(twice)} more than once")
    if not pa.types.is_integer(schema.field(label).type):
        raise DataError(f"{path}: the column {label} must hold a whole number in every row")
    if not _holds_bytes(schema.field(image_column).type):
        raise DataError(f"{path}: the column {image_column} must hold encoded images (bytes, or a struct with bytes)")
    return image_column, label


def label_column(path: Path, found: list[str]) -> str:
    """Which of the columns holds the labels.

    Raises:
        DataError: none does.
    """
    return _column(path, found, _LABEL_COLUMNS)


def _column(path: Path, found: list[str], wanted: tuple[str, ...]) -> str:
    for name in wanted:
        if name in found:
            return name
    raise DataError(f"{path} has the columns {', '.join(found)}; expected one named {' or '.join(wanted)}")


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _reader(value: dict[str, bytes] | bytes | None) -> Callable[[], bytes]:
    data = value["bytes"] if isinstance(value, dict) else value
    return lambda: data or b""
