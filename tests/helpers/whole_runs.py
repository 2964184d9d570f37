"""Whole runs on digits that tests share: a small experiment, and what watches or stops it."""

from __future__ import annotations

import os
import signal

import distail
from distail.training.progress import Silent


def experiment(folder, method="bkd", **changes):
    return {
        "name": "try",
        "output": str(folder),
        "data": {"name": "digits", "imbalance_factor": 20, "augment": ["crop"], "validation": 0.1},
        "teacher": {"model": "same", "training": {"epochs": 2}},
        "student": "resnet8",
        "method": method,
        "training": {"epochs": 2, "batch_size": 128, "learning_rate": 0.05, "schedule": "one-cycle"},
        "trainer": {"device": "cpu", "checkpoint_every_steps": 3},
        **changes,
    }


class Killed(Silent):
    """Stops the process's training at one step of one stage."""

    def __init__(self, stage, step):
        self.wanted, self.left, self.stage = stage, step, None

    def start(self, stage, epochs, steps_per_epoch, done_steps):
        self.stage = stage

    def step(self):
        if self.stage == self.wanted:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGINT)


class Recorder(Silent):
    def __init__(self):
        self.messages, self.started = [], []

    def message(self, text):
        self.messages.append(text)

    def start(self, stage, epochs, steps_per_epoch, done_steps):
        self.started.append((stage, done_steps))


def run(config, reporter=None):
    return distail.run(config, reporter=reporter or Silent())
