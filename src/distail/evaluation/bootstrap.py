"""How far a figure would move with other test images: every run's figures on test sets drawn again from the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distail.errors import DataError
from distail.evaluation.calibration import BINS, top_confidence
from distail.evaluation.checks import checked_predictions
from distail.evaluation.groups import shots, thirds

Array = NDArray[np.float64]
RESAMPLES = 10_000
# What the numbers of one block of resamples may take; more resamples only mean more blocks.
BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ImageFacts:
    """All that the figures need of one run's logits: the predicted class (N,) and the top confidence (N,)."""

    predicted: NDArray[np.int64]
    confidence: Array


def image_facts(logits_NC: Tensor, target_N: Tensor, class_counts: Sequence[int]) -> ImageFacts:
    """One run's facts.

    Raises:
        DataError: as `distail.evaluation.metrics.evaluate_predictions`.
    """
    logits, _, _ = checked_predictions(logits_NC, target_N, class_counts)
    return ImageFacts(logits.argmax(1).numpy(), top_confidence(logits).numpy())


def bootstrap_figures(
    target_N: NDArray[np.int64],
    class_counts: Sequence[int],
    runs: Sequence[ImageFacts],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Array]:
    """Each figure of R runs on `resamples` test sets drawn with replacement, the same draw for every run (paired).

    Figures that are means over classes (balanced accuracy, worst class, the groups) are drawn within each class, so
    that no class grows or vanishes (stratified); top-1, macro F1 and calibration are drawn over all images. Drawing
    within a class of n images moves its recall too little, by (n - 1) / n of the variance, and small samples call for
    Student's t: means over classes are widened by both (the expanded percentile interval of Hesterberg 2015). Noise in
    a bin counts as calibration error, and drawing again adds noise: these draws are centred on what was observed.

    Args:
        target_N: (N,) labels that all runs were tested on.
        class_counts: (C,) training images of each class: they decide the groups.
        runs: R runs.
        resamples: how many test sets are drawn.
        seed: the same seed draws the same test sets.

    Returns:
        Figure (a dotted path as in `distail.evaluation.significance.FIGURES`) to values (resamples, R) in percent. Left
        out are groups without a class, and what is made of the recalls of classes of which one has a single image: how
        far that class moves cannot be known.

    Raises:
        DataError: no run, or one with another number of images.

    >>> right, wrong = (ImageFacts(np.array(p), np.ones(4)) for p in ([0, 0, 1, 1], [1, 0, 1, 1]))
    >>> values = bootstrap_figures(np.array([0, 0, 1, 1]), [9, 3], [right, wrong], resamples=100)
    >>> values["top1"].shape, bool((values["top1"][:, 0] >= values["top1"][:, 1]).all())
    ((100, 2), True)
    """
    if not runs or any(len(run.predicted) != len(target_N) for run in runs):
        raise DataError(
            f"got runs with {[len(run.predicted) for run in runs]} predictions; expected one or more runs with a "
            f"prediction for each of the {len(target_N)} test images."
        )
    sums = _Sums(target_N, class_counts, runs)
    anywhere, within = (np.random.default_rng(source) for source in np.random.SeedSequence(seed).spawn(2))
    values: dict[str, list[Array]] = {}
    for count in _blocks(resamples, sums.bytes_a_resample):
        for name, value in sums.figures(sums.draw_anywhere(anywhere, count), sums.draw_within(within, count)).items():
            values.setdefault(name, []).append(value)
    drawn = {name: np.concatenate(blocks) for name, blocks in values.items()}
    drawn["ece"] += sums.observed_ece - drawn["ece"].mean(0)
    return drawn


