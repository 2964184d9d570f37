"""CIFAR as files: its authors' binary records of label bytes and 3,072 pixels (archive or extracted), and parquet."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distail.config.schema import Data
from distail.data.cache import cached, fingerprint
from distail.data.dataset import LabelledImages, Source
from distail.data.decode import EncodedImage, decoding_options
from distail.data.sources.encoded import EncodedSplit, decode_source
from distail.errors import DataError

_PIXELS = 3 * 32 * 32
_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("fine_label", "label")
_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class BinaryLayout:
    """Where one data set's binary files lie; the last of `label_bytes` bytes before the pixels is the label."""

    archive: str
    folder: str
    train: tuple[str, ...]
    test: str
    label_bytes: int

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test)


CIFAR10_BINARY = BinaryLayout(
    "cifar-10-binary.tar.gz",
    "cifar-10-batches-bin",
    tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test_batch.bin",
    1,
)
CIFAR100_BINARY = BinaryLayout("cifar-100-binary.tar.gz", "cifar-100-binary", ("train.bin",), "test.bin", 2)


def find_binary(place: Path, layout: BinaryLayout) -> Path | None:
    """The folder with all binary files, or the archive, in `place`; `place` may be the archive itself."""
    for folder in (place, place / layout.folder):
        if all((folder / name).is_file() for name in layout.files):
            return folder
    archive = place if place.is_file() else place / layout.archive
    return archive if archive.name == layout.archive and archive.is_file() else None


def load_binary(found: Path, layout: BinaryLayout, class_names: tuple[str, ...]) -> Source:
    """From a folder or an archive.

    Raises:
        DataError: files are missing or damaged.
    """
    read = _from_archive(found, layout) if found.is_file() else _from_folder(found)
    train = [_records(read(name), f"{found}: {name}", layout.label_bytes) for name in layout.train]
    together = LabelledImages(torch.cat([part.images for part in train]), torch.cat([part.labels for part in train]))
    return Source(together, _records(read(layout.test), f"{found}: {layout.test}", layout.label_bytes), class_names)


def _from_folder(folder: Path) -> Callable[[str], bytes]:
    def read(name: str) -> bytes:
        path = folder / name
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error}") from error

    return read


def _from_archive(archive: Path, layout: BinaryLayout) -> Callable[[str], bytes]:
    contents: dict[str, bytes] = {}
    try:
        with gzip.open(archive) as compressed:  # to the end, where gzip keeps its checksum
            content = BytesIO(compressed.read())
        with tarfile.open(fileobj=content) as tar:
            for member in tar:
                name = Path(member.name).name
                if member.isfile() and name in layout.files:
                    file = tar.extractfile(member)
                    contents[name] = file.read() if file is not None else b""
    # Damaged headers hold numbers that are none, and fields that end too early.
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, LookupError, ArithmeticError) as error:
        raise DataError(f"{archive} cannot be read: {error}. Download it again") from error
    missing = [name for name in layout.files if name not in contents]
    if missing:
        raise DataError(f"{archive} lacks {', '.join(missing)}")
    return contents.__getitem__


def _records(data: bytes, name: str, label_bytes: int) -> LabelledImages:
    length = label_bytes + _PIXELS
    if not data or len(data) % length:
        raise DataError(f"{name} has {len(data)} bytes; expected records of {length}: it is damaged or cut off")
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, length)
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32).copy()
    return LabelledImages(torch.from_numpy(images), torch.from_numpy(records[:, label_bytes - 1].astype(np.int64)))


def parquet_parts(folder: Path, split: str) -> list[Path]:
    """`train.parquet`, or `train-*.parquet` in the order of their names; in `folder` or its `data`."""
    for place in (folder, folder / "data"):
        whole = place / f"{split}.parquet"
        if parts := [whole] if whole.is_file() else sorted(place.glob(f"{split}-*.parquet")):
            return parts
    return []


def load_parquet(folder: Path, class_names: tuple[str, ...], options: Data) -> Source:
    """Both splits, or from the cache.

    Raises:
        DataError: columns are missing, or files are damaged.
    """
    train, test = parquet_parts(folder, "train"), parquet_parts(folder, "test")
    if not test:
        raise DataError(f"{train[0].parent} holds {train[0].name} but no test.parquet or test-*.parquet beside it")
    key = fingerprint(
        ["parquet", *decoding_options(options), len(train)], [(path.name, path) for path in (*train, *test)]
    )
    return cached(options.name, key, lambda: decode_source(_read(train), _read(test), class_names, options))


def _read(paths: list[Path]) -> EncodedSplit:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images: list[EncodedImage] = []
    labels: list[int] = []
    for path in paths:
        before = len(images)
        try:
            with pq.ParquetFile(path) as file:
                image_column, label_column = _columns(path, file.schema_arrow)
                for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[image_column, label_column]):
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
    """The columns of images and labels, each there once and of the right type."""
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
