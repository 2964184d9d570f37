"""Data sets by name: one file each, one entry each in ``SOURCES``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from distail.data.images import Source
from distail.data.sources.cifar import load_cifar10, load_cifar100
from distail.data.sources.digits import load_digits
from distail.data.sources.options import SourceOptions
from distail.errors import DataError, unknown_name

SOURCES: dict[str, Callable[[Path | None, SourceOptions], Source]] = {
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "digits": load_digits,
}


def load_source(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    image_size: int | None = None,
    skip_unreadable: bool = False,
    progress: bool = True,
) -> Source:
    """A data set by name, decoded; ``root`` None looks in the usual places.

    Raises ``DataError`` for unknown names, data that is not found, and everything that is wrong with it.

    >>> len(load_source("digits").train)
    1438
    """
    if name not in SOURCES:
        raise DataError(unknown_name("data set", name, SOURCES))
    options = SourceOptions(image_size, skip_unreadable, progress)
    return SOURCES[name](None if root is None else Path(root).expanduser(), options)
