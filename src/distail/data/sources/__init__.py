"""Data sets by name: one file each, one entry each in `SOURCES`."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace

from distail.config.schema import Data
from distail.data.class_order import in_class_order
from distail.data.dataset import Source, resized
from distail.data.long_tail import class_counts, require_every_class
from distail.data.sources.cifar import load_cifar10, load_cifar100
from distail.data.sources.digits import load_digits
from distail.data.sources.fashion_mnist import load_fashion_mnist
from distail.data.sources.folder import load_folder
from distail.data.sources.locate import expand_home
from distail.data.sources.manifest import load_manifest
from distail.data.sources.tiny_imagenet import load_tiny_imagenet
from distail.errors import DataError, unknown_name

SOURCES: dict[str, Callable[[Data], Source]] = {
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


def load_source(options: Data) -> Source:
    """The data set that `options` name, decoded or ready to be streamed.

    Raises:
        DataError: its name is unknown, it is not found, or something is wrong with it.

    >>> len(load_source(Data(name="digits")).train)
    1438
    """
    if options.name not in SOURCES:
        raise DataError(unknown_name("data set", options.name, SOURCES))
    check_streams(options)
    if options.root is not None:
        options = options.model_copy(update={"root": expand_home(options.root)})
    try:
        source = SOURCES[options.name](options)
    except OSError as error:
        many = ". Raise the limit: ulimit -n 65536" if error.errno in (errno.EMFILE, errno.ENFILE) else ""
        raise DataError(f"data set {options.name!r} cannot be read: {error}{many}") from error
    train, test = (resized(images, options.image_size) for images in (source.train, source.test))
    return in_class_order(_checked(replace(source, train=train, test=test)), options.class_order)


def check_streams(options: Data) -> None:
    """Let pass what can be held as it is asked for.

    Raises:
        DataError: a data set is to stay on disk that does not consist of image files.
    """
    if options.stream == "always" and options.name not in STREAMED:
        raise DataError(
            f"data set {options.name!r} cannot be streamed (data.stream: always); only image files can: "
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
