"""CIFAR as its authors packed it: binary records of label bytes and 3,072 pixels, in an archive or extracted."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from distail.data.dataset import LabeledImages, Source
from distail.errors import DataError

_PIXELS = 3 * 32 * 32


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
    together = LabeledImages(torch.cat([part.images for part in train]), torch.cat([part.labels for part in train]))
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


def _records(data: bytes, name: str, label_bytes: int) -> LabeledImages:
    length = label_bytes + _PIXELS
    if not data or len(data) % length:
        raise DataError(f"{name} has {len(data)} bytes; expected records of {length}: it is damaged or cut off")
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, length)
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32).copy()
    return LabeledImages(torch.from_numpy(images), torch.from_numpy(records[:, label_bytes - 1].astype(np.int64)))
