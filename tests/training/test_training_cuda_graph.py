"""A recorded step: on a GPU against the same training step by step; anywhere, what a recording must leave alone."""

from pathlib import Path

import pytest
import torch
from torch import nn

from distail import create_method
from distail.config.schema import Schedule, Training
from distail.config.training import Mix
from distail.data.batches import TrainingBatches
from distail.data.dataset import LabeledImages
from distail.models import FeatureTap, create_model
from distail.training import cuda_graph
from distail.training.cuda_graph import NotRecordedError, can_record
from distail.training.device import RuntimeDevice
from distail.training.frozen_teacher import frozen_teacher
from distail.training.progress import Silent
from distail.training.stage import Stage
from helpers.small_stages import train

CLASSES, IMAGES, SIZE = 5, 44, 16  # the last batch of an epoch is smaller
MIX = Mix(name="cutmix", alpha=1.0, share=0.5, labels="distillation_only")


class Replayed:
    """Stands for a CUDA graph where there is no GPU: runs the work again, on and into the recorded tensors."""

    def __init__(self, work, given):
        self.inputs = {name: tensor.clone() for name, tensor in given.items()}
        for _ in range(4):
            self.outputs = work(self.inputs)
        self.work = work

    def fits(self, given):
        return {name: one.shape for name, one in given.items()} == {
            name: one.shape for name, one in self.inputs.items()
        }

    def __call__(self, given):
        for name, one in self.inputs.items():
            one.copy_(given[name])
        return self.work(self.inputs)


def trained(folder: Path, device: torch.device, method: str, *, recorded: bool, mix: Mix | None = MIX, epochs: int = 2):
    runtime = RuntimeDevice(device, "fp32")
    generator = torch.Generator().manual_seed(0)
    data = LabeledImages(
        torch.randint(0, 256, (IMAGES, 3, 16, 16), dtype=torch.uint8, generator=generator),
        torch.randint(0, CLASSES, (IMAGES,), generator=generator),
    )
    torch.manual_seed(0)
    teacher, student = (FeatureTap(create_model("resnet8", num_classes=CLASSES), CLASSES).to(device) for _ in range(2))
    training = Training(
        epochs=epochs, batch_size=SIZE, schedule=Schedule(name="cosine"), mix=mix, ema_decay=0.9, gradient_clip=1.0
    )
    batches = TrainingBatches(
        data,
        batch_size=SIZE,
        mean=[0.5] * 3,
        std=[0.5] * 3,
        augment=("crop", "flip", "trivial_augment"),
        num_classes=CLASSES,
        seed=0,
        mix=mix,
        device=device,
        channels_last=runtime.channels_last,
    )
    ask = frozen_teacher(teacher, runtime, graph_sizes=[SIZE] if recorded else (), examples=torch.randn(2, 3, 16, 16))
    made = create_method(
        method, class_counts=[9] * CLASSES, student_dim=student.feature_dim, teacher_dim=teacher.feature_dim
    ).to(device)
    stage = Stage(
        name="student",
        student=student,
        teacher=ask if made.needs.teacher else None,
        method=made,
        batches=batches,
        validate=None,
        training=training,
        runtime=runtime,
        seed=0,
        cuda_graph=recorded,
        prepare=lambda: made.prepare((ask(batch), batch.labels) for batch in batches.epoch(0)),
    )
    fitted = train(stage, folder, every=10**9)
    rows = [{"loss": row["loss"], **row["terms"], **row["statistics"]} for row in fitted.history]
    return rows, {name: value.cpu() for name, value in student.model.state_dict().items()}


METHODS = ("ce", "kd", "bkd", "krdistill", "ipwd", "dkd", "dist", "distail", "ltkd")


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS)
def test_a_recorded_training_is_the_same(tmp_path, method):
    torch.backends.cudnn.deterministic = True
    device = torch.device("cuda")
    rows, weights = trained(tmp_path / "plain", device, method, recorded=False)
    again, replayed = trained(tmp_path / "recorded", device, method, recorded=True)
    torch.backends.cudnn.deterministic = False
    for one, other in zip(rows, again, strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-4)
    for name, value in weights.items():
        torch.testing.assert_close(replayed[name], value, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_recording_leaves_no_trace(tmp_path, method, monkeypatch):
    """On a CPU, with what stands for a graph: nothing of the runs before the recording is left in the training."""
    device = torch.device("cpu")
    monkeypatch.setattr(cuda_graph, "CudaGraph", Replayed)
    rows, weights = trained(tmp_path / "plain", device, method, recorded=False)
    monkeypatch.setattr("distail.training.loop.records", lambda stage: stage.cuda_graph)
    again, replayed = trained(tmp_path / "recorded", device, method, recorded=True)
    assert rows == again
    for name, value in weights.items():
        assert torch.equal(replayed[name], value), name


class Refused:
    """Stands for work that cannot be recorded, which shows only while it is."""

    def __init__(self, work, given):
        work({name: tensor.clone() for name, tensor in given.items()})
        raise NotRecordedError("it waits")


def test_what_cannot_be_recorded_goes_on_as_it_is_and_is_told(tmp_path, monkeypatch):
    device, told = torch.device("cpu"), []
    rows, weights = trained(tmp_path / "plain", device, "bkd", recorded=False)
    monkeypatch.setattr(cuda_graph, "CudaGraph", Refused)
    monkeypatch.setattr("distail.training.loop.records", lambda stage: stage.cuda_graph)
    monkeypatch.setattr(Silent, "message", lambda self, text: told.append(text))
    again, refused = trained(tmp_path / "refused", device, "bkd", recorded=True)
    assert rows == again
    assert all(torch.equal(refused[name], value) for name, value in weights.items())
    assert len(told) == 1
    assert "it waits" in told[0]


def sharpened(context, logits):
    return logits * (1 + context.progress.fraction)


def test_code_of_ones_own_is_not_recorded_unasked_and_belongs_to_its_epoch():
    method = create_method({"divergence": "kl", "targets": [f"{__name__}:sharpened"]}, class_counts=[3, 1])
    assert not can_record(method)
    states = []
    for epoch in range(2):
        method.begin_epoch(epoch, 2)
        states.append(method.host_state())
    assert states[0] != states[1]


@pytest.mark.parametrize("changes", [False, True])
def test_a_step_is_recorded_again_only_where_the_host_decides_otherwise(changes):
    given = {"divergence": "kl", "targets": [{"name": "reweigh", "defer_until": 0.5}]} if changes else "dkd"
    method = create_method(given, class_counts=[3, 1])
    states = []
    for epoch in range(4):
        method.begin_epoch(epoch, 4)
        states.append(method.host_state())
    assert (states[0] != states[3]) == changes
    assert states[0] == states[1]


class Own(nn.Module):
    def forward(self, images):
        return images.flatten(1)[:, :2]


def test_what_is_made_of_known_layers_can_be_recorded():
    assert can_record(create_model("resnet8", num_classes=2), create_method("bkd", class_counts=[3, 1]))
    assert not can_record(nn.Sequential(Own(), nn.Linear(2, 2)))
