"""A grid's best point, chosen by the validation split alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distail.compare.draws import by_seed, folds_of, out_of_fold, validation_of_run
from distail.compare.plan import Job, Plan, Point
from distail.compare.scheduler import State
from distail.evaluation.headline import BALANCED_ACCURACY, HEADLINE_WORDS, MEAN_AVERAGE_PRECISION, headline_path
from distail.evaluation.metrics import metric_at
from distail.evaluation.run_files import FINISHED, MISSING
from distail.outputs import MULTI_LABEL


def rule_of(plan: Plan) -> str:
    """By what a point is chosen."""
    multi_label = plan.config.base.data.targets == MULTI_LABEL
    name = HEADLINE_WORDS[MEAN_AVERAGE_PRECISION if multi_label else BALANCED_ACCURACY]
    if folds_of(plan.config.base) is None:
        return f"{name} on the validation split after the last epoch, mean over seeds"
    return f"{name} of the training data, each example judged out of its fold, mean over seeds"


@dataclass(frozen=True)
class ScoredPoint:
    """A grid point with its validation metric by seed; seeds that are not finished are left out."""

    point: Point
    validation: Mapping[int, float]

    @property
    def mean(self) -> float | None:
        return math.fsum(self.validation.values()) / len(self.validation) if self.validation else None


def score_points(plan: Plan, states: Mapping[str, State]) -> dict[str, list[ScoredPoint]]:
    """The points of each method; without a grid nothing is scored."""
    scored: dict[str, list[ScoredPoint]] = {}
    for method, points in plan.points.items():
        scored[method] = []
        for point in points:
            jobs = {draw: plan.runs[point.label, draw] for draw in plan.config.draws if plan.config.axes}
            finished = {draw: job for draw, job in jobs.items() if states[job.name].state == FINISHED}
            of_seeds = by_seed(finished, plan.config.draws)
            scored[method].append(ScoredPoint(point, {seed: _validation(own) for seed, own in of_seeds.items()}))
    return scored


def undecided_methods(plan: Plan, states: Mapping[str, State]) -> set[str]:
    """Methods of whose grid points some are still to be run: any of them could win."""
    undecided = set()
    for method, points in plan.points.items():
        jobs = [plan.runs[point.label, draw] for point in points for draw in plan.config.draws]
        if len(points) > 1 and any(states[job.name].state == MISSING for job in jobs):
            undecided.add(method)
    return undecided


def best(points: Sequence[ScoredPoint]) -> Point | None:
    """The point with the best mean among those that lost the fewest seeds; None without any score.

    A point one of whose runs failed never beats one that is whole, whatever its mean: a setting with which training
    breaks down is no choice, and a mean over other seeds is no fair match. With a single point there is nothing to
    choose.
    """
    if len(points) == 1:
        return points[0].point
    known = [(len(scored.validation), scored.mean, scored.point) for scored in points if scored.mean is not None]
    return max(known, key=lambda entry: entry[:2])[2] if known else None


def _validation(jobs: Sequence[Job]) -> float:
    """Of one seed: after the last epoch, or of all its folds together."""
    if len(jobs) == 1:
        epochs = jobs[0].experiment.training.epochs
        judged = validation_of_run(jobs[0].folder, epochs)[epochs]
    else:
        judged = out_of_fold([job.folder for job in jobs])
    value = metric_at(judged, headline_path(judged))
    assert value is not None, "every split and fold holds something out"
    return value
