"""Which images an epoch shows, in which order, and which stored view of each.

Shapes: N images or draws of an epoch, C classes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distail.data.seeding import random_bits, random_permutation, random_units, stream_key
from distail.errors import DataError, unknown_name

Order = Callable[[NDArray[np.int64], int, np.uint64], NDArray[np.int64]]


def _instance(labels_N: NDArray[np.int64], num_classes: int, key: np.uint64) -> NDArray[np.int64]:
    return random_permutation(key, len(labels_N))


def _with_class_mass(exponent: float) -> Order:
    """N draws with replacement in which class c has probability proportional to `n_c ** exponent`."""

    def order(labels_N: NDArray[np.int64], num_classes: int, key: np.uint64) -> NDArray[np.int64]:
        counts_C = np.bincount(labels_N, minlength=num_classes)
        cumulative_N = np.cumsum(counts_C[labels_N].astype(np.float64) ** (exponent - 1))
        points_N = random_units(key, np.arange(len(labels_N))) * cumulative_N[-1]
        drawn_N: NDArray[np.int64] = np.searchsorted(cumulative_N, points_N, side="right").astype(np.int64)
        return drawn_N.clip(max=len(labels_N) - 1)

    return order


SAMPLERS: dict[str, Order] = {
    "instance": _instance,
    "class_balanced": _with_class_mass(0.0),
    "square_root": _with_class_mass(0.5),
}


def epoch_order(sampler: str, labels_N: Tensor, num_classes: int, seed: int, epoch: int) -> Tensor:
    """The order (N,) int64 of one epoch, a pure function of its arguments.

    `instance`: every image once. `class_balanced`: N draws with replacement, every class equally likely.
    `square_root`: N draws with replacement, class c in proportion to the square root of its images (Kang 2020).

    Raises:
        DataError: the sampler is unknown.

    >>> sorted(epoch_order("instance", torch.tensor([0, 0, 1]), 2, seed=0, epoch=3).tolist())
    [0, 1, 2]
    """
    if sampler not in SAMPLERS:
        raise DataError(unknown_name("sampler", sampler, SAMPLERS))
    key = stream_key(f"order-{sampler}", seed, epoch)
    return torch.from_numpy(SAMPLERS[sampler](labels_N.cpu().numpy(), num_classes, key))


def epoch_views(order_N: Tensor, views: int, seed: int, epoch: int) -> Tensor:
    """Which of its `views` stored views each draw (N,) of an epoch's order shows: (N,) int64, a pure function.

    A sample starts at a view of its own and goes on to the next one every epoch, so that `views` epochs show it each
    once; where a sampler draws a sample several times in an epoch, the further draws show the views that follow.

    >>> [epoch_views(torch.tensor([5, 5]), 3, seed=0, epoch=epoch).tolist() for epoch in range(3)]
    [[2, 0], [0, 1], [1, 2]]
    """
    samples_N = order_N.cpu().numpy()
    first_N = (random_bits(stream_key("first-view", seed), samples_N) % np.uint64(views)).astype(np.int64)
    return torch.from_numpy((first_N + epoch + _drawn_before(samples_N)) % views)


def _drawn_before(samples_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each draw's sample was drawn earlier in the same order."""
    by_sample_N = np.argsort(samples_N, kind="stable")
    sorted_N = samples_N[by_sample_N]
    before_N = np.empty_like(by_sample_N)
    before_N[by_sample_N] = np.arange(len(samples_N)) - np.searchsorted(sorted_N, sorted_N)
    return before_N
