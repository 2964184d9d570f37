"""Data sets by name: one file each, one entry each in `SOURCES`."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace

from distail.config.schema import Data
from distail.data.class_order import in_class_order
from distail.data.dataset import Source, is_images, resized
from distail.data.long_tail import class_counts, require_every_class
from distail.data.sources.arrays import load_arrays
from distail.data.sources.cifar import load_cifar10, load_cifar100
from distail.data.sources.digits import load_digits
from distail.data.sources.fashion_mnist import load_fashion_mnist
from distail.data.sources.folder import load_folder
from distail.data.sources.locate import expand_home
from distail.data.sources.manifest import load_manifest
from distail.data.sources.tiny_imagenet import load_tiny_imagenet
from distail.errors import DataError, unknown_name

SOURCES: dict[str, Callable[[Data], Source]] = {
    "arrays": load_arrays,
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
_OF_IMAGES = ("augment", "image_size", "bit_depth", "skip_unreadable", "allow_outside_root")


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
    if is_images(source.train) and is_images(source.test):
        train, test = (resized(images, options.image_size) for images in (source.train, source.test))
        held_out = source.validation
        if held_out is not None and is_images(held_out):
            held_out = resized(held_out, options.image_size)
        source = replace(source, train=train, test=test, validation=held_out)
    else:
        check_no_image_options(options)
    return in_class_order(_checked(source), options.class_order)


def check_no_image_options(options: Data) -> None:
    """Let pass what is not only for images.

    Raises:
        DataError: there are such options; all of them are listed.
    """
    default = Data(name=options.name)
    given = [key for key in _OF_IMAGES if getattr(options, key) != getattr(default, key)]
    if given:
        raise DataError(
            f"data set {options.name!r} holds no images, and {', '.join(f'data.{key}' for key in given)} "
            f"{'is' if len(given) == 1 else 'are'} for images only; leave {'it' if len(given) == 1 else 'them'} out"
        )


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
    if source.validation is not None:
        class_counts(source.validation.labels, num_classes)
    if not len(source.test):
        raise DataError(f"the test set has no {source.test.noun}")
    return source
