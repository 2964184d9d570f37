"""Data sets by name: one file each, one entry each in `SOURCES`."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from distail.config.schema import Data
from distail.data.class_order import in_class_order
from distail.data.dataset import Source, is_images, resized
from distail.data.long_tail import class_counts, require_every_class
from distail.data.sources.arrays import load_arrays
from distail.data.sources.cifar import load_cifar10, load_cifar100
from distail.data.sources.digits import load_digits
from distail.data.sources.fashion_mnist import load_fashion_mnist
from distail.data.sources.folder import load_folder
from distail.data.sources.function import find_function, load_function
from distail.data.sources.huggingface import load_huggingface
from distail.data.sources.image_list import load_list
from distail.data.sources.locate import expand_home
from distail.data.sources.manifest import load_manifest
from distail.data.sources.table import load_table
from distail.data.sources.tiny_imagenet import load_tiny_imagenet
from distail.errors import DataError, Problems, counted, unknown_name
from distail.outputs import MULTI_LABEL

SOURCES: dict[str, Callable[[Data], Source]] = {
    "arrays": load_arrays,
    "csv-table": load_table,
    "parquet": load_table,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "csv": load_manifest,
    "digits": load_digits,
    "fashion-mnist": load_fashion_mnist,
    "folder": load_folder,
    "huggingface": load_huggingface,
    "list": load_list,
    "tiny-imagenet": load_tiny_imagenet,
}
MULTI_LABEL_SOURCES = frozenset({"arrays", "csv", "csv-table", "parquet"})
TABLES = frozenset({"csv-table", "parquet"})
_OF_TABLES, _OF_LISTS = ("label", "features", "categories"), ("train", "test")
# Sources whose images are files of their own, which can stay on disk.
STREAMED = frozenset({"csv", "folder", "huggingface", "list", "tiny-imagenet"})
_OF_IMAGES = ("augment", "image_size", "bit_depth", "skip_unreadable", "allow_outside_root")


def load_source(options: Data) -> Source:
    """The data set that `options` name, decoded or ready to be streamed.

    Raises:
        DataError: its name is unknown, it is not found, or something is wrong with it.

    >>> len(load_source(Data(name="digits")).train)
    1438
    """
    check_name(options.name)
    check_streams(options)
    check_validation(options)
    check_targets(options)
    if options.root is not None:
        options = options.model_copy(update={"root": expand_home(options.root)})
    try:
        source = SOURCES.get(options.name, load_function)(options)
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
        _check_unused(options, _OF_IMAGES, "holds no images", "images")
    if source.groups is None and options.group not in (None, Data.model_fields["group"].default):
        raise DataError(f"data.group: {options.group!r}, but data set {options.name!r} has no groups; leave it out")
    if options.name not in TABLES:
        _check_unused(options, _OF_TABLES, "is no table", "tables")
    if options.name != "list":
        _check_unused(options, _OF_LISTS, "is not a list of images", "lists")
    return in_class_order(_checked(source), options.class_order)


def _check_unused(options: Data, keys: Sequence[str], is_not: str, others: str) -> None:
    """Refuse options that are for other data only."""
    default = Data(name=options.name)
    given = [f"data.{key}" for key in keys if getattr(options, key) != getattr(default, key)]
    if given:
        are, them = ("is", "it") if len(given) == 1 else ("are", "them")
        raise DataError(
            f"data set {options.name!r} {is_not}, and {', '.join(given)} {are} for {others} only; leave {them} out"
        )


def check_name(name: str) -> None:
    """Let pass a data set of ours, or what can be imported.

    Raises:
        DataError: it is unknown, or its code may not be run.
    """
    if ":" in name:
        find_function(name)
    elif name not in SOURCES:
        also = "Also: package.module:function for data of your own"
        raise DataError(f"{unknown_name('data set', name, SOURCES)} {also}")


def check_targets(options: Data) -> None:
    """Let pass what can be done with several classes per example, where they have several.

    Raises:
        DataError: listing what cannot.
    """
    if options.targets != MULTI_LABEL:
        if options.label is not None and not isinstance(options.label, str):
            raise DataError(
                f"data.label names {counted(len(options.label), 'column')}, one for each of several classes that a row "
                "may have; expected data.targets: multi_label, or the name of one column"
            )
        return
    problems = Problems()
    if ":" not in options.name and options.name not in MULTI_LABEL_SOURCES:
        problems.add(
            f"data set {options.name!r} is single-label; multi-label data sets are "
            f"{', '.join(sorted(MULTI_LABEL_SOURCES))} and package.module:function"
        )
    if options.imbalance_factor not in (None, 1):
        problems.add("data.imbalance_factor subsamples class by class and needs single-label data; leave it out")
    if options.sampler != "instance":
        problems.add(f"data.sampler: {options.sampler} samples by class and needs single-label data; expected instance "
                     "(supervised: distribution_balanced has weights that correspond to class-balanced "
                     "sampling)")  # fmt: skip
    problems.stop("data.targets: multi_label", DataError)


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


def check_validation(options: Data) -> None:
    """Let pass a validation set that the data can have.

    Raises:
        DataError: a file of validation images is named, and the data is no list.
    """
    if isinstance(options.validation, Path) and options.name != "list":
        raise DataError(
            f"data.validation is {str(options.validation)!r}: only data set 'list' has a file of validation images; "
            "expected a number from 0 to below 1, such as 0.1, or {folds: 5}"
        )


def _checked(source: Source) -> Source:
    """Labels in range, every class with a training image, something to test on."""
    num_classes = len(source.class_names)
    counts = class_counts(source.train.labels, num_classes)
    require_every_class(counts, source.class_names, noun=source.train.noun)
    class_counts(source.test.labels, num_classes)
    if source.validation is not None:
        class_counts(source.validation.labels, num_classes)
    if not len(source.test):
        raise DataError(f"the test set has no {source.test.noun}")
    return source
