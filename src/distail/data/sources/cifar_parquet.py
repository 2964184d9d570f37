"""CIFAR as parquet files: PNG images and integer labels, as the Hugging Face hub keeps it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from distail.data.cache import cached, fingerprint
from distail.data.decode import EncodedImage
from distail.data.images import Source
from distail.data.options import SourceOptions
from distail.data.sources.encoded import EncodedSplit, decode_source
from distail.errors import DataError

_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("fine_label", "label")
_ROWS_AT_ONCE = 256
# The whole of CIFAR has 142 MB; a few bytes of parquet can stand for any number of equal images.
_MOST_BYTES = 1 << 31


def parquet_parts(folder: Path, split: str) -> list[Path]:
    """``train.parquet``, or ``train-*.parquet`` in the order of their names; in ``folder`` or its ``data``."""
    for place in (folder, folder / "data"):
        whole = place / f"{split}.parquet"
        if parts := [whole] if whole.is_file() else sorted(place.glob(f"{split}-*.parquet")):
            return parts
    return []


def load_parquet(name: str, folder: Path, class_names: tuple[str, ...], options: SourceOptions) -> Source:
    """Both splits, or from the cache; raises ``DataError`` for missing columns and damaged files."""
    train, test = parquet_parts(folder, "train"), parquet_parts(folder, "test")
    if not test:
        raise DataError(f"{train[0].parent} holds {train[0].name} but no test.parquet or test-*.parquet beside it")
    key = fingerprint(["parquet", *options.identity(), len(train)], [(path.name, path) for path in (*train, *test)])
    return cached(name, key, lambda: decode_source(_read(train), _read(test), class_names, options))


def _read(paths: list[Path]) -> EncodedSplit:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images: list[EncodedImage] = []
    labels: list[int] = []
    left = _MOST_BYTES
    for path in paths:
        before = len(images)
        try:
            with pq.ParquetFile(path) as file:
                image_column, label_column = _columns(path, file.schema_arrow)
                for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[image_column, label_column]):
                    left -= batch.nbytes
                    if left < 0:
                        raise DataError(f"{path} holds more than {_MOST_BYTES:,} bytes: it is not CIFAR")
                    rows = batch.column(image_column).to_pylist()
                    images += [
                        EncodedImage(f"{path.name}, row {row}", _reader(value))
                        for row, value in enumerate(rows, start=len(images) - before)
                    ]
                    found = batch.column(label_column)
                    if found.null_count:
                        raise DataError(f"{path}: the column {label_column} must hold a whole number in every row")
                    labels += found.cast(pa.int64()).to_pylist()
        except DataError:
            raise
        # Of a damaged file pyarrow raises its own exceptions, which are several of Python's as well, and Python's.
        except Exception as error:
            raise DataError(f"{path} cannot be read as parquet: {' '.join(str(error).split())}") from error
    return EncodedSplit(images, labels)


def _columns(path: Path, schema: Any) -> tuple[str, str]:
    """The columns of images and labels; ``DataError`` where they are missing or hold something else."""
    import pyarrow as pa

    names = schema.names
    image_column, label_column = (_column(path, names, wanted) for wanted in (_IMAGE_COLUMNS, _LABEL_COLUMNS))
    if twice := [name for name in (image_column, label_column) if names.count(name) > 1]:
        raise DataError(f"{path} has the column {' and '.join(twice)} more than once")
    if not pa.types.is_integer(schema.field(label_column).type):
        raise DataError(f"{path}: the column {label_column} must hold a whole number in every row")
    if not _holds_bytes(schema.field(image_column).type):
        raise DataError(f"{path}: the column {image_column} must hold encoded images (bytes, or a struct with bytes)")
    return image_column, label_column


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
