"""Stages small enough to train in a second, and how tests train and compare them."""

import os
import signal
from contextlib import closing

import torch
from torch import nn

from distail.config.schema import Training
from distail.data.batches import TrainingBatches
from distail.data.dataset import LabeledImages
from distail.evaluation.metrics import evaluate_predictions
from distail.methods.presets import create_method
from distail.models import FeatureTap
from distail.training.checkpoint import CheckpointFolder
from distail.training.device import RuntimeDevice
from distail.training.history import History
from distail.training.loop import fit
from distail.training.progress import Silent
from distail.training.stage import Stage

COUNTS = (20, 10, 5)
CPU = RuntimeDevice(torch.device("cpu"), "fp32")


class Network(nn.Module):
    """Has dropout and batch norm: both must survive a resume."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2))
        self.classifier = nn.Linear(4 * 36, 3)

    def forward(self, images):
        return self.classifier(self.body(images))


def images():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(torch.tensor(COUNTS))
    pixels = torch.randint(0, 160, (len(labels), 1, 8, 8), generator=generator, dtype=torch.uint8)
    # A bright row that tells the class, far enough from the others' for a crop to move it by one.
    pixels[torch.arange(len(labels)), 0, 3 * labels] = 255
    return LabeledImages(pixels, labels)


def stage(method="kd", *, teacher=True, validate=None, runtime=CPU, **training):
    torch.manual_seed(1)
    student, data = FeatureTap(Network(), 3), images()
    settings = Training(**{"epochs": 3, "batch_size": 8, "learning_rate": 0.05, **training})
    teacher_network = FeatureTap(Network(), 3).eval()

    def listen(batch):
        with torch.no_grad():
            return teacher_network(batch.inputs)

    return Stage(
        name="student",
        student=student,
        teacher=listen if teacher else None,
        method=create_method(method, class_counts=COUNTS),
        batches=TrainingBatches(
            data,
            batch_size=8,
            mean=[0.4],
            std=[0.2],
            augment=["crop", "flip"],
            num_classes=3,
            seed=5,
            mix=settings.mix,
        ),
        validate=validate,
        training=settings,
        runtime=runtime,
        seed=5,
    )


def train(stage, folder, every=4, reporter=None):
    with closing(History(folder)) as history:
        return fit(stage, CheckpointFolder(folder / "checkpoints"), history, reporter or Silent(), every)


class StopAfter(Silent):
    """Sends this process a signal after some steps, as Ctrl-C would."""

    def __init__(self, steps, number=signal.SIGINT):
        self.left, self.number = steps, number

    def step(self):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)


def weights(stage):
    return {name: value.clone() for name, value in stage.student.model.state_dict().items()}


def assert_equal_weights(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def balanced(tap):
    data = images()
    was = tap.training
    tap.eval()
    with torch.no_grad():
        logits = tap((data.images.float() / 255 - 0.4) / 0.2).logits
    tap.train(was)
    return evaluate_predictions(logits, data.labels, COUNTS)
