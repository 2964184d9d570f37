"""The order of the classes, where it is not the source's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from distail.data.dataset import Examples, Source
from distail.data.labels import is_multi_label
from distail.errors import DataError, did_you_mean, some_of

ORDERS = ("natural", "text")


def in_class_order(source: Source, class_order: str) -> Source:
    """The source with its classes, and so its labels, in the order that `data.class_order` asks for.

    Raises:
        DataError: a file does not name the classes of the source, each once.
    """
    if class_order == "natural":
        return source
    names = sorted(source.class_names) if class_order == "text" else _stored_order(class_order, source.class_names)
    place = {name: label for label, name in enumerate(names)}
    label_C = torch.tensor([place[name] for name in source.class_names])

    def relabeled(images: Examples) -> Examples:
        multi_label = is_multi_label(images.labels)
        return replace(images, labels=images.labels[:, label_C.argsort()] if multi_label else label_C[images.labels])

    return replace(
        source,
        train=relabeled(source.train),
        validation=None if source.validation is None else relabeled(source.validation),
        test=relabeled(source.test),
        class_names=tuple(names),
    )


def check_class_order(class_order: str) -> None:
    """Let pass `natural`, `text` and files.

    Raises:
        DataError: it is none of them.
    """
    if class_order not in ORDERS and not Path(class_order).is_file():
        raise DataError(
            f"there is no file {class_order!r} (current directory {Path.cwd()}), and it is not a class order. "
            f"{did_you_mean(class_order, ORDERS)}"
        )


def _stored_order(path: str, class_names: Sequence[str]) -> list[str]:
    check_class_order(path)
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.class_order: {path} cannot be read as text in UTF-8: {error}") from None
    names = [line.strip() for line in lines if line.strip()]
    if sorted(names) != sorted(class_names):
        missing = some_of([repr(name) for name in class_names if name not in set(names)])
        unknown = some_of([repr(name) for name in names if name not in set(class_names)])
        raise DataError(
            f"data.class_order: {path} must name the data's {len(class_names)} classes, one per line, each exactly "
            f"once; it names {len(names)}. Missing: {missing or 'none'}; not in the data: {unknown or 'none'}"
        )
    return names
