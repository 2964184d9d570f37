"""The data sets of other people's loops: how many samples each class has, and items that say which sample they are.

Shapes: B batch, C classes, N samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from distail.errors import DataError, some_of

LABELS = ("labels", "label", "label_ids")
"""The names of a label in an item, as Hugging Face's collators know them."""
INDEX, TEACHER_LOGITS = "index", "teacher_logits"
_BATCH_OF_A_PASS = 64


class IndexedDataset(Dataset[Any]):
    """A data set whose items also say which sample they are and, where these are stored, the teacher's logits of it.

    An item that is a mapping gets `index` and `teacher_logits`; a tuple ``(inputs, label)`` becomes ``(inputs, label,
    index)`` or ``(inputs, label, index, teacher_logits)``.

    Args:
        dataset: map-style.
        teacher_logits: (N, C), in the order of the data set: a tensor, an array, a memory-mapped array, or whatever
            has a length and a row for each position.

    Raises:
        DataError: there are not as many rows as samples; at an item, its row is not finite.

    >>> IndexedDataset([("a", 0), ("b", 1)])[1]
    ('b', 1, 1)
    >>> IndexedDataset([{"x": 5, "labels": 0}], torch.zeros(1, 3))[0]
    {'x': 5, 'labels': 0, 'index': 0, 'teacher_logits': tensor([0., 0., 0.])}
    """

    def __init__(self, dataset: Any, teacher_logits: Any = None) -> None:
        check_has_items(dataset)
        if teacher_logits is not None and len(teacher_logits) != len(dataset):
            raise DataError(
                f"teacher_logits has {len(teacher_logits):,} rows and the data set {len(dataset):,} samples; "
                "expected one row per sample, in its order"
            )
        self.dataset, self.teacher_logits = dataset, teacher_logits

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> Any:
        return self._with_more(self.dataset[position], position)

    def __getitems__(self, positions: list[int]) -> list[Any]:
        fetch = getattr(self.dataset, "__getitems__", None)
        items = fetch(positions) if fetch is not None else [self.dataset[position] for position in positions]
        return [self._with_more(item, position) for item, position in zip(items, positions, strict=True)]

    def _with_more(self, item: Any, position: int) -> Any:
        more: dict[str, Any] = {INDEX: position}
        if self.teacher_logits is not None:
            more[TEACHER_LOGITS] = torch.as_tensor(self.teacher_logits[position])
            if not more[TEACHER_LOGITS].isfinite().all():
                raise DataError(f"teacher_logits of sample {position} are not finite")
        if isinstance(item, Mapping):
            return {**item, **more}
        if len(item) != 2:
            raise DataError(
                f"an item of the data set has {len(item)} parts; expected (inputs, label), or a mapping of more by "
                "name: what follows them is read as the position"
            )
        return (*item, *more.values())


class KeptColumns:
    """A collator that hands items to another one without the columns that it may not know, and adds these itself.

    Raises:
        DataError: at a batch, numbers in them are not finite.
    """

    def __init__(self, collate: Any, columns: Sequence[str]) -> None:
        self.collate, self.columns = collate, tuple(columns)
        if hasattr(collate, "tokenizer"):  # which Trainer saves beside the weights
            self.tokenizer = collate.tokenizer

    def __call__(self, items: list[Any]) -> Any:
        kept = [name for name in self.columns if isinstance(items[0], Mapping) and name in items[0]]
        if not kept:
            return self.collate(items)
        batch = self.collate([{name: item[name] for name in item if name not in kept} for item in items])
        added = {name: torch.stack([torch.as_tensor(item[name]) for item in items]) for name in kept}
        for name, column in added.items():
            if not column.isfinite().all():
                raise DataError(
                    f"{name} contains values that are not finite, so the loss is not finite either; expected finite "
                    "values"
                )
        return {**batch, **added}


def count_classes(dataset: Any, num_classes: int | None = None, label_names: Sequence[str] = LABELS) -> tuple[int, ...]:
    """The samples of each class in a map-style data set, (C,); of labels of several classes the samples that have it.

    Labels are taken from its column, where it has columns as those of `datasets` do; from its `targets`, as those of
    torchvision have them; else every item is read once.

    Args:
        dataset: its items are mappings with a label, or tuples ``(inputs, label, ...)``. A label is a whole number, or
            where a sample has several classes a row (C,) of 0 and 1, C at least 2.
        num_classes: C; by default one more than the highest label, or as many as a row has.
        label_names: what a label may be called in a mapping.

    Raises:
        DataError: it has no length, no labels, labels that are no whole numbers below C, or a class without samples.

    >>> count_classes([("a", 0), ("b", 1), ("c", 0)])
    (2, 1)
    >>> count_classes([("a", [1.0, 1.0]), ("b", [0.0, 0.0]), ("c", [1.0, 0.0])])
    (2, 1)
    """
    return count_labels(dataset, num_classes, label_names)[0]


