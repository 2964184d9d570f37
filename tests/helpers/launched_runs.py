"""Runs that several processes share, and the same runs alone."""

import os
from pathlib import Path

import distail
from distail.training.progress import Silent

EPOCHS, BATCH = 2, 59

NETWORKS = """
import os

import torch
from torch import nn


class Plain(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_channels, 8, 3, stride=2), nn.ReLU(), nn.Flatten())
        self.classifier = nn.Linear(72, num_classes)

    def forward(self, images):
        return self.classifier(self.body(images))


class WithUnused(Plain):
    def __init__(self, num_classes, in_channels):
        super().__init__(num_classes, in_channels)
        self.never_called = nn.Linear(3, 3)


class DropsLayers(Plain):
    # LayerDrop: every process leaves out others.


    def __init__(self, num_classes, in_channels):
        super().__init__(num_classes, in_channels)
        self.layers = nn.ModuleList(nn.Linear(72, 72) for _ in range(3))

    def left_out(self):
        return self.training and bool(torch.rand(()) < 0.3)

    def forward(self, images):
        found = self.body(images)
        for layer in self.layers:
            if not self.left_out():
                found = found + layer(found)
        return self.classifier(found)


class DropsOneLate(DropsLayers):
    # In one process, and later than any look before training.

    asked = 0

    def left_out(self):
        self.asked += self.training
        return self.asked == 72 and os.environ.get("RANK") == "1"
"""


def experiment(output, **changes):
    training = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": 0.05, **changes.pop("training", {})}
    return {
        "name": "launched",
        "output": str(output),
        "data": {"name": "digits", "imbalance_factor": 15, "augment": ["crop"], "validation": 0.1},
        "teacher": {"model": "networks:Plain", "training": {"epochs": 1}},
        "student": "networks:Plain",
        "training": training,
        "trainer": {"device": "cpu", "precision": "fp32", "checkpoint_every_steps": 5},
        **changes,
    }


def alone(config):
    return distail.run(config, reporter=Silent())


def launched_environment(folder):
    paths = [str(Path(distail.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
