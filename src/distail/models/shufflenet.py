"""ShuffleNet V1 (Zhang 2018, 3 groups) and V2 (Ma 2018, 1x). [code]

`shufflenetv1` and `shufflenetv2` have a 1x1 stem, as in RepDistiller. `shufflenetv2-stem3` has a 3x3 stem without
activation, biases, and down blocks that stay narrow longer, as in DR-KD's code (from pytorch-cifar100).

The configurations that name them (`distail configs`: `cifar100-ipwd-*-shufflenet*`, `cifar100-drkd-shufflenetv2`) were
never run here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distail.models.layers import Network, ResidualBlock, conv_norm, conv_norm_relu, create_classifier, named

_STEM = 24


def _grouped_branch(in_channels: int, out_channels: int, hidden: int, stride: int, groups: int) -> nn.Sequential:
    first_groups = 1 if in_channels == _STEM else groups
    return nn.Sequential(
        *conv_norm_relu(in_channels, hidden, 1, groups=first_groups),
        nn.ChannelShuffle(first_groups),
        *conv_norm_relu(hidden, hidden, 3, stride, groups=hidden),
        *conv_norm(hidden, out_channels, 1, groups=groups),
    )


class GroupedDownBlock(nn.Module):
    """V1, stride 2: the new channels come beside the averaged old ones."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        new_channels = out_channels - in_channels
        self.branch = _grouped_branch(in_channels, new_channels, new_channels // 4, 2, groups)
        self.shortcut = nn.AvgPool2d(3, stride=2, padding=1)

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        return F.relu(torch.cat([self.branch(maps_NCHW), self.shortcut(maps_NCHW)], 1), inplace=True)


def grouped_stage(in_channels: int, out_channels: int, blocks: int) -> nn.Sequential:
    groups = 3
    stage = nn.Sequential(GroupedDownBlock(in_channels, out_channels, groups))
    for _ in range(blocks - 1):
        stage.append(ResidualBlock(_grouped_branch(out_channels, out_channels, out_channels // 4, 1, groups)))
    return stage


class SplitBlock(nn.Module):
    """V2, stride 1: half the channels pass untouched."""

    def __init__(self, channels: int, *, bias: bool) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            *conv_norm_relu(half, half, 1, bias=bias),
            *conv_norm(half, half, 3, groups=half, bias=bias),
            *conv_norm_relu(half, half, 1, bias=bias),
        )
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        passed_NCHW, worked_NCHW = maps_NCHW.chunk(2, 1)
        shuffled_NCHW: Tensor = self.shuffle(torch.cat([passed_NCHW, self.branch(worked_NCHW)], 1))
        return shuffled_NCHW


class SplitDownBlock(nn.Module):
    """V2, stride 2: both halves of the output are computed from the whole input.

    Args:
        filtered: channels of the right half that the 3x3 filters see.
    """

    def __init__(self, in_channels: int, out_channels: int, filtered: int, *, bias: bool) -> None:
        super().__init__()
        half = out_channels // 2
        self.left = nn.Sequential(
            *conv_norm(in_channels, in_channels, 3, 2, groups=in_channels, bias=bias),
            *conv_norm_relu(in_channels, half, 1, bias=bias),
        )
        self.right = nn.Sequential(
            *conv_norm_relu(in_channels, filtered, 1, bias=bias),
            *conv_norm(filtered, filtered, 3, 2, groups=filtered, bias=bias),
            *conv_norm_relu(filtered, half, 1, bias=bias),
        )
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        shuffled_NCHW: Tensor = self.shuffle(torch.cat([self.left(maps_NCHW), self.right(maps_NCHW)], 1))
        return shuffled_NCHW


def split_stage(in_channels: int, out_channels: int, blocks: int) -> nn.Sequential:
    down = SplitDownBlock(in_channels, out_channels, out_channels // 2, bias=False)
    return nn.Sequential(down, *(SplitBlock(out_channels, bias=False) for _ in range(blocks - 1)))


def split_stage_with_biases(in_channels: int, out_channels: int, blocks: int) -> nn.Sequential:
    down = SplitDownBlock(in_channels, out_channels, in_channels, bias=True)
    return nn.Sequential(down, *(SplitBlock(out_channels, bias=True) for _ in range(blocks - 1)))


class Plan(NamedTuple):
    """What tells one ShuffleNet from another; `head` is the width of a last 1x1 convolution, if there is one."""

    stage: Callable[[int, int, int], nn.Module]
    widths: tuple[int, ...]
    head: int | None
    stem: Callable[[int, int], nn.Module] = partial(conv_norm_relu, kernel=1)
    bias: bool = False


_BLOCKS = (4, 8, 4)
_PLANS = {
    "shufflenetv1": Plan(grouped_stage, (240, 480, 960), head=None),
    "shufflenetv2": Plan(split_stage, (116, 232, 464), head=1024),
    "shufflenetv2-stem3": Plan(
        split_stage_with_biases,
        (116, 232, 464),
        head=1024,
        stem=partial(conv_norm, kernel=3, bias=True),
        bias=True,
    ),
}


def shufflenet(plan: Plan, *, num_classes: int, in_channels: int = 3, classifier: str = "linear") -> Network:
    body = named(stem=plan.stem(in_channels, _STEM))
    channels = _STEM
    for number, (width, blocks) in enumerate(zip(plan.widths, _BLOCKS, strict=True), start=1):
        body.add_module(f"stage{number}", plan.stage(channels, width, blocks))
        channels = width
    if plan.head is not None:
        body.add_module("head", conv_norm_relu(channels, plan.head, 1, bias=plan.bias))
        channels = plan.head
    return Network(body, create_classifier(classifier, channels, num_classes))


BUILDERS: dict[str, Callable[..., nn.Module]] = {name: partial(shufflenet, plan) for name, plan in _PLANS.items()}
