"""How far a metric would move with other test images: every run's metrics on test sets drawn again from the images.

Shapes: B resampled test sets, C classes, N samples, R runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distail.errors import DataError
from distail.evaluation.bootstrap_multi_label import FEWEST, bootstrap_average_precision, draw_anywhere, times_drawn
from distail.evaluation.bootstrap_multi_label import RESAMPLES as RANKED
from distail.evaluation.calibration import BINS, top_confidence
from distail.evaluation.checks import checked_predictions
from distail.evaluation.groups import classes_by_group
from distail.evaluation.metrics import METRICS, OfImages, OfRecalls, Sums

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Array = NDArray[np.float64]
RESAMPLES = 10_000
ROUNDING = 1e-9
# What the numbers of one block of resamples may take; more resamples only mean more blocks.
BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ImageFacts:
    """All that the metrics need of one run's logits: the predicted class (N,) and the top confidence (N,).

    Where an image may have several classes, also all its scores (N, C).
    """

    predicted: NDArray[np.int64]
    confidence: Array
    scores: NDArray[np.float32] | None = None


def image_facts(logits_NC: Tensor, target_N: Tensor, class_counts: Sequence[int]) -> ImageFacts:
    """One run's facts.

    Raises:
        DataError: as `distail.evaluation.metrics.evaluate_predictions`.
    """
    multi_label = target_N.ndim == 2
    logits, _, _ = checked_predictions(logits_NC, target_N, class_counts, multi_label=multi_label)
    scores = logits.float().numpy() if multi_label else None
    return ImageFacts(logits.argmax(1).numpy(), top_confidence(logits).numpy(), scores)


def bootstrap_metrics(
    target_N: NDArray[np.int64],
    class_counts: Sequence[int],
    runs: Sequence[ImageFacts],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Array]:
    """Each metric of R runs on `resamples` test sets drawn with replacement, the same draw for every run (paired).

    How a metric is drawn stands in its entry in `distail.evaluation.metrics.METRICS`: metrics of all images (top-1,
    macro F1, calibration) among all images, metrics of recalls within each class, so that no class grows or vanishes
    (stratified). Drawing within a class of n images moves its recall too little, by (n - 1) / n of the variance, and
    small samples call for Student's t: means over classes are widened by both (the expanded percentile interval of
    Hesterberg 2015). Noise in a bin counts as calibration error, and drawing again adds noise: these draws are centered
    on what was observed.

    Args:
        target_N: (N,) labels that all runs were tested on; (N, C) bool where an image may have several classes, whose
            means of average precisions `bootstrap_average_precision` draws.
        class_counts: (C,) training images of each class: they decide the groups.
        runs: R runs.
        resamples: how many test sets are drawn.
        seed: the same seed draws the same test sets.

    Returns:
        Path of the metric in `METRICS` to values (resamples, R) in percent. Left out are groups without a class, and
        what is made of the recalls of classes of which one has fewer than `FEWEST` images: how far that class moves
        cannot be known.

    Raises:
        DataError: no run, or one with another number of images.

    >>> right, wrong = (ImageFacts(np.array(p), np.ones(4)) for p in ([0, 0, 1, 1], [1, 0, 1, 1]))
    >>> values = bootstrap_metrics(np.array([0, 0, 1, 1]), [9, 3], [right, wrong], resamples=100)
    >>> values["top1"].shape, bool((values["top1"][:, 0] >= values["top1"][:, 1]).all())
    ((100, 2), True)
    """
    if not runs or any(len(run.predicted) != len(target_N) for run in runs):
        raise DataError(
            f"got runs with {[len(run.predicted) for run in runs]} predictions; expected one or more runs with a "
            f"prediction for each of the {len(target_N)} test images."
        )
    if target_N.ndim == 2:
        scores = [run.scores for run in runs if run.scores is not None]
        return bootstrap_average_precision(target_N.astype(bool), class_counts, scores, min(resamples, RANKED), seed)
    resampler = Resampler(target_N, class_counts, runs)
    anywhere, within = (np.random.default_rng(source) for source in np.random.SeedSequence(seed).spawn(2))
    values: dict[str, list[Array]] = {}
    for count in _blocks(resamples, resampler.bytes_a_resample):
        block = resampler.metrics(resampler.draw_anywhere(anywhere, count), resampler.draw_within(within, count))
        for path, value in block.items():
            values.setdefault(path, []).append(value)
    drawn = {path: np.concatenate(blocks) for path, blocks in values.items()}
    for path, values_BR in drawn.items():
        source = METRICS[path].source
        if isinstance(source, OfImages) and source.centered:
            values_BR += source.compute(resampler.observed_sums).numpy()[:, 0] - values_BR.mean(0)
    return drawn


class Resampler:
    """Metrics as functions of weighted sums over images: how often each was drawn is its weight."""

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
        self.present = np.flatnonzero(sizes_C)
        self.members = self._known_members(sizes_C, class_counts)
        self.widening = {
            path: _widening(sizes_C[classes])
            for path, classes in self.members.items()
            if isinstance(METRICS[path].source, OfRecalls)
        }
        predicted_RN = np.stack([run.predicted[order] for run in runs])
        confidence_RN = np.stack([run.confidence[order] for run in runs])
        correct_RN = np.equal(predicted_RN, target).astype(np.float64)
        edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64).numpy()
        bin_RN = (np.searchsorted(edges, confidence_RN) - 1).clip(0, BINS - 1)

        def by_row(row_RN: NDArray[np.int64], rows: int, value_RN: Array) -> csr_array:
            """Sparse (R * rows, N): summing with the weights adds up each run's values by row."""
            run, image = np.nonzero(value_RN)
            where = (run * rows + row_RN[run, image], image)
            return csr_array((value_RN[run, image], where), shape=(len(row_RN) * rows, self.images))

        target_RN = np.broadcast_to(target, correct_RN.shape)
        self.correct = by_row(target_RN, self.classes, correct_RN)
        self.predicted = by_row(predicted_RN, self.classes, np.ones_like(correct_RN))
        self.gaps = by_row(bin_RN, BINS, correct_RN - confidence_RN)
        self.drawn = by_row(target[None], self.classes, np.ones((1, self.images)))
        once = np.ones((self.images, 1))
        self.observed_recall_CR1, self.observed_sums = self.recall(once), self.sums(once)

    def _known_members(self, sizes_C: NDArray[np.int64], class_counts: Sequence[int]) -> dict[str, list[int]]:
        """The classes with test images of each metric of which the bootstrap can know something."""
        groups = classes_by_group(class_counts)
        known: dict[str, list[int]] = {}
        for path, metric in METRICS.items():
            if metric.multi_label:
                continue
            over_all = isinstance(metric.source, OfImages) and not metric.source.averages_classes
            classes = [c for c in groups.get(path, self.present.tolist()) if sizes_C[c]]
            if over_all or (classes and sizes_C[classes].min() >= FEWEST):
                known[path] = classes
        return known

    @property
    def bytes_a_resample(self) -> int:
        return 8 * (4 * self.images + 6 * self.runs * (self.classes + BINS))

    def draw_anywhere(self, random: np.random.Generator, count: int) -> Array:
        return draw_anywhere(random, self.images, count)

    def draw_within(self, random: np.random.Generator, count: int) -> Array:
        return times_drawn(self.start_N + (random.random((count, self.images)) * self.size_N).astype(np.int64))

    def metrics(self, anywhere_NB: Array, within_NB: Array) -> dict[str, Array]:
        """Every known metric (B, R): of the first weights those of images, of the second those of recalls."""
        sums, recall_CRB = self.sums(anywhere_NB), self.recall(within_NB)
        drawn: dict[str, Array] = {}
        for path, classes in self.members.items():
            source = METRICS[path].source
            if isinstance(source, OfImages):
                value_RB = source.compute(sums)
            elif source.widened:
                observed_CR1 = self.observed_recall_CR1[classes]
                value_RB = source.compute(
                    observed_CR1 + self.widening[path][:, None, None] * (recall_CRB[classes] - observed_CR1)
                )
            else:
                value_RB = source.compute(recall_CRB[classes])
            drawn[path] = value_RB.numpy().T
        return drawn

    def sums(self, weights_NB: Array) -> Sums:
        gaps_RB = self._by_class(self.gaps, weights_NB).abs().sum(0)
        return Sums(
            images=torch.from_numpy(self.drawn @ weights_NB)[self.present, None],
            predictions=self._by_class(self.predicted, weights_NB)[self.present],
            correct=self._by_class(self.correct, weights_NB)[self.present],
            calibration_error=100 * gaps_RB / self.images,
        )

    def recall(self, weights_NB: Array) -> Tensor:
        """Recall of each class and run, in percent: (C, R, B)."""
        drawn_C1B = torch.from_numpy(self.drawn @ weights_NB)[:, None]
        return 100 * self._by_class(self.correct, weights_NB) / drawn_C1B.clamp_min(1)

    def _by_class(self, matrix: csr_array, weights_NB: Array) -> Tensor:
        """(rows, R, B), a row a class or bin."""
        summed: Array = matrix @ weights_NB
        return torch.from_numpy(summed.reshape(self.runs, -1, weights_NB.shape[1])).movedim(0, 1)


