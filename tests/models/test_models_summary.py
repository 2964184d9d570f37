"""Sizes and MACs against counts by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from distail.models import count_macs, count_parameters, create_model


@settings(deadline=None, max_examples=20)
@given(
    channels=st.sampled_from([2, 4]),
    out=st.sampled_from([4, 8]),
    kernel=st.sampled_from([1, 3]),
    stride=st.integers(1, 2),
    groups=st.integers(1, 2),
    size=st.integers(3, 9),
)
def test_convolution_and_linear_layer(channels, out, kernel, stride, groups, size):
    convolution = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, groups=groups)
    places = ((size - 1) // stride + 1) ** 2
    model = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(out * places, 7))
    weights = out * (channels // groups) * kernel**2
    assert count_macs(model, (channels, size, size)) == places * weights + out * places * 7
    assert count_parameters(model) == weights + out + out * places * 7 + 7


def test_about_41_million_for_resnet20():
    assert count_macs(create_model("resnet20", num_classes=10), (3, 32, 32)) == pytest.approx(40.8e6, rel=0.01)
    assert count_macs(create_model("resnet20", num_classes=10, shortcut="pad"), (3, 32, 32)) == pytest.approx(
        40.8e6, rel=0.01
    )


def test_modes_statistics_and_gradients_are_untouched():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    model[1].eval()
    count_macs(model, (3, 2, 2))
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert torch.equal(model[1].running_mean, torch.zeros(4))
    assert model[0].weight.grad is None


def test_modes_are_restored_after_a_failure():
    model = nn.Sequential(nn.Linear(5, 2))
    with pytest.raises(RuntimeError):
        count_macs(model, (3, 2, 2))
    assert model.training


def test_float64_networks_and_networks_without_parameters():
    assert count_macs(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).double(), (3, 2, 2)) == 24
    assert count_macs(nn.Flatten(), (3, 2, 2)) == 0


def test_shared_and_frozen_parameters():
    layer = nn.Linear(3, 3)
    layer.weight.requires_grad_(False)
    assert count_parameters(nn.Sequential(layer, layer)) == 12
