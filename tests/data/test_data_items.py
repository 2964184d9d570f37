"""Data sets of the user's own: items with keywords, their own randomness seeded, and what is refused."""

import random
import textwrap

import numpy as np
import pytest
import torch

import distail
from distail.config.schema import Data
from distail.data.batches import TrainingBatches, evaluation_batches
from distail.data.items import is_finite
from distail.data.prepare import prepare_data
from distail.errors import DataError

MODULE = """
import random

import numpy as np
import torch

import distail


class Noisy(torch.utils.data.Dataset):
    def __init__(self, count, dicts=True):
        self.count, self.dicts = count, dicts

    def __len__(self):
        return self.count

    def __getitem__(self, row):
        if not 0 <= row < self.count:
            raise IndexError(row)
        ids = torch.full((4,), row)
        noise = np.array([torch.rand(()).item(), np.random.rand(), random.random()])
        if not self.dicts:
            return noise, row % 3
        return {"ids": ids, "noise": noise, "label": row % 3}


def load():
    return distail.Datasets(Noisy(40), None, Noisy(15), ["a", "b", "c"])


def pairs(root):
    assert root.name == "there"
    return distail.Datasets(Noisy(40, dicts=False), Noisy(9, dicts=False), Noisy(15, dicts=False), ["a", "b", "c"])


def padded(items):
    longest = max(len(item["ids"]) for item in items)
    ids = torch.stack([torch.nn.functional.pad(item["ids"], (0, longest - len(item["ids"]))) for item in items])
    return {"ids": ids, "labels": torch.tensor([item["labels"] for item in items])}


def collated():
    texts = [{"ids": torch.arange(1, 2 + row % 5), "labels": row % 2} for row in range(30)]
    return distail.Datasets(texts, None, texts[:10], ["a", "b"], padded, groups=[row // 3 for row in range(30)])


def broken():
    raise OSError("no such file")


def other():
    return [1, 2]


def texts():
    items = [{"text": "hello", "label": row % 2} for row in range(9)]
    return distail.Datasets(items, None, items, ["a", "b"])


def unlabeled():
    items = [{"ids": torch.zeros(2)} for row in range(9)]
    return distail.Datasets(items, None, items, ["a", "b"])


def named():
    items = [(torch.zeros(2), "ab"[row % 2]) for row in range(9)]
    return distail.Datasets(items, None, items, ["a", "b"])


def halves():
    items = [(torch.zeros(2), row / 2) for row in range(9)]
    return distail.Datasets(items, None, items, ["a", "b"])


def whole(kind=float):
    items = [(torch.full((2,), float(row)), kind(row % 2)) for row in range(9)]
    return distail.Datasets(items, None, [(-inputs - 1, label) for inputs, label in items], ["a", "b"])


def whole_tensors():
    return whole(lambda number: torch.tensor(float(number)))


def lacking():
    items = [(torch.zeros(2), row % 2) for row in range(9)]
    tested = [(np.array([1.0, value]), row % 2) for row, value in enumerate([0.0, np.nan, 2.0, -np.inf])]
    return distail.Datasets(items, None, tested, ["a", "b"])


def lacking_keywords(value=float("nan")):
    row = torch.tensor([0.0, value])
    items = [{"ids": [1, 2], "scores": row if place == 4 else row[:1], "label": place % 2} for place in range(9)]
    return distail.Datasets(items, None, items, ["a", "b"])


def masked():
    mask = torch.tensor([0.0, -torch.inf])
    items = [{"ids": torch.tensor([place]), "mask": mask, "label": place % 2} for place in range(9)]
    return distail.Datasets(items, None, items, ["a", "b"])


def outside():
    items = [(torch.zeros(2), row % 3) for row in range(9)]
    return distail.Datasets(items, None, items, ["a", "b"])


def ungrouped():
    items = [(torch.zeros(2), row % 2) for row in range(9)]
    return distail.Datasets(items, None, items, ["a", "b"], groups=[7, 7, None, float("nan"), "", 8, 8, 8, "a"])


def stream():
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from ()

    return distail.Datasets(Endless(), None, Endless(), ["a", "b"])
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.chdir(tmp_path)
    return name


def prepared(name, **options):
    return prepare_data(Data(name=name, **options))


def batches_of(data, **options):
    settings = {"batch_size": 8, "mean": (), "std": (), "num_classes": len(data.class_names), "seed": 3, **options}
    return TrainingBatches(data.train, **settings)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_what_items_draw_is_a_function_of_seed_epoch_and_place(module):
    data = prepared(f"{module}:load")
    torch.manual_seed(1)
    first, again = (list(batches_of(data).epoch(0)) for _ in range(2))
    assert all(same(one.inputs, other.inputs) for one, other in zip(first, again, strict=True))
    rest = list(batches_of(data).epoch(0, first_step=2))
    assert all(same(one.inputs, other.inputs) for one, other in zip(first[2:], rest, strict=True))
    workers = prepared(f"{module}:load", workers=2)
    loaded = batches_of(workers)
    assert all(same(one.inputs, other.inputs) for one, other in zip(first, loaded.epoch(0), strict=True))
    loaded.close()
    ranks = [list(batches_of(data, rank=rank, world_size=2).epoch(0)) for rank in range(2)]
    for whole, *parts in zip(first, *ranks, strict=True):
        if len(whole.labels) >= 4:
            assert torch.equal(torch.cat([part.inputs["noise"] for part in parts]), whole.inputs["noise"])
    noise = torch.cat([batch.inputs["noise"] for batch in first])
    later = torch.cat([batch.inputs["noise"] for batch in batches_of(data).epoch(1)])
    assert len(noise.unique()) == noise.numel(), "no two items draw the same"
    assert not set(noise.flatten().tolist()) & set(later.flatten().tolist())
    for batch in first:
        rows = data.train.rows[batch.index]
        assert torch.equal(batch.inputs["ids"][:, 0], rows)
        assert torch.equal(batch.labels, rows % 3)
        assert batch.inputs["noise"].dtype == torch.float32


def test_the_callers_generators_stay_as_they_were(module):
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    expected = torch.rand(2), np.random.rand(2), random.random()
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    data = prepared(f"{module}:load")
    list(batches_of(data).epoch(0))
    assert torch.equal(torch.rand(2), expected[0])
    assert (np.random.rand(2) == expected[1]).all()
    assert random.random() == expected[2]


def test_without_training_items_are_always_the_same(module):
    data = prepared(f"{module}:load")
    found = [list(evaluation_batches(data.test, batch_size=size, mean=(), std=())) for size in (4, 15)]
    whole = found[1][0].inputs
    assert torch.equal(torch.cat([batch.inputs["noise"] for batch in found[0]]), whole["noise"])
    empty = next(evaluation_batches(data.test.subset(torch.tensor([3])), batch_size=4, mean=(), std=(), world_size=2))
    assert empty.inputs["ids"].shape == (0, 4)


def test_views_are_drawn_once_and_for_all(module):
    data = prepared(f"{module}:load")
    batches = batches_of(data, views=2)
    stored = torch.cat([batch.inputs["noise"] for batch in batches.every_view(7)])
    for epoch in range(3):
        for batch in batches.epoch(epoch):
            assert torch.equal(stored[batch.row], batch.inputs["noise"])


def test_pairs_and_a_validation_set_of_ones_own(module, tmp_path):
    data = prepared(f"{module}:pairs", root=tmp_path / "there")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [40, 9, 15]
    assert next(batches_of(data).epoch(0)).inputs.shape == (8, 3)
    assert data.test.names[2] == b"test[2]"
    assert prepared(f"{module}:pairs", root=tmp_path / "there").subset_sha256 == data.subset_sha256


def test_collate_and_groups(module):
    data = prepared(f"{module}:collated", validation=0.3)
    batch = next(batches_of(data).epoch(0))
    rows = data.train.rows[batch.index]
    assert set(batch.inputs) == {"ids"}
    assert torch.equal((batch.inputs["ids"] > 0).sum(1), 1 + rows % 5)
    groups = [set((part.rows // 3).tolist()) for part in (data.train, data.validation)]
    assert not groups[0] & groups[1]
    assert any("10 groups for training" in note for note in data.notes)
    assert not any("stay together" in note for note in prepared(f"{module}:collated", group=None).notes)
    assert any("are byte-for-byte copies of training examples" in note for note in data.notes)


@pytest.mark.parametrize(
    ("function", "culprits"),
    [
        ("missing", ["'missing'"]),
        ("broken", ["OSError: no such file"]),
        ("other", ["distail.Datasets", "list"]),
        ("unlabeled", ["9 of 9", "item 0", "'ids'", "'label'"]),
        ("named", ["9 items with", "item 0: 'a', item 1: 'b'", "and 4 more", "class_names"]),
        ("halves", ["train: 4 of 9", "item 1: 0.5", "whole number"]),
        ("lacking", ["test: 2 of 4", "not finite", "item 1, item 3"]),
        ("lacking_keywords", ["1 item with", "item 4"]),
        ("outside", ["label 2"]),
        ("ungrouped", ["items of train", "3 of 9 have no group", "number 2 ('None'"]),
        ("stream", ["Endless", "__len__"]),
    ],
)
def test_what_cannot_be_used_is_told(module, function, culprits):
    with pytest.raises(DataError) as told:
        prepared(f"{module}:{function}")
    assert [each for each in culprits if each not in str(told.value)] == []


@pytest.mark.parametrize("function", ["whole", "whole_tensors"])
def test_labels_may_be_whole_numbers_as_floats(module, function):
    data = prepared(f"{module}:{function}", validation=0)
    assert data.train.labels.dtype == torch.int64
    assert data.train.labels.tolist() == [row % 2 for row in range(9)]


def test_a_mask_may_be_minus_infinity(module):
    assert len(prepared(f"{module}:masked", validation=0).train) == 9


@pytest.mark.parametrize(
    "value", [torch.nan, np.float32(np.nan), [1, [-np.inf]], np.array([0, np.inf]), torch.tensor([[np.nan]])], ids=repr
)
def test_what_is_not_finite_is_seen_wherever_it_is(value):
    assert not is_finite((value, 0))
    assert is_finite((torch.full((9,), 60000.0, dtype=torch.float16), value))  # of which the sum is infinite
    assert is_finite({"text": "nan", "ids": [1, 2], "none": None, "label": value})


def test_texts_are_not_tokenized(module):
    data = prepared(f"{module}:texts")
    with pytest.raises(DataError, match="tokenize"):
        next(batches_of(data).epoch(0))


def test_no_code_refuses_it(module, monkeypatch):
    monkeypatch.setenv("DISTAIL_NO_CODE", "1")
    with pytest.raises(DataError, match="--no-code"):
        prepared(f"{module}:load")


def test_the_package_says_what_it_is():
    assert distail.Datasets.__module__ == "distail.data.datasets"
