"""Data sets by name: one file each, one entry each in ``SOURCES``."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from distail.data.dataset import Source, resized
from distail.data.long_tail import class_counts, require_every_class
from distail.data.options import SourceOptions
from distail.data.sources.cifar import load_cifar10, load_cifar100
from distail.data.sources.digits import load_digits
from distail.data.sources.fashion_mnist import load_fashion_mnist
from distail.data.sources.folder import load_folder
from distail.data.sources.manifest import load_manifest
from distail.data.sources.tiny_imagenet import load_tiny_imagenet
from distail.errors import DataError, unknown_name

SOURCES: dict[str, Callable[[Path | None, SourceOptions], Source]] = {
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "csv": load_manifest,
    "digits": load_digits,
    "fashion-mnist": load_fashion_mnist,
    "folder": load_folder,
    "tiny-imagenet": load_tiny_imagenet,
}
# Sources whose images are files of their own, which can stay on disk.
STREAMED = frozenset({"csv", "folder", "tiny-imagenet"})


def load_source(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    image_size: int | None = None,
    skip_unreadable: bool = False,
    progress: bool = True,
    stream: str = "auto",
    memory_limit_mb: int | None = None,
    workers: int | None = None,
    allow_outside_root: bool = False,
) -> Source:
    """A data set by name, decoded or ready to be streamed; ``root`` None looks in the usual places.

    Raises ``DataError`` for unknown names, data that is not found, and everything that is wrong with it.

    >>> len(load_source("digits").train)
    1438
    """
    if name not in SOURCES:
        raise DataError(unknown_name("data set", name, SOURCES))
    check_streams(name, stream)
    options = SourceOptions(image_size, skip_unreadable, progress, stream, memory_limit_mb, workers, allow_outside_root)
    try:
        source = SOURCES[name](None if root is None else Path(root).expanduser(), options)
    except OSError as error:
        raise DataError(f"data set {name!r} cannot be read: {error}") from error
    return _checked(replace(source, train=resized(source.train, image_size), test=resized(source.test, image_size)))


def check_streams(name: str, stream: str) -> None:
    """``DataError`` where a data set is to stay on disk that does not consist of image files."""
    if stream == "always" and name not in STREAMED:
        raise DataError(
            f"data set {name!r} cannot be streamed (data.stream: always); only image files can: "
            f"{', '.join(sorted(STREAMED))}"
        )


def _checked(source: Source) -> Source:
    """Labels in range, every class with a training image, something to test on."""
    num_classes = len(source.class_names)
    require_every_class(class_counts(source.train.labels, num_classes), source.class_names)
    class_counts(source.test.labels, num_classes)
    if not len(source.test):
        raise DataError("the test set has no image")
    return source
