"""Counting the classes of data sets of others, and items that say which sample they are."""

import importlib
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from distail.errors import DataError
from distail.integrations.data import IndexedDataset, KeptColumns, count_classes, in_order

LABELS = [0, 2, 1, 0, 0]


class Columns:
    """As `datasets.Dataset`: a column costs nothing, an item does."""

    column_names = ["text", "label"]  # noqa: RUF012

    def __len__(self):
        return len(LABELS)

    def __getitem__(self, name):
        assert name == "label"
        return LABELS


class Transformed(Columns):
    """With a transform, which makes images of a column that the label's does not have."""

    def __getitem__(self, name):
        raise KeyError("image")

    def with_format(self, kind):
        assert kind is None
        return Columns()


class Photos(Dataset):
    """As torchvision's: reading an image takes time."""

    targets = LABELS

    def __len__(self):
        return len(LABELS)

    def __getitem__(self, position):
        raise AssertionError("a photo was read")


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize(
    "dataset",
    [
        [{"x": 1.0, "labels": label} for label in LABELS],
        [{"x": 1.0, "label": np.int64(label)} for label in LABELS],
        [("image", label) for label in LABELS],
        TensorDataset(torch.zeros(5, 2), torch.tensor(LABELS)),
        Columns(),
        Transformed(),
        Photos(),
    ],
    ids=["mappings", "numpy labels", "tuples", "tensors", "columns", "transformed columns", "targets"],
)
def test_classes_are_counted(dataset):
    assert count_classes(dataset) == (3, 1, 1)


class Renamed(Photos):
    target_transform = staticmethod(lambda label: label % 2)

    def __getitem__(self, position):
        return "image", LABELS[position] % 2


def test_labels_that_are_changed_on_the_way_are_read_from_items():
    assert count_classes(Renamed()) == (4, 1)


@pytest.mark.parametrize(
    ("dataset", "classes", "said"),
    [
        ([("image", 0), ("image", 3)], 3, ["sample 1: 3", "0 to 2"]),
        ([("image", 0.5)], None, ["sample 0: 0.5"]),
        ([("image", 0), ("image", 2)], None, ["no sample of class 1"]),
        ([("image", 0), ("image", 1)], 4, ["class 2, 3"]),
        ([("image", [0.0]), ("image", [1.0])], None, ["(2, 1)", "(2,)", "(2, C)"]),
        (TensorDataset(torch.zeros(3, 2), torch.tensor([[0], [1], [1]])), 2, ["(3, 1)", "(3,)"]),
        ([{"text": "a"}], None, ["text", "labels"]),
        (["ab"], None, ["str"]),
        (Stream(), None, ["class_counts="]),
    ],
)
def test_labels_that_cannot_be_counted(dataset, classes, said):
    with pytest.raises(DataError) as told:
        count_classes(dataset, classes)
    for part in said:
        assert part in str(told.value)


def test_items_are_fetched_as_the_data_set_does_it():
    class Batched(list):
        def __getitems__(self, positions):
            return [{"labels": 10 * position} for position in positions]

    assert IndexedDataset(Batched([0, 0, 0])).__getitems__([2, 1]) == [
        {"labels": 20, "index": 2},
        {"labels": 10, "index": 1},
    ]


def test_a_third_part_is_not_taken_for_the_position():
    with pytest.raises(DataError, match=r"3 parts; expected \(inputs, label\), or a mapping"):
        IndexedDataset([(torch.zeros(1), 0, "hospital")])[0]


def test_a_batch_carries_what_a_collator_does_not_know():
    def collate(items):
        assert all(item.keys() == {"text", "labels"} for item in items)
        return {"length": torch.tensor([len(item["text"]) for item in items])}

    rows = np.arange(6, dtype=np.float16).reshape(3, 2)
    items = IndexedDataset([{"text": text, "labels": 0} for text in ("a", "bb", "ccc")], rows)
    batch = KeptColumns(collate, ("index", "teacher_logits"))([items[2], items[0]])
    assert batch["length"].tolist() == [3, 1]
    assert batch["index"].tolist() == [2, 0]
    assert batch["teacher_logits"].tolist() == [[4, 5], [0, 1]]
    assert batch["teacher_logits"].dtype == torch.float16


def test_a_column_that_is_not_finite_is_refused_at_its_batch():
    items = [{"labels": 0, "said": [0.0, row / 2]} for row in range(3)] + [{"labels": 0, "said": [0.0, np.nan]}]
    carry = KeptColumns(lambda given: {"labels": torch.tensor([item["labels"] for item in given])}, ("said",))
    assert carry(items[:3])["said"].tolist() == [[0, 0], [0, 0.5], [0, 1]]
    with pytest.raises(DataError, match="said contains"):
        carry(items[2:])


def test_the_processes_see_every_sample_once():
    loader = DataLoader(TensorDataset(torch.arange(7)), batch_size=2, shuffle=True, drop_last=True)
    seen = [torch.cat([values for (values,) in in_order(loader, rank, 2)]).tolist() for rank in range(2)]
    assert seen == [[0, 2, 4, 6], [1, 3, 5]]


@pytest.mark.parametrize("library", ["transformers", "lightning"])
def test_a_library_that_is_missing_is_named_with_its_extra(library, monkeypatch):
    module = f"distail.integrations.{library}"
    for name in [library, *(name for name in sys.modules if name.startswith(f"{library}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ImportError, match=rf"pip install 'distail\[{library}\]'"):
        importlib.import_module(module)
