"""Predictions of a whole data set: in its order, and never silent for long."""

from __future__ import annotations

import torch
from torch import nn

from distail import terminal
from distail.data.dataset import LabeledImages
from distail.models import FeatureTap
from distail.training.device import select_device
from distail.training.predict import predict


def test_a_long_prediction_says_how_far_it_is_and_gives_the_same(monkeypatch):
    torch.manual_seed(0)
    images = LabeledImages(torch.randint(0, 256, (1200, 1, 4, 4), dtype=torch.uint8), torch.zeros(1200).long())
    network = FeatureTap(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), 3, features=False)
    runtime = select_device("cpu", "fp32", 4)
    told: list[str] = []

    quiet = predict(network, images, [0.5], [0.2], runtime, tell=told.append, what="student: test")
    assert told == []

    monkeypatch.setattr(terminal, "LONGEST_SILENCE", 0)
    loud = predict(network, images, [0.5], [0.2], runtime, tell=told.append, what="student: test")
    assert torch.equal(quiet, loud)
    assert told == ["student: test: 512 of 1,200 images", "student: test: 1,024 of 1,200 images"]
