"""Fashion-MNIST: 60,000 and 10,000 gray images of clothes, 28x28 (Xiao 2017)."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from distail.config.schema import Data
from distail.data.dataset import LabeledImages, Source
from distail.data.sources.locate import locate
from distail.errors import DataError

_UNSIGNED_BYTE = 0x08
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_PREFIXES = {"train": "train", "test": "t10k"}


def parse_idx(data: bytes, name: str, dimensions: int) -> NDArray[np.uint8]:
    """An array of unsigned bytes with the given number of dimensions; `name` is used in messages.

    Raises:
        DataError: the bytes are anything but such an array.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), "labels", 1).tolist()
    [7, 9]
    """
    header = 4 + 4 * dimensions
    expected = f"expected an IDX file of unsigned bytes with {dimensions} dimension{'s' * (dimensions > 1)}"
    if len(data) < header:
        raise DataError(f"{name} has {len(data)} bytes; {expected}, whose header alone has {header}")
    if tuple(data[:4]) != (0, 0, _UNSIGNED_BYTE, dimensions):
        raise DataError(f"{name} begins with the bytes {data[:4].hex(' ')}; {expected}: 00 00 08 {dimensions:02x}")
    shape = [int(size) for size in np.frombuffer(data, dtype=">u4", count=dimensions, offset=4)]
    sizes = " x ".join(str(size) for size in shape)
    if 0 in shape:
        raise DataError(f"{name} says it holds {sizes} bytes: there is nothing in it")
    if len(data) - header != math.prod(shape):
        raise DataError(f"{name} says it holds {sizes} bytes but has {len(data) - header}: it is damaged or cut off")
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)


def load_fashion_mnist(options: Data) -> Source:
    """The four IDX files, compressed (.gz) or not."""
    folder = locate(
        options,
        lambda place: place if all(_file(place, name) for name in _file_names()) else None,
        others=(DEBIAN_FOLDER,),
        hint=f"It needs the four files {', '.join(f'{name}.gz' for name in _file_names())}. "
        "On Debian and Ubuntu: apt install dataset-fashion-mnist.",
    )
    return Source(_split(folder, "train"), _split(folder, "test"), CLASS_NAMES)


def _file_names() -> list[str]:
    return [f"{prefix}-{part}-ubyte" for prefix in _PREFIXES.values() for part in ("images-idx3", "labels-idx1")]


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def _split(folder: Path, split: str) -> LabeledImages:
    prefix = _PREFIXES[split]
    images = _array(folder, f"{prefix}-images-idx3-ubyte", 3)
    labels = _array(folder, f"{prefix}-labels-idx1-ubyte", 1)
    if len(images) != len(labels):
        raise DataError(f"{folder}: {len(images)} {split} images but {len(labels)} labels")
    return LabeledImages(torch.from_numpy(images.copy()).unsqueeze(1), torch.from_numpy(labels.astype(np.int64)))


def _array(folder: Path, name: str, dimensions: int) -> NDArray[np.uint8]:
    path = _file(folder, name)
    assert path is not None, "the folder was chosen because it holds all four files"
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return parse_idx(data, str(path), dimensions)
