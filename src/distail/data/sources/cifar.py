"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), in whichever published layout they are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distail.data.images import Source
from distail.data.options import SourceOptions
from distail.data.sources.cifar_binary import CIFAR10_BINARY, CIFAR100_BINARY, BinaryLayout, find_binary, load_binary
from distail.data.sources.cifar_folders import holds_class_folders, load_class_folders
from distail.data.sources.cifar_names import CIFAR10_NAMES, CIFAR100_NAMES
from distail.data.sources.cifar_parquet import load_parquet, parquet_parts
from distail.data.sources.locate import not_found, places_to_look
from distail.errors import DataError

Loader = Callable[[SourceOptions], Source]


@dataclass(frozen=True)
class _Cifar:
    name: str
    class_names: tuple[str, ...]
    binary: BinaryLayout
    pickled: tuple[str, ...]


_CIFAR10 = _Cifar("cifar10", CIFAR10_NAMES, CIFAR10_BINARY, ("cifar-10-python.tar.gz", "cifar-10-batches-py"))
_CIFAR100 = _Cifar("cifar100", CIFAR100_NAMES, CIFAR100_BINARY, ("cifar-100-python.tar.gz", "cifar-100-python"))


def load_cifar10(root: Path | None, options: SourceOptions) -> Source:
    """50,000 and 10,000 images, 32x32 RGB, ten classes."""
    return _load(_CIFAR10, root, options)


def load_cifar100(root: Path | None, options: SourceOptions) -> Source:
    """50,000 and 10,000 images, 32x32 RGB, a hundred fine classes."""
    return _load(_CIFAR100, root, options)


def _load(cifar: _Cifar, root: Path | None, options: SourceOptions) -> Source:
    places = places_to_look(cifar.name, root)
    for place in places:
        loader = _loader(cifar, place)
        if loader is not None:
            return loader(options)
    download = f"https://www.cs.toronto.edu/~kriz/{cifar.binary.archive}"
    pickled = [place / name for place in places for name in cifar.pickled if (place / name).exists()]
    if pickled:
        raise DataError(
            f"{pickled[0]} is the pickled Python version of {cifar.name}, and distail unpickles nothing: loading a "
            f"pickle runs whatever code it holds. Download the binary version, {download}, and put it beside it"
        )
    layouts = (
        "Layouts: train.parquet and test.parquet; train/<class>/*.png and test/<class>/*.png; "
        f"or the authors' binary version, {download}."
    )
    raise not_found(cifar.name, root, places, layouts)


def _loader(cifar: _Cifar, place: Path) -> Loader | None:
    """How to load what lies in ``place``, if it is one of the layouts."""
    if parquet_parts(place, "train"):
        return lambda options: load_parquet(cifar.name, place, cifar.class_names, options)
    if holds_class_folders(place):
        return lambda options: load_class_folders(cifar.name, place, cifar.class_names, options)
    binary = find_binary(place, cifar.binary)
    if binary is not None:
        return lambda options: load_binary(binary, cifar.binary, cifar.class_names)
    return None