def _widening(sizes_C: NDArray[np.int64]) -> Tensor:
    """By how much recalls must move more than drawn: (C,), for a mean over classes of so many images."""
    from scipy import stats

    quantile = 0.975
    student: float = stats.t.ppf(quantile, (sizes_C - 1).sum()) / stats.norm.ppf(quantile)
    return torch.from_numpy(np.sqrt(sizes_C / (sizes_C - 1)) * student)


def _blocks(total: int, bytes_each: int) -> Iterator[int]:
    most = max(1, BLOCK_BYTES // bytes_each)
    for start in range(0, total, most):
        yield min(most, total - start)


def interval_and_p(differences_B: Array, level: float = 0.95) -> tuple[tuple[float, float], float]:
    """Percentile interval of bootstrapped differences in percent, and the two-sided p value of no difference.

    The p value is twice the smaller share of resamples on either side of zero (zero itself, to within what rounding
    makes of equal metrics, counts on both), each share with one added above and below, so that it is never 0 (Davison
    and Hinkley 1997, section 4.2.3).

    >>> (low, high), p = interval_and_p(np.arange(0.0, 41.0))
    >>> round(low, 6), round(high, 6), round(p, 6)
    (1.0, 39.0, 0.095238)
    """
    tail, differences_B = (1 - level) / 2, differences_B.clip(-100, 100)  # widened draws may leave what there is
    low, high = (float(value) for value in np.quantile(differences_B, (tail, 1 - tail)))
    below, above = int((differences_B <= ROUNDING).sum()), int((differences_B >= -ROUNDING).sum())
    return (low, high), min(1.0, 2 * (min(below, above) + 1) / (len(differences_B) + 1))
