"""Size and time of a finished network, and that nothing about measuring them can cost a run its result."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from distail.models import create_model
from distail.runner.deployment import deployment_of
from distail.runner.run_folder import RunFolder
from helpers.whole_runs import Recorder


@pytest.fixture
def context(tmp_path):
    (tmp_path / "student.safetensors").write_bytes(bytes(1234))
    images = SimpleNamespace(image_shape=(3, 16, 16))
    return SimpleNamespace(folder=RunFolder(tmp_path), data=SimpleNamespace(train=images), reporter=Recorder())


def test_more_work_takes_longer_and_everything_is_as_before(context):
    threads = torch.get_num_threads()
    networks = [create_model(name, num_classes=5).train() for name in ("resnet8", "resnet56")]
    small, large = (deployment_of(context, "student", network) for network in networks)
    assert small["bytes"] == large["bytes"] == 1234
    assert small["processor"]
    assert small["latency"]["median_ms"] < large["latency"]["median_ms"]
    assert small["latency"]["threads"] == small["latency"]["batch"] == 1
    assert torch.get_num_threads() == threads
    assert all(network.training for network in networks)
    assert context.reporter.messages == []


class OnlyThere(nn.Module):
    def forward(self, images):
        raise RuntimeError("Expected all tensors to be on the same device\nand more")


def test_a_network_that_does_not_run_here_is_told_and_costs_nothing_else(context):
    threads = torch.get_num_threads()
    assert deployment_of(context, "student", OnlyThere())["latency"] is None
    (message,) = context.reporter.messages
    assert message.startswith("student: ")
    assert "Expected all tensors to be on the same device)" in message
    assert torch.get_num_threads() == threads
