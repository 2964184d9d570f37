"""The CIFAR ResNets' own parts against plain numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from distail.models import create_model
from distail.models.layers import ResidualBlock
from distail.models.resnet import PadShortcut


def pad_oracle(maps_NCHW: np.ndarray, out_channels: int, stride: int) -> np.ndarray:
    batch, channels, height, width = maps_NCHW.shape
    rows, columns = range(0, height, stride), range(0, width, stride)
    out = np.zeros((batch, out_channels, len(rows), len(columns)))
    first = (out_channels - channels) // 2
    for channel in range(channels):
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                out[:, first + channel, i, j] = maps_NCHW[:, channel, row, column]
    return out


@settings(deadline=None, max_examples=40)
@given(
    channels=st.integers(1, 5),
    extra=st.integers(0, 6),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    stride=st.integers(1, 3),
)
def test_pad_shortcut_against_loops(channels, extra, height, width, stride):
    maps_NCHW = np.random.default_rng(0).normal(size=(2, channels, height, width))
    actual = PadShortcut(channels, channels + extra, stride)(torch.from_numpy(maps_NCHW))
    np.testing.assert_array_equal(actual.numpy(), pad_oracle(maps_NCHW, channels + extra, stride))


def test_pad_shortcut_halves_resolution_and_puts_a_quarter_of_zeros_on_each_side():
    out = PadShortcut(16, 32, 2)(torch.ones(1, 16, 32, 32))
    assert out.shape == (1, 32, 16, 16)
    assert out.amax((0, 2, 3)).tolist() == [0.0] * 8 + [1.0] * 16 + [0.0] * 8


@pytest.mark.parametrize("name", ["resnet20", "resnet8x4"])
def test_pad_networks_have_no_parameters_beside_the_branches(name):
    with_conv = dict(create_model(name, num_classes=3).named_parameters())
    with_pad = dict(create_model(name, num_classes=3, shortcut="pad").named_parameters())
    assert {key for key in with_conv if key not in with_pad} == {key for key in with_conv if ".shortcut." in key}
    assert set(with_pad) <= set(with_conv)


@pytest.mark.parametrize(("name", "projections"), [("resnet20", 2), ("resnet8x4", 3)])
def test_projections_only_where_the_shape_changes(name, projections):
    blocks = [module for module in create_model(name, num_classes=3).modules() if isinstance(module, ResidualBlock)]
    assert sum(not isinstance(block.shortcut, nn.Identity) for block in blocks) == projections


@pytest.mark.parametrize(("depth", "blocks"), [(8, 3), (20, 9), (110, 54)])
def test_depth_counts_blocks(depth, blocks):
    model = create_model(f"resnet{depth}", num_classes=3)
    assert sum(isinstance(module, ResidualBlock) for module in model.modules()) == blocks


def test_residual_block_is_relu_of_the_sum():
    branch, shortcut = nn.Linear(4, 4).double(), nn.Linear(4, 4).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    before = x.clone()
    expected = np.maximum(branch(x).detach().numpy() + shortcut(x).detach().numpy(), 0)
    np.testing.assert_allclose(ResidualBlock(branch, shortcut)(x).detach().numpy(), expected)
    np.testing.assert_allclose(
        ResidualBlock(branch)(x).detach().numpy(), np.maximum(branch(x).detach().numpy() + x.numpy(), 0)
    )
    assert torch.equal(x, before)


@pytest.mark.parametrize(("shortcut", "fan"), [("conv", "out"), ("pad", "in")])
def test_each_line_starts_as_its_published_code(shortcut, fan):
    torch.manual_seed(0)
    model = create_model("resnet32x4", num_classes=100, shortcut=shortcut)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    for convolution in convolutions:
        out_channels, in_channels, height, width = convolution.weight.shape
        fans = {"in": in_channels * height * width, "out": out_channels * height * width}
        if convolution.weight.numel() > 10_000:
            assert convolution.weight.std().item() == pytest.approx(math.sqrt(2 / fans[fan]), rel=0.05)
    kaiming_linear = model.classifier.weight.std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.05)
    assert kaiming_linear == (shortcut == "pad")