class _Sums:
    """Figures as functions of weighted sums over images: how often each was drawn is its weight."""

    def __init__(self, target_N: NDArray[np.int64], class_counts: Sequence[int], runs: Sequence[ImageFacts]) -> None:
        from scipy.sparse import csr_array

        self.images, self.classes, self.runs = len(target_N), len(class_counts), len(runs)
        target_N = np.asarray(target_N)
        # Sorted by class, so that a class is a range of positions.
        order = np.argsort(target_N, kind="stable")
        target = target_N[order]
        sizes_C = np.bincount(target, minlength=self.classes)
        self.size_N = sizes_C[target]
        self.start_N = (np.cumsum(sizes_C) - sizes_C)[target]
        self.present_C = sizes_C > 0
        groups = {
            f"groups.{rule}.{name}": [c for c in classes if self.present_C[c]]
            for rule, groups in (("thirds", thirds(class_counts)), ("shots", shots(class_counts)))
            for name, classes in groups.items()
        }
        groups["balanced_accuracy"] = np.flatnonzero(self.present_C).tolist()
        self.means = {name: classes for name, classes in groups.items() if classes and sizes_C[classes].min() > 1}
        self.widening = {name: _widening(sizes_C[classes]) for name, classes in self.means.items()}
        predicted_RN = np.stack([run.predicted[order] for run in runs])
        confidence_RN = np.stack([run.confidence[order] for run in runs])
        right_RN = np.equal(predicted_RN, target).astype(np.float64)
        edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64).numpy()
        bin_RN = (np.searchsorted(edges, confidence_RN) - 1).clip(0, BINS - 1)

        def by_row(row_RN: NDArray[np.int64], rows: int, value_RN: Array) -> Any:
            """Sparse (R * rows, N): summing with the weights adds up each run's values by row."""
            run, image = np.nonzero(value_RN)
            where = (run * rows + row_RN[run, image], image)
            return csr_array((value_RN[run, image], where), shape=(len(row_RN) * rows, self.images))

        target_RN = np.broadcast_to(target, right_RN.shape)
        self.right = by_row(target_RN, self.classes, right_RN)
        self.predicted = by_row(predicted_RN, self.classes, np.ones_like(right_RN))
        self.gaps = by_row(bin_RN, BINS, right_RN - confidence_RN)
        self.drawn = by_row(target[None], self.classes, np.ones((1, self.images)))
        once = np.ones((self.images, 1))
        self.recall_RC1, self.observed_ece = self._recall(once), self._ece(once)[:, 0]

    @property
    def bytes_a_resample(self) -> int:
        return 8 * (4 * self.images + 6 * self.runs * (self.classes + BINS))

    def draw_anywhere(self, random: np.random.Generator, count: int) -> Array:
        return self._weights((random.random((count, self.images)) * self.images).astype(np.int64))

    def draw_within(self, random: np.random.Generator, count: int) -> Array:
        return self._weights(self.start_N + (random.random((count, self.images)) * self.size_N).astype(np.int64))

    def _weights(self, drawn_BN: NDArray[np.int64]) -> Array:
        """How often each position was drawn: (N, B)."""
        count = len(drawn_BN)
        flat = drawn_BN * count + np.arange(count)[:, None]
        times = np.bincount(flat.ravel(), minlength=self.images * count)
        return times.reshape(self.images, count).astype(np.float64)

    def figures(self, anywhere_NB: Array, within_NB: Array) -> dict[str, Array]:
        """Every figure (B, R): the first weights serve top-1, macro F1 and calibration, the second the class means."""
        right_RCB = self._sum(self.right, anywhere_NB)
        drawn_CB: Array = self.drawn @ anywhere_NB
        with np.errstate(invalid="ignore"):
            f1_RCB = 200 * right_RCB / (drawn_CB + self._sum(self.predicted, anywhere_NB))
        recall_RCB = self._recall(within_NB)
        moved_RCB = recall_RCB - self.recall_RC1
        every_class = {
            "macro_f1": np.where(drawn_CB > 0, f1_RCB, 0).sum(1) / (drawn_CB > 0).sum(0),
            "worst_class": recall_RCB[:, self.present_C].min(1),
        }
        values_RB = {
            "top1": 100 * right_RCB.sum(1) / self.images,
            "ece": self._ece(anywhere_NB),
            **(every_class if "balanced_accuracy" in self.means else {}),
            **{
                name: (self.recall_RC1[:, classes] + self.widening[name][:, None] * moved_RCB[:, classes]).mean(1)
                for name, classes in self.means.items()
            },
        }
        return {name: value.T for name, value in values_RB.items()}

    def _ece(self, weights_NB: Array) -> Array:
        """Expected calibration error of each run, in percent: (R, B)."""
        error_RB: Array = 100 * np.abs(self._sum(self.gaps, weights_NB)).sum(1) / self.images
        return error_RB

    def _recall(self, weights_NB: Array) -> Array:
        """Recall of each run and class, in percent: (R, C, B)."""
        recall_RCB: Array = 100 * self._sum(self.right, weights_NB) / np.maximum(self.drawn @ weights_NB, 1)
        return recall_RCB

    def _sum(self, matrix: Any, weights_NB: Array) -> Array:
        return cast(Array, (matrix @ weights_NB).reshape(self.runs, -1, weights_NB.shape[1]))


def _widening(sizes_C: NDArray[np.int64]) -> Array:
    """By how much recalls must move more than drawn: (C,), for a mean over classes of so many images."""
    from scipy import stats

    quantile = 0.975
    student: float = stats.t.ppf(quantile, (sizes_C - 1).sum()) / stats.norm.ppf(quantile)
    widening_C: Array = np.sqrt(sizes_C / (sizes_C - 1)) * student
    return widening_C


def _blocks(total: int, bytes_each: int) -> Iterator[int]:
    most = max(1, BLOCK_BYTES // bytes_each)
    for start in range(0, total, most):
        yield min(most, total - start)


def interval_and_p(differences_B: Array, level: float = 0.95) -> tuple[tuple[float, float], float]:
    """Percentile interval of bootstrapped differences, and the two-sided p value of no difference.

    The p value is twice the smaller share of resamples on either side of zero (zero itself counts on both), each share
    with one added above and below, so that it is never 0 (Davison and Hinkley 1997, section 4.2.3).

    >>> (low, high), p = interval_and_p(np.arange(0.0, 41.0))
    >>> round(low, 6), round(high, 6), round(p, 6)
    (1.0, 39.0, 0.095238)
    """
    tail = (1 - level) / 2
    low, high = (float(value) for value in np.quantile(differences_B, (tail, 1 - tail)))
    below, above = int((differences_B <= 0).sum()), int((differences_B >= 0).sum())
    return (low, high), min(1.0, 2 * (min(below, above) + 1) / (len(differences_B) + 1))
