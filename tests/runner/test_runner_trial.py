"""What two real batches tell of a network before anything is trained, and what a loaded teacher is told to be."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from distail.data.prepare import prepare_data
from distail.errors import ConfigError, ModelError
from distail.models import FeatureTap, create_model
from distail.runner.trial import look_at_loaded, try_training
from distail.training.device import RuntimeDevice
from helpers.whole_runs import Recorder, experiment, run

pytestmark = pytest.mark.integration
RESNET8 = {"model": "resnet8", "training": {"epochs": 1}}
CPU = RuntimeDevice(torch.device("cpu"), "fp32")
NETWORKS = """
from torch import nn
from torch.nn import functional as F


class Plain(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        convolution = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.body = nn.Sequential(convolution, nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1))
        self.fc = nn.Linear(8 * 64, num_classes)

    def forward(self, images):
        return self.fc(self.body(images).flatten(1))


class Frozen(Plain):
    def __init__(self, num_classes, in_channels):
        super().__init__(num_classes, in_channels)
        self.requires_grad_(False)


class Detached(Plain):
    def forward(self, images):
        return super().forward(images).detach()


class FailsInTraining(Plain):
    def forward(self, images):
        if self.training:
            raise KeyError("memory")
        return super().forward(images)


class Inception(Plain):
    def forward(self, images):
        logits = super().forward(images)
        return (logits, logits) if self.training else logits


class OtherInTraining(Plain):
    def forward(self, images):
        logits = super().forward(images)
        return logits[:, :3] if self.training else logits


class SecondHead(Plain):
    def __init__(self, num_classes, in_channels):
        super().__init__(num_classes, in_channels)
        self.unused = nn.Linear(5, num_classes)


class Softmax(Plain):
    def forward(self, images):
        return super().forward(images).softmax(1)


class Sigmoid(Plain):
    def forward(self, images):
        return super().forward(images).sigmoid()


class InPlace(Plain):
    def forward(self, images):
        return super().forward(F.relu(images.sub_(0.3).div_(0.2), inplace=True))


class OutOfPlace(Plain):
    def forward(self, images):
        return super().forward(F.relu((images - 0.3) / 0.2))
