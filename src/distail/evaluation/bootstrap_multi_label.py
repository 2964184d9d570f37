"""How far mean average precisions would move with other test images, which are drawn whole, with all their classes.

Shapes: B resampled test sets, C classes, N samples, R runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from distail.evaluation.average_precision import Array, Ranking
from distail.evaluation.groups import classes_by_group
from distail.evaluation.headline import MEAN_AVERAGE_PRECISION

RESAMPLES = 2_000
"""At most: each ranks all images anew for every class and run."""
FEWEST = 3
"""Test images of a class from which the bootstrap can know how far its metric moves: of two, both are often right, or
both wrong, and every draw is the same."""
# What the weights of one block of resamples may take, beside their sums.
_BLOCK_BYTES = 8 * 2**20


def bootstrap_average_precision(
    target_NC: NDArray[np.bool_],
    class_counts: Sequence[int],
    scores: Sequence[NDArray[np.float32]],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Array]:
    """Each mean of average precisions of R runs on test sets drawn with replacement, the same draw for every run.

    A class of which a draw has no image counts in it as it was observed. Images that are drawn twice stand at one place
    both times, which raises average precision: draws are centered on what was observed.

    Args:
        target_NC: (N, C) which classes each test image has.
        class_counts: (C,) training images of each class: they decide the groups.
        scores: of R runs, (N, C) each.

    Returns:
        Path of the metric to values (resamples, R) in percent. Left out are groups without a class, and what is made of
        classes of which one has fewer than `FEWEST` test images: how far that moves cannot be known.

    >>> target = np.array([[True, False], [True, True], [True, True], [False, True], [False, False]])
    >>> drawn = bootstrap_average_precision(target, [9, 3], [target.astype(np.float32)], resamples=50)
    >>> float(drawn["mean_average_precision"].min()), sorted(drawn)[:2]
    (100.0, ['groups.shots.few', 'groups.thirds.head'])
    """
    members = _known_members(target_NC, class_counts)
    rankings = [[Ranking(own[:, c], target_NC[:, c]) for c in range(target_NC.shape[1])] for own in scores]
    observed_RC = _precisions(rankings, np.ones((len(target_NC), 1)))[..., 0]
    random, drawn = np.random.default_rng(seed), []
    at_once = max(1, _BLOCK_BYTES // (8 * len(target_NC)))
    for first in range(0, resamples, at_once):
        drawn.append(_precisions(rankings, draw_anywhere(random, len(target_NC), min(at_once, resamples - first))))
    drawn_RCB = np.concatenate(drawn, axis=2)
    drawn_RCB = np.where(np.isnan(drawn_RCB), observed_RC[..., None], drawn_RCB)
    found: dict[str, Array] = {}
    for path, classes in members.items():
        value_RB: Array = drawn_RCB[:, classes].mean(axis=1)
        observed_R1 = observed_RC[:, classes].mean(axis=1, keepdims=True)
        found[path] = (value_RB + observed_R1 - value_RB.mean(axis=1, keepdims=True)).T
    return found


def _known_members(target_NC: NDArray[np.bool_], class_counts: Sequence[int]) -> Mapping[str, list[int]]:
    sizes_C = target_NC.sum(axis=0)
    groups = {MEAN_AVERAGE_PRECISION: range(len(sizes_C)), **classes_by_group(class_counts)}
    tested = {path: [c for c in classes if sizes_C[c]] for path, classes in groups.items()}
    return {path: classes for path, classes in tested.items() if classes and sizes_C[classes].min() >= FEWEST}


def draw_anywhere(random: np.random.Generator, images: int, count: int) -> Array:
    """How often each image is in each of so many test sets, drawn among all of them: (N, B)."""
    return times_drawn((random.random((count, images)) * images).astype(np.int64))


def times_drawn(drawn_BN: NDArray[np.int64]) -> Array:
    """How often each image was drawn: (N, B)."""
    count, images = drawn_BN.shape
    flat = drawn_BN * count + np.arange(count)[:, None]
    return np.bincount(flat.ravel(), minlength=images * count).reshape(images, count).astype(np.float64)


def _precisions(rankings: Sequence[Sequence[Ranking]], weights_NB: Array) -> Array:
    """(R, C, B) in percent."""
    return 100 * np.stack([[one.average_precision(weights_NB) for one in own] for own in rankings])
