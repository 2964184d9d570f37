"""Weights that training begins with, and inputs that are normalized otherwise than those they learned from."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from distail.errors import CheckpointError
from distail.models import save_weights
from distail.models.timm_bridge import TimmModel
from distail.runner.normalization import normalization_notes

DATA = SimpleNamespace(mean=(0.305, 0.5), std=(0.376, 0.25))


def told(path, metadata, network=None):
    network = network or nn.Linear(2, 2)
    save_weights(network, path, metadata)
    return normalization_notes(network, path, DATA, "mine")


def test_another_normalization_is_told_with_both(tmp_path):
    path = tmp_path / "a.safetensors"
    [note] = told(path, {"mean": "[0, 0.5]", "std": "[1.0, 0.25]"})
    assert all(words in note for words in (f"mine: {path}", "0, 0.5", "1, 0.25", "0.305, 0.5", "0.376, 0.25", "frozen"))


@pytest.mark.parametrize(
    "metadata",
    [
        {"mean": "[0.305, 0.5]", "std": "[0.376, 0.25]"},
        {"mean": "[0.31, 0.49]", "std": "[0.37, 0.255]"},  # another part of the same data
        {"model": "resnet8"},
        {},
    ],
)
def test_the_same_and_one_that_nobody_knows_are_not(tmp_path, metadata):
    assert told(tmp_path / "a.safetensors", metadata) == []


def test_files_of_torch_say_nothing(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "a.pth")
    assert normalization_notes(nn.Linear(2, 2), tmp_path / "a.pth", DATA, "mine") == []


def test_a_network_of_timm_converts_to_its_own(tmp_path):
    own = {"mean_from": DATA.mean, "std_from": DATA.std, "mean": [0.4, 0.4], "std": [0.2, 0.2]}
    network = TimmModel(nn.Linear(2, 2), **own)
    assert told(tmp_path / "a.safetensors", {"mean": "[0.4, 0.4]", "std": "[0.2, 0.2]"}, network) == []
    assert told(tmp_path / "a.safetensors", {"mean": "[0.305, 0.5]", "std": "[0.376, 0.25]"}, network) != []


def test_numbers_that_are_damaged_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="mean"):
        told(tmp_path / "a.safetensors", {"mean": "[0.3", "std": "[1]"})
