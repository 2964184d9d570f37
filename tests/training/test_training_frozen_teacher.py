"""A frozen teacher: faster, with the answers of its network."""

import threading

import pytest
import torch
from torch import nn

from distail.data.batches import Batch
from distail.models import FeatureTap, create_model
from distail.training.device import RuntimeDevice
from distail.training.frozen_teacher import frozen_teacher

SOME = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def a_teacher(name: str = "resnet8") -> FeatureTap:
    torch.manual_seed(1)
    tap = FeatureTap(create_model(name, num_classes=6), 6)
    with torch.no_grad():
        for _ in range(3):
            tap(torch.randn(16, 3, 32, 32))  # running statistics that are not those of the start
    return tap.eval()


def a_batch(size: int = 8) -> Batch:
    images = torch.randn(size, 3, 32, 32)
    return Batch(torch.arange(size), images, torch.zeros(size, dtype=torch.int64))


@pytest.mark.parametrize(("precision", "share"), [("fp32", 1e-4), ("bf16", 0.05)])
def test_it_says_what_its_network_says(precision, share):
    tap, batch = a_teacher(), a_batch()
    with torch.no_grad():
        expected = tap(batch.inputs)
    said = frozen_teacher(tap, RuntimeDevice(torch.device("cpu"), precision), examples=SOME)(batch)
    for one, other in ((said.logits, expected.logits), (said.features, expected.features)):
        assert (one.float() - other).abs().max() <= share * other.std()


def test_its_network_keeps_weights_and_number_format():
    tap = a_teacher()
    before = {name: value.clone() for name, value in tap.state_dict().items()}
    frozen_teacher(tap, RuntimeDevice(torch.device("cpu"), "bf16"), examples=SOME)(a_batch())
    for name, value in tap.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


def test_a_network_that_refuses_to_be_copied_still_teaches():
    tap, batch = a_teacher(), a_batch()
    tap.model.lock = threading.Lock()
    with torch.no_grad():
        expected = tap(batch.inputs).logits
    said = frozen_teacher(tap, RuntimeDevice(torch.device("cpu"), "fp32"), examples=SOME)(batch).logits
    torch.testing.assert_close(said, expected)


class OutsideAutocast(nn.Module):
    """Its classifier computes in float32, whatever the rest does."""

    def __init__(self, classes: int = 6) -> None:
        super().__init__()
        self.conv, self.norm, self.classifier = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, classes)

    def forward(self, images):
        features = torch.relu(self.norm(self.conv(images))).mean((2, 3))
        with torch.autocast(images.device.type, enabled=False):
            return self.classifier(features.float())


def test_a_network_that_turns_autocast_off_teaches_with_the_weights_that_it_has():
    torch.manual_seed(1)
    tap, batch, runtime = FeatureTap(OutsideAutocast(), 6).eval(), a_batch(), RuntimeDevice(torch.device("cpu"), "bf16")
    with torch.no_grad(), runtime.autocast():
        expected = tap(batch.inputs).logits
    said = frozen_teacher(tap, runtime, examples=SOME)(batch).logits
    assert said.dtype == torch.float32
    assert (said - expected).abs().max() <= 0.01 * expected.std()


def test_what_is_no_image_is_tried_as_well():
    torch.manual_seed(1)
    runtime, rows = RuntimeDevice(torch.device("cpu"), "bf16"), {"left": torch.randn(5, 4), "right": torch.randn(5, 4)}

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = nn.Linear(4, 6)

        def forward(self, left, right):
            with torch.autocast("cpu", enabled=False):
                return self.classifier(left + right)

    tap = FeatureTap(Sum(), 6)
    batch = Batch(torch.arange(5), rows, torch.zeros(5, dtype=torch.int64))
    examples = {name: torch.zeros(4, 4) for name in rows}
    said = frozen_teacher(tap, runtime, examples=examples)(batch).logits
    torch.testing.assert_close(said, tap(**rows).logits)


@pytest.mark.integration
@pytest.mark.slow
def test_compiled_with_its_weights_as_constants():
    tap = a_teacher()
    runtime = RuntimeDevice(torch.device("cpu"), "fp32")
    teacher = frozen_teacher(tap, runtime, compile_size=8, examples=SOME)
    for size in (8, 5, 8):
        batch = a_batch(size)
        with torch.no_grad():
            expected = tap(batch.inputs)
        said = teacher(batch)
        assert (said.logits - expected.logits).abs().max() <= 1e-4 * expected.logits.std()
        assert said.features is not None
        (said.logits * torch.ones(6, requires_grad=True)).sum().backward()  # ordinary tensors
