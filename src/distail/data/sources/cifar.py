"""CIFAR-10 and CIFAR-100, in whichever published layout they are found."""

from __future__ import annotations

from pathlib import Path

from distail.data.images import Source
from distail.data.sources.cifar_names import CIFAR10_NAMES, CIFAR100_NAMES
from distail.data.sources.cifar_parquet import load_parquet, parquet_parts
from distail.data.sources.locate import locate
from distail.data.sources.options import SourceOptions


def load_cifar10(root: Path | None, options: SourceOptions) -> Source:
    """50,000 and 10,000 images, 32x32 RGB, ten classes (Krizhevsky 2009)."""
    return _load("cifar10", CIFAR10_NAMES, root, options)


def load_cifar100(root: Path | None, options: SourceOptions) -> Source:
    """50,000 and 10,000 images, 32x32 RGB, a hundred fine classes (Krizhevsky 2009)."""
    return _load("cifar100", CIFAR100_NAMES, root, options)


def _load(name: str, class_names: tuple[str, ...], root: Path | None, options: SourceOptions) -> Source:
    folder = locate(name, root, lambda place: bool(parquet_parts(place, "train")), hint="")
    return load_parquet(folder, class_names, options)
