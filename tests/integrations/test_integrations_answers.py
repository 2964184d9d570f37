"""Files of answers in the order of a data set of one's own."""

import json

import numpy as np
import pytest
import torch

from distail.errors import DataError
from distail.files import write_tensors
from distail.integrations.answers import StoredAnswers
from distail.integrations.data import IndexedDataset

LOGITS = torch.linspace(-3, 4, 20).view(5, 4).sin() * 3
NAMES = ["a", "b", "c", "d"]


def texts(values):
    width = max(map(len, values))
    return torch.from_numpy(np.array([value.encode() for value in values], dtype=f"S{width}")[:, None].view(np.uint8))


SPLITS = texts(["train", "train", "train", "test", "test"])


def test_the_largest_by_path_as_teach_writes_them(tmp_path):
    values, indices = LOGITS.log_softmax(1).topk(2)
    tensors = {"values": values, "indices": indices.to(torch.uint8), "split": SPLITS}
    tensors["path"] = texts(["x/1.png", "x/2.png", "y/3.png", "x/4.png", "y/5.png"])
    write_tensors(tmp_path / "top.safetensors", tensors, {"class_names": json.dumps(NAMES)})
    answers = StoredAnswers(tmp_path / "top.safetensors", ["y/3.png", "x/1.png"])
    assert len(answers) == 2
    for position, row in enumerate([2, 0]):
        shares, said = LOGITS[row].softmax(0), answers[position].softmax(0)
        assert said[indices[row]].tolist() == pytest.approx(shares[indices[row]].tolist())
        rest = np.setdiff1d(np.arange(4), indices[row])
        assert said[rest].tolist() == pytest.approx([(1 - shares[indices[row]].sum().item()) / 2] * 2)
    other = StoredAnswers(tmp_path / "top.safetensors", ["y/3.png"], class_names=NAMES[::-1])
    assert torch.equal(other[0], answers[0].flip(0))
    with pytest.raises(DataError, match=r"1 of 2 samples .* by path: 'y/3'"):
        StoredAnswers(tmp_path / "top.safetensors", ["y/3", "x/1.png"])
    with pytest.raises(DataError, match=r"'x/1.png'; expected keys="):
        StoredAnswers(tmp_path / "top.safetensors")


def test_ids_count_the_training_part(tmp_path):
    file = tmp_path / "answers.safetensors"
    tensors = {"logits": LOGITS, "split": SPLITS, "id": torch.tensor([2, 0, 1, 0, 1], dtype=torch.int32)}
    write_tensors(file, tensors, {})
    items = IndexedDataset([("image", 0)] * 3, StoredAnswers(file))
    assert torch.equal(torch.stack([items[row][3] for row in range(3)]), LOGITS[[1, 2, 0]])
    assert torch.equal(StoredAnswers(file, [2])[0], LOGITS[0])
    views = torch.tensor([0, 1, -1, -1, -1], dtype=torch.int16)
    write_tensors(tmp_path / "views.safetensors", {**tensors, "view": views}, {})
    assert torch.equal(StoredAnswers(tmp_path / "views.safetensors", [1])[0], LOGITS[2])
    with pytest.raises(DataError, match="by id: 2"):
        StoredAnswers(tmp_path / "views.safetensors", [1, 2])
    write_tensors(tmp_path / "twice.safetensors", {**tensors, "id": torch.tensor([0, 0, 1, 0, 1])}, {})
    with pytest.raises(DataError, match="not unique"):
        StoredAnswers(tmp_path / "twice.safetensors")


def test_rows_as_they_lie_and_numbers_that_are_none(tmp_path):
    np.savez(tmp_path / "plain.npz", logits=LOGITS.numpy(), split=["train", "test", "train", "test", "train"])
    assert torch.equal(StoredAnswers(tmp_path / "plain.npz")[1], LOGITS[2])
    with pytest.raises(DataError, match="neither path nor id"):
        StoredAnswers(tmp_path / "plain.npz", [0])
    bad = LOGITS.clone()
    bad[1, 2] = torch.nan
    np.savez(tmp_path / "bad.npz", logits=bad.numpy())
    with pytest.raises(DataError, match="not finite in 1 row"):
        StoredAnswers(tmp_path / "bad.npz")
