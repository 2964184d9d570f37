"""What several seeds and one test set can say of a difference between methods, and what is only noise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import stdev

import numpy as np

from distail.evaluation.bootstrap import ROUNDING, Array, interval_and_p

LEVEL = 0.95
OVER_SEEDS, OVER_IMAGES = "seeds", "test images"
LARGE_EFFECT = 5
"""A difference of so many times its deviation from seed to seed: seeds that could not tell even this are too few."""
MORE_THAN_NOISE, NOISE, TOO_FEW_SEEDS = "more than the noise", "inside the noise", "too few seeds to tell"
NOT_TESTED, NOT_KNOWN = "not tested", "not known"
VERDICTS = (MORE_THAN_NOISE, NOISE, TOO_FEW_SEEDS, NOT_TESTED, NOT_KNOWN)
Values = Mapping[int, float]
"""Seed to a metric in percent."""


@dataclass(frozen=True)
class Summary:
    """A metric over seeds: its values by seed, mean, sample standard deviation and 95 % interval of the mean.

    Attributes:
        values: percent by seed; empty where no run has the metric.
        mean: None without a value.
        std: with n - 1 in the denominator; None below two values.
        interval: Student's t; None below two values, and where all are equal, as coarse metrics can be by chance.
    """

    values: dict[int, float]
    mean: float | None
    std: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Difference:
    """A method's metric minus the baseline's, and whether that is more than noise.

    Attributes:
        over: what is drawn again: "seeds" (Student's t of the paired differences) or "test images" (bootstrap).
        interval, p: 95 % and two-sided; None where they cannot be known, such as over one seed, over seeds that all
            differ by the same, or over test images where a class has only one.
        p_corrected: after Holm, over the differences with the same `over` in the metrics that were planned to be
            tested; None for any other metric.
        inside_noise: whether no difference at all would explain it: `p_corrected` is 0.05 or more, or not known.
        seeds: how many were paired.
        verdict: one of `VERDICTS`: of what is inside the noise also whether so few seeds could have left it.
    """

    method: str
    metric: str
    difference: float
    interval: tuple[float, float] | None
    p: float | None
    p_corrected: float | None
    over: str
    inside_noise: bool
    seeds: int = 1
    verdict: str = NOT_KNOWN


def summarize(values: Values) -> Summary:
    """Mean, sample standard deviation and Student t interval over seeds.

    >>> two = summarize({0: 40.0, 1: 42.0})
    >>> two.mean, f"{two.std:.4f}", [f"{end:.4f}" for end in two.interval]
    (41.0, '1.4142', ['28.2938', '53.7062'])
    >>> summarize({0: 40.0})
    Summary(values={0: 40.0}, mean=40.0, std=None, interval=None)
    """
    numbers = list(values.values())
    if not numbers:
        return Summary({}, None, None, None)
    mean = math.fsum(numbers) / len(numbers)
    if len(numbers) == 1:
        return Summary(dict(values), mean, None, None)
    std = stdev(numbers)
    if std <= ROUNDING:
        return Summary(dict(values), mean, 0.0, None)
    half = _half_width(std, len(numbers))
    return Summary(dict(values), mean, std, (mean - half, mean + half))


def over_seeds(method: str, metric: str, values: Values, baseline: Values) -> Difference | None:
    """The paired difference over the seeds that both have; None where they share none.

    >>> over_seeds("bkd", "top1", {0: 41.0, 1: 43.0}, {0: 38.0, 1: 39.0}).difference
    3.5
    """
    differences = _paired(values, baseline)
    if not differences:
        return None
    summary = summarize(differences)
    assert summary.mean is not None
    p = None
    if summary.std:
        from scipy import stats

        t = summary.mean / (summary.std / math.sqrt(len(differences)))
        p = float(2 * stats.t.sf(abs(t), len(differences) - 1))
    return Difference(method, metric, summary.mean, summary.interval, p, None, OVER_SEEDS, True, len(differences))


def over_images(
    method: str,
    metric: str,
    values: Values,
    baseline: Values,
    draws: Mapping[int, Array],
    baseline_draws: Mapping[int, Array],
) -> Difference | None:
    """The difference, averaged over the seeds that both have, with what other test images would make of it.

    Args:
        method, metric, values, baseline: as in `over_seeds`.
        draws, baseline_draws: seed to the metric on each resampled test set (B,); without where it cannot be known.
    """
    differences = _paired(values, baseline)
    if not differences:
        return None
    mean = math.fsum(differences.values()) / len(differences)
    known = [draws[seed] - baseline_draws[seed] for seed in differences if seed in draws and seed in baseline_draws]
    if len(known) < len(differences):
        return Difference(method, metric, mean, None, None, None, OVER_IMAGES, True, len(differences))
    interval, p = interval_and_p(np.mean(known, axis=0), LEVEL)
    return Difference(method, metric, mean, interval, p, None, OVER_IMAGES, True, len(differences))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number by Holm's step-down rule (Holm 1979), in the order given.

    >>> holm([0.125, 0.5, 0.25])
    [0.375, 0.5, 0.5]
    """
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def corrected(differences: Sequence[Difference], metrics: Collection[str]) -> list[Difference]:
    """The differences with what follows from all of them filled in; each kind of `over` is one family of tests.

    Args:
        differences: all of a comparison.
        metrics: those that are tested, chosen before anything is known. A difference whose p value turns out not to be
            known counts in its family like one of 1: its size does not depend on what came out.
    """
    result = list(differences)
    for over in (OVER_SEEDS, OVER_IMAGES):
        family = [i for i, one in enumerate(result) if one.over == over and one.metric in metrics]
        p_values = holm([1.0 if (p := result[i].p) is None else p for i in family])
        for i, p in zip(family, p_values, strict=True):
            if result[i].p is not None:
                result[i] = replace(result[i], p_corrected=p, inside_noise=p >= 1 - LEVEL)
        for i, one in enumerate(result):
            if one.over == over:
                result[i] = replace(one, verdict=verdict_of(one, len(family)))
    return result


def verdict_of(one: Difference, tests: int) -> str:
    """What is known of a difference, which is one of so many that are corrected together."""
    if one.p_corrected is None:
        return NOT_KNOWN if one.p is None else NOT_TESTED
    if not one.inside_noise:
        return MORE_THAN_NOISE
    return TOO_FEW_SEEDS if one.over == OVER_SEEDS and not seeds_can_tell(one.seeds, tests) else NOISE


def smallest_effect(seeds: int, tests: int) -> float:
    """What leaves the noise of seeds at the least: a difference of so many times its deviation from seed to seed.

    Args:
        seeds: at least 2.
        tests: differences that are corrected together.

    >>> [round(smallest_effect(seeds, 15), 1) for seeds in (2, 3, 5)]
    [135.0, 10.0, 2.8]
    """
    from scipy import stats

    return float(stats.t.ppf(1 - (1 - LEVEL) / (2 * tests), seeds - 1)) / math.sqrt(seeds)


def seeds_can_tell(seeds: int, tests: int) -> bool:
    """Whether so many seeds are enough to tell a difference from noise that is large beside its deviation."""
    return seeds > 1 and smallest_effect(seeds, tests) <= LARGE_EFFECT


def enough_seeds(tests: int) -> int:
    """The fewest seeds that can tell.

    >>> enough_seeds(1), enough_seeds(15)
    (3, 4)
    """
    return next(seeds for seeds in itertools.count(2) if seeds_can_tell(seeds, tests))


def _paired(values: Values, baseline: Values) -> dict[int, float]:
    return {seed: value - baseline[seed] for seed, value in values.items() if seed in baseline}


def _half_width(std: float, count: int) -> float:
    from scipy import stats

    return float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * std / math.sqrt(count)