"""


class OnlyUntrained(Recorder):
    def start(self, stage, epochs, steps_per_epoch, done_steps):
        raise AssertionError(f"training of the {stage} has begun")


@pytest.fixture(scope="module")
def digits():
    return prepare_data("digits", imbalance_factor=10)


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """The networks as a module that can be imported, under a name that no other test has used."""
    monkeypatch.chdir(tmp_path)
    name = f"nets_{random.randrange(10**12)}"
    (tmp_path / f"{name}.py").write_text(NETWORKS)
    return name


def tapped(nets, name, **options):
    torch.manual_seed(0)
    return FeatureTap(create_model(f"{nets}:{name}", num_classes=10, in_channels=1, image_size=8), 10, **options)


def state_of(network):
    modes = [module.training for module in network.modules()]
    return {name: value.clone() for name, value in network.state_dict().items()}, modes, torch.get_rng_state()


def test_nothing_is_found_and_nothing_changes(digits, nets):
    network = tapped(nets, "Plain")
    network.model.body[1].eval()
    before = state_of(network)
    assert try_training(network, "student", digits, 64, CPU) == []
    after = state_of(network)
    assert all(torch.equal(value, after[0][name]) for name, value in before[0].items())
    assert before[1] == after[1]
    assert torch.equal(before[2], after[2])
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Frozen", "student: all its parameters are frozen"),
        ("Detached", r"student: its outputs are cut off .*detach\(\)"),
        ("FailsInTraining", r"student: the network failed in training mode .*KeyError: 'memory' .*line \d+"),
        ("OtherInTraining", r"student: .*logits \(B, 10\), got shape \(32, 3\)"),
    ],
)
def test_what_cannot_learn_is_refused(digits, nets, name, told):
    with pytest.raises(ModelError, match=told):
        try_training(tapped(nets, name), "student", digits, 64, CPU)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Inception", "the student gives tuple"),
        (
            "SecondHead",
            "2 of the student's 8 parameters get no gradient and do not change: unused.bias, unused.weight",
        ),
        ("Softmax", "the student returns probabilities"),
        ("Sigmoid", "the student returns sigmoids"),
    ],
)
def test_what_is_odd_is_told_once(digits, nets, name, told):
    (said,) = try_training(tapped(nets, name, features=False), "student", digits, 64, CPU)
    assert said.startswith(told)


@pytest.mark.parametrize("name", ["Frozen", "Detached", "FailsInTraining"])
def test_a_run_refuses_its_student_before_the_teacher_is_trained(tmp_path, nets, name):
    with pytest.raises(ModelError, match=r"^student: "):
        run(experiment(tmp_path / "run", "kd", student=f"{nets}:{name}"), OnlyUntrained())


@pytest.mark.parametrize("method", ["kd", "krdistill"])
def test_a_second_head_is_accepted_with_and_without_features(tmp_path, nets, method):
    recorder = Recorder()
    result = run(experiment(tmp_path / "run", method, student=f"{nets}:SecondHead", teacher=RESNET8), recorder)
    (note,) = [note for note in result.figures["notes"] if "unused.weight" in note]
    assert recorder.messages.count(note) == 1


@pytest.fixture
def teacher(tmp_path, nets):
    """A trained network, as its weights and a function that stores them for other networks."""
    plain = experiment(tmp_path / "plain", "ce", teacher=None, student=f"{nets}:Plain", training=TRAINING)
    run(plain)
    return tmp_path / "plain" / "student.safetensors"


TRAINING = {"epochs": 6, "batch_size": 64, "learning_rate": 0.05, "schedule": "one-cycle"}


@pytest.mark.parametrize("views", [0, 1])
def test_a_teacher_that_changes_its_images_in_place_gives_the_same_student(tmp_path, nets, teacher, views):
    students = []
    for name in ("InPlace", "OutOfPlace"):
        loaded = {"model": f"{nets}:{name}", "checkpoint": str(teacher), "views": views}
        run(experiment(tmp_path / name, "kd", teacher=loaded))
        students.append((tmp_path / name / "student.safetensors").read_bytes())
    assert students[0] == students[1]


def test_a_student_that_changes_its_images_in_place_learns_the_same(tmp_path, nets):
    students = []
    for name in ("InPlace", "OutOfPlace"):
        run(experiment(tmp_path / name, "kd", student=f"{nets}:{name}"))
        students.append(load_file(tmp_path / name / "student.safetensors"))
    assert all(torch.equal(value, students[1][key]) for key, value in students[0].items())


@pytest.mark.parametrize("name", ["Softmax", "Sigmoid"])
def test_a_loaded_teacher_that_gives_probabilities_is_told(tmp_path, nets, teacher, name):
    recorder = Recorder()
    loaded = {"model": f"{nets}:{name}", "checkpoint": str(teacher)}
    result = run(experiment(tmp_path / "run", "kd", teacher=loaded), recorder)
    (note,) = result.figures["notes"][-1:]
    assert f"remove its last {name.lower()}" in note
    assert recorder.messages.count(note) == 1


def test_a_teacher_whose_classes_are_in_another_order(digits, nets, teacher):
    network = tapped(nets, "Plain")
    network.model.load_state_dict(load_file(teacher))
    assert look_at_loaded(network, "teacher", digits, CPU) == []
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    with torch.no_grad():
        network.model.fc.weight.copy_(network.model.fc.weight[order].clone())
        network.model.fc.bias.copy_(network.model.fc.bias[order].clone())
    (said,) = look_at_loaded(network, "teacher", digits, CPU)
    assert "in the order '3', '1', '4', '0', '5'" in said


def test_a_loaded_teacher_that_knows_nothing_or_gives_no_numbers(digits, nets, teacher):
    network = tapped(nets, "Plain")
    network.model.load_state_dict(load_file(teacher))
    with torch.no_grad():
        network.model.body[1].running_var.fill_(-1)
        with pytest.raises(ModelError, match=r"teacher .*not finite for 588 of 588"):
            look_at_loaded(network, "teacher", digits, CPU)
        network.model.body[1].running_var.fill_(1)
        network.model.fc.weight.zero_()
    (said,) = look_at_loaded(network, "teacher", digits, CPU)
    assert "recalls 10.0 % of a class" in said
    assert "guessing recalls 10.0 %" in said


def test_weights_are_looked_at_before_images_are_read(tmp_path, nets):
    (tmp_path / "garbage.pth").write_bytes(b"garbage")
    torch.save({"ema": {"a": torch.zeros(1)}, "raw": {"a": torch.zeros(1)}}, tmp_path / "two.ckpt")
    wrong = experiment(
        tmp_path / "run",
        "kd",
        data={"name": "folder", "root": str(tmp_path / "nowhere")},
        teacher={"model": "resnet8", "checkpoint": str(tmp_path / "garbage.pth")},
        student={"model": {"name": "resnet8", "weights": str(tmp_path / "two.ckpt")}},
    )
    with pytest.raises(ConfigError) as caught:
        run(wrong)
    message = str(caught.value)
    assert "teacher.checkpoint: " in message
    assert "garbage.pth is not a safetensors file" in message
    assert "student.model.weights: " in message
    assert "'ema'" in message


BUILDERS = {
    "resnet8": lambda name, told: create_model(name, num_classes=10, in_channels=1, image_size=int(told["image_size"])),
    "vgg8": lambda name, told: create_model(name, num_classes=10, in_channels=1, image_size=int(told["image_size"])),
}


@pytest.mark.parametrize("name", ["resnet8", "vgg8", "Plain"])
def test_a_students_file_says_how_to_feed_it(tmp_path, nets, name):
    """With nothing but the file, torch, safetensors and the network's own builder: the same logits."""
    student = name if name in BUILDERS else f"{nets}:{name}"
    run(experiment(tmp_path / "run", "ce", teacher=None, student=student))
    path = tmp_path / "run" / "student.safetensors"
    assert_the_same_logits(path, tmp_path / "run", lambda told: own_builder(nets, name, told))


def own_builder(nets, name, told) -> nn.Module:
    if name in BUILDERS:
        return BUILDERS[name](told["model"], told)
    return getattr(__import__(nets), name)(len(json.loads(told["class_names"])), int(told["in_channels"]))


def assert_the_same_logits(path: Path, folder: Path, build) -> None:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        told = file.metadata()
    network = build(told).eval()
    network.load_state_dict(load_file(path))
    mean, std = (torch.tensor(json.loads(told[key]))[:, None, None] for key in ("mean", "std"))
    images = prepare_data("digits").test.images.float() / 255
    stored = load_file(folder / "predictions.safetensors")["logits"]
    with torch.no_grad():
        torch.testing.assert_close(network((images - mean) / std), stored, atol=1e-4, rtol=1e-4)
