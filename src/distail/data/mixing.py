"""CutMix and mixup: images of a batch mixed with others of it, by draws of (seed, epoch, step).

Shapes: G batch of all processes, B the images that this process has before it, M of them mixed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from distail.config.training import Mix
from distail.data.arrays import LabeledArrays
from distail.data.dataset import Examples, is_images
from distail.data.seeding import random_permutation, random_units, stream_key
from distail.errors import DataError
from distail.inputs import Inputs
from distail.torch_utils import to_device


class Mixed(NamedTuple):
    """What a batch's images hold beside their own: `labels` (B,) int64 of the others, `own` (B,) float32, the share
    that is theirs; 1 and their own label where nothing was mixed in."""

    labels: Tensor
    own: Tensor


class MixPlan(NamedTuple):
    """Which images of a batch are mixed with which: `rows` and `partners` (M,) int64 on the CPU, places in it.

    `own` is the share that stays; `box` (top, left, bottom, right) is what is pasted, None for mixup.
    """

    rows: Tensor
    partners: Tensor
    own: float
    box: tuple[int, int, int, int] | None


def plan_mix(mix: Mix, size: int, height: int, width: int, seed: int, epoch: int, step: int) -> MixPlan:
    """The plan of one global batch of `size`: one share, and one box, for all that are mixed, as the authors draw them
    [code: Zhang et al. 2018, Yun et al. 2019].

    >>> mix = Mix(name="mixup", share=0.5)
    >>> plan = plan_mix(mix, 8, 32, 32, seed=0, epoch=0, step=0)
    >>> len(plan.rows), plan.box, bool((plan.rows == plan.partners).any())
    (4, None, False)
    """
    order_G = random_permutation(stream_key("mix-order", seed, epoch, step), size)
    count = images_mixed(mix, size)
    rows, partners = (torch.from_numpy(places[:count].copy()) for places in (order_G, np.roll(order_G, -1)))
    uniform, y, x = random_units(stream_key("mix-share", seed, epoch, step), np.arange(3)).tolist()
    own = _beta(mix.alpha, uniform)
    if mix.name == "mixup":
        return MixPlan(rows, partners, own, None)
    high, wide = (int(side * math.sqrt(1 - own)) for side in (height, width))
    top, left = int(y * height) - high // 2, int(x * width) - wide // 2
    box = max(0, top), max(0, left), min(height, top + high), min(width, left + wide)
    return MixPlan(rows, partners, 1 - (box[2] - box[0]) * (box[3] - box[1]) / (height * width), box)


def images_mixed(mix: Mix, size: int) -> int:
    """How many of a batch of `size` images are mixed.

    >>> images_mixed(Mix(name="mixup", share=0.5), 7), images_mixed(Mix(name="mixup", share=1), 1)
    (4, 0)
    """
    return math.floor(mix.share * size + 0.5) if size > 1 else 0


def part_of(plan: MixPlan, size: int, mine: slice) -> tuple[MixPlan, Tensor]:
    """The plan of one process, and which places (B,) of the global batch it needs: its own, then further partners.

    >>> plan = MixPlan(torch.tensor([0, 3]), torch.tensor([2, 0]), 0.5, None)
    >>> part, places = part_of(plan, 4, slice(0, 2))
    >>> part.rows.tolist(), part.partners.tolist(), places.tolist()
    ([0], [2], [0, 1, 2])
    """
    first, end, _ = mine.indices(size)
    here_M = (plan.rows >= first) & (plan.rows < end)
    rows, partners = plan.rows[here_M], plan.partners[here_M]
    others = partners[(partners < first) | (partners >= end)]
    places = torch.cat([torch.arange(first, end), others])
    place_of_G = torch.empty(size, dtype=torch.int64)
    place_of_G[places] = torch.arange(len(places))
    return plan._replace(rows=place_of_G[rows], partners=place_of_G[partners]), places


def check_mix(mix: Mix, data: Examples, key: str = "training.mix") -> None:
    """Let pass what can be mixed: images, and by mixup arrays of numbers.

    Args:
        key: what the mix is called in a configuration.

    Raises:
        DataError: boxes are to be pasted into what has no pixels, or what is no number is to be averaged, codes of
            categories among it, or examples have weights.
    """
    if is_images(data):
        return
    if mix.name != "mixup":
        raise DataError(f"{key}: {mix.name} needs images, and these data are not; try mixup")
    if not isinstance(data, LabeledArrays) or not data.inputs.is_floating_point():
        raise DataError(
            f"{key}: mixup averages two examples, which is only defined for images and arrays of floats; leave "
            f"{key} out"
        )
    if data.cardinalities is not None:
        raise DataError(
            f"{key}: mixup averages two examples, and the mean of two codes is another category; expected "
            f"data.categories: one_hot, or no {key}"
        )
    if data.weights is not None:
        raise DataError(f"{key}: examples with weights cannot be mixed; leave out {key} or the weights")


def mix_inputs(inputs: Inputs, labels_B: Tensor, plan: MixPlan, size: int) -> tuple[Tensor, Mixed]:
    """The first `size` of the images or arrays, mixed in place, and what they hold beside their own."""
    assert isinstance(inputs, Tensor), "check_mix has refused others"
    images_BCHW = inputs
    device = images_BCHW.device
    rows_M, partners_M = to_device(plan.rows, device), to_device(plan.partners, device)
    if plan.box is None:
        own_MCHW, other_MCHW = images_BCHW.index_select(0, rows_M), images_BCHW.index_select(0, partners_M)
        images_BCHW.index_copy_(0, rows_M, other_MCHW.lerp_(own_MCHW, plan.own))
    else:
        top, left, bottom, right = plan.box
        pasted = images_BCHW[:, :, top:bottom, left:right]
        pasted.index_copy_(0, rows_M, pasted.index_select(0, partners_M))
    others_B = labels_B.index_copy(0, rows_M, labels_B.index_select(0, partners_M))
    own_B = torch.ones(len(labels_B), device=device).index_fill_(0, rows_M, plan.own)
    return images_BCHW[:size], Mixed(others_B[:size], own_B[:size])


def _beta(alpha: float, uniform: float) -> float:
    """A draw of Beta(alpha, alpha), by the inverse of its distribution function."""
    from scipy.special import betaincinv

    return float(betaincinv(alpha, alpha, uniform))
