"""`package.module:function`: data sets of the user's own."""

from __future__ import annotations

import operator
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from distail.config.schema import Data
from distail.data.class_names import check_class_names
from distail.data.dataset import Groups, Source
from distail.data.datasets import Datasets
from distail.data.decode import progress_bar
from distail.data.items import FetchItems, StreamedItems, digest_of, is_finite, kept_generators, labels_in
from distail.data.labels import matrix_of
from distail.data.seeding import random_bits, stream_key
from distail.data.sources.rows import check_groups, group_codes
from distail.data.workers import Workers
from distail.errors import DataError, counted, first_of, listed, some_of
from distail.import_path import import_callable, where, working_directory_importable
from distail.outputs import MULTI_LABEL

_AT_ONCE = 64
_FAILED = "failures"
_NO_LABEL = (
    "a label that is not a class index (expected a whole number, an index into class_names; or, with data.targets: "
    "multi_label, a row of 0 and 1)"
)
_NOT_FINITE = "inputs that are not finite (nan or infinite), so the loss and the metrics would not be either"


def find_function(name: str) -> Any:
    """What stands at the import path.

    Raises:
        DataError: nothing that can be called, or `DISTAIL_NO_CODE` is set.
    """
    return import_callable(name, "data of your own", "a data set, such as arrays or csv-table", DataError)


def load_function(options: Data) -> Source:
    """Calls the function, with `root` where the configuration has one, and fetches every item of its `Datasets` once.

    Raises:
        DataError: the function or an item fails, or they are not what `Datasets` says.
    """
    with working_directory_importable():
        function = find_function(options.name)
        try:
            given = function() if options.root is None else function(options.root)
        except Exception as error:
            raise DataError(f"{options.name!r} failed with {where(error)}") from error
        if not isinstance(given, Datasets):
            raise DataError(f"{options.name!r} must return distail.Datasets, got {type(given).__name__}")
        names = tuple(given.class_names)
        if not all(isinstance(name, str) for name in names):
            raise DataError(f"{options.name!r}: class_names must be texts")
        check_class_names(names, f"data set {options.name!r}")
        fetched = [
            None if dataset is None else _fetched(dataset, part, given, options)
            for part, dataset in (("train", given.train), ("validation", given.validation), ("test", given.test))
        ]
    train, validation, test = fetched
    if train is None or test is None:
        raise DataError(f"{options.name!r}: train and test must be data sets, not None")
    groups = None if options.group is None else _groups(given, len(train), options.name)
    return Source(train, test, names, validation=validation, groups=groups)


def _groups(given: Datasets, items: int, name: str) -> Groups | None:
    if given.groups is None:
        return None
    if len(given.groups) != items:
        raise DataError(f"{name!r}: {len(given.groups)} groups for {items} items of train; expected one each")
    texts = np.array([str(group) for group in given.groups])
    check_groups(texts, f"{name!r}, items of train")
    return Groups(group_codes(texts), torch.empty(0, dtype=torch.int64))


def _fetched(dataset: Any, part: str, given: Datasets, options: Data) -> StreamedItems:
    what = f"{options.name!r}, {part}"
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise DataError(
            f"{what}: {type(dataset).__name__} has no __len__ and __getitem__; expected a map-style data set"
        )
    count, workers = len(dataset), options.workers or 0
    if not count:
        raise DataError(f"{what} has no item")
    fetch = FetchItems(dataset, given.collate)
    parts = [range(first, min(first + _AT_ONCE, count)) for first in range(0, count, _AT_ONCE)]
    scan: Workers[range, _Facts] = Workers(_Scan(fetch), min(workers, len(parts)))
    found: list[_Facts] = []
    with progress_bar(f"Reading {part}", count) as advance:
        for facts in scan.results(parts):
            found.append(facts)
            advance(_AT_ONCE)
    scan.close()
    _check_items([problem for facts in found for problem in facts.problems], what, count)
    labels = _labels([label for facts in found for label in facts.labels], given, what, options)
    digests = torch.from_numpy(np.frombuffer(b"".join(facts.digests for facts in found), dtype=np.uint8).copy())
    return StreamedItems(fetch, part, torch.arange(count), labels, digests.view(-1, 32), workers)


def _check_items(problems: list[tuple[str, str]], what: str, count: int) -> None:
    """Let pass no problem, each a kind and the item; those of one kind are told in one line, failures one by one."""
    items_of: dict[str, list[str]] = defaultdict(list)
    for kind, item in problems:
        items_of[kind].append(item)
    failed = items_of.pop(_FAILED, [])
    alike = [f"{counted(len(items), 'item')} with {kind}: {some_of(items, 5)}" for kind, items in items_of.items()]
    if problems:
        headline = f"{what}: {len(problems)} of {count} items cannot be used:"
        raise DataError(listed([*alike, *first_of(failed)], headline))


def _label(given: Any) -> int | list[float] | None:
    """A number of a class; or a row of as many numbers as there are classes; None of what is neither."""
    row = np.asarray(given.cpu() if isinstance(given, torch.Tensor) else given)
    if row.ndim:
        return row.astype(float).tolist() if row.dtype.kind in "iubf" else None
    if row.dtype.kind == "f":
        return int(row) if np.isfinite(row) and row == np.rint(row) else None
    try:
        return operator.index(given)
    except TypeError:
        return None


def _labels(found: list[int | list[float]], given: Datasets, what: str, options: Data) -> torch.Tensor:
    """Labels as `data.targets` has them."""
    rows = sum(isinstance(label, list) for label in found)
    if options.targets != MULTI_LABEL:
        if rows:
            raise DataError(
                f"{what}: {rows} of {len(found)} labels are rows of numbers; expected the number of one class each, or "
                "data.targets: multi_label"
            )
        return torch.tensor(found, dtype=torch.int64)
    classes = len(given.class_names)
    wrong = [row for row, label in enumerate(found) if not isinstance(label, list) or len(label) != classes]
    if wrong:
        raise DataError(
            f"{what}: {len(wrong)} of {len(found)} labels, the first of item {wrong[0]}, are not rows of {classes} "
            "numbers; data.targets: multi_label expects 0 or 1 per class"
        )
    return matrix_of(np.array(found), given.class_names, what)[0]


@dataclass(frozen=True)
class _Facts:
    """Of some items: their labels (numbers, or rows of them), their digests one after the other, and of those that
    cannot be used a kind of mistake and which item it is."""

    labels: list[int | list[float]]
    digests: bytes
    problems: list[tuple[str, str]]


@dataclass(frozen=True)
class _Scan:
    fetch: FetchItems

    def __call__(self, rows: range) -> _Facts:
        labels: list[int | list[float]] = []
        digests: list[bytes] = []
        problems: list[tuple[str, str]] = []
        seeds = random_bits(stream_key("item"), np.array(rows)) >> np.uint64(1)
        with kept_generators():
            for row, seed in zip(rows, seeds.tolist(), strict=True):
                item = self.fetch.item(row, seed)
                try:
                    given = labels_in(item)
                    label = _label(given)
                    if label is None:
                        problems.append((_NO_LABEL, f"item {row}: {repr(given)[:40]}"))
                    elif not is_finite(item):
                        problems.append((_NOT_FINITE, f"item {row}"))
                    else:
                        labels.append(label)
                        digests.append(digest_of(item))
                except Exception as error:
                    problems.append((_FAILED, getattr(item, "text", None) or f"item {row}: {error}"))
        return _Facts(labels, b"".join(digests), problems)