def count_labels(
    dataset: Any, num_classes: int | None = None, label_names: Sequence[str] = LABELS
) -> tuple[tuple[int, ...], int | None]:
    """As `count_classes`, and where a sample has several classes how many samples there are; else None.

    Raises:
        DataError: as `count_classes`.
    """
    check_has_items(dataset)
    found = list(_labels(dataset, label_names))
    if found and (isinstance(found[0], list | tuple) or getattr(found[0], "ndim", 0) == 1):
        counts_C, samples = _positives(found, num_classes), len(found)
    else:
        counts_C, samples = _counts(found, num_classes), None
    if (counts_C == 0).any():
        raise DataError(
            f"no sample of class {some_of(torch.nonzero(counts_C == 0).flatten().tolist())} in {len(found):,} "
            "training samples; expected at least one of each, or a network with fewer classes"
        )
    return tuple(counts_C.tolist()), samples


def _positives(rows: Sequence[Any], num_classes: int | None) -> Tensor:
    """(C,) of labels that are rows of 0 and 1."""
    widths = {len(row) for row in rows}
    if widths == {1}:
        raise DataError(
            f"labels have the shape ({len(rows)}, 1); expected ({len(rows)},), the number of a class each, or "
            f"({len(rows)}, C), rows of 0 and 1 of at least two classes"
        )
    if len(widths) > 1 or num_classes not in (None, *widths):
        raise DataError(
            f"labels have {', '.join(map(str, sorted(widths)))} numbers per sample; expected one for each of "
            f"{num_classes or max(widths)} classes"
        )
    labels_NC = torch.stack([torch.as_tensor(row) for row in rows])
    if not bool(((labels_NC == 0) | (labels_NC == 1)).all()):
        raise DataError(
            f"labels reach from {labels_NC.min().item():g} to {labels_NC.max().item():g}; expected rows of 0 and 1: "
            "which classes each sample has"
        )
    return (labels_NC == 1).sum(0)


def _counts(found: Sequence[Any], num_classes: int | None) -> Tensor:
    """(C,) of labels that are whole numbers."""
    labels = [label.item() if hasattr(label, "item") else label for label in found]
    expected = "0 or more" if num_classes is None else f"0 to {num_classes - 1}"
    wrong = [
        f"sample {position}: {label!r}"
        for position, label in enumerate(labels)
        if not isinstance(label, int) or not 0 <= label < (num_classes or label + 1)
    ]
    if wrong or not labels:
        raise DataError(f"labels must be whole numbers, {expected}, but got {some_of(wrong, 5) or 'none'}")
    return torch.bincount(torch.tensor(labels), minlength=num_classes or 0)


def check_has_items(dataset: Any) -> None:
    """Refuse a data set without length and positions.

    Raises:
        DataError: it has none.
    """
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DataError(
            f"the training data set is {type(dataset).__name__}; expected one with a length and an item for each "
            "position: of a stream the classes cannot be counted, so give class_counts=, and no sample has an index"
        )


def in_order(loader: DataLoader[Any], rank: int, size: int) -> Iterator[Any]:
    """The batches of a process's own part of a loader's data set: together they hold every sample once."""
    dataset: Any = loader.dataset
    check_has_items(dataset)
    part = Subset(dataset, range(rank, len(dataset), size))
    yield from DataLoader(part, loader.batch_size or _BATCH_OF_A_PASS, collate_fn=loader.collate_fn)


def _labels(dataset: Any, names: Sequence[str]) -> Iterable[Any]:
    columns = getattr(dataset, "column_names", None)
    if isinstance(columns, list):
        found = _label_in(columns, names)
        # A transform may ask for other columns, and would make every image ready for its label.
        plain = dataset.with_format(None) if hasattr(dataset, "with_format") else dataset
        return list(plain[found])
    if hasattr(dataset, "targets") and getattr(dataset, "target_transform", None) is None:
        return list(dataset.targets)
    return (_label_of(dataset[position], names) for position in range(len(dataset)))


def _label_of(item: Any, names: Sequence[str]) -> Any:
    if isinstance(item, Mapping):
        return item[_label_in(item, names)]
    if isinstance(item, Sequence) and not isinstance(item, str) and len(item) > 1:
        return item[1]
    raise DataError(f"an item is {type(item).__name__}; expected a mapping with a label, or a tuple (inputs, label)")


def _label_in(columns: Iterable[str], names: Sequence[str]) -> str:
    present = list(columns)
    for name in names:
        if name in present:
            return name
    raise DataError(f"no label among {', '.join(present)}; expected one of {', '.join(names)}")
