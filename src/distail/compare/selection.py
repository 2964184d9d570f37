"""A grid's best point, chosen by the validation split alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distail.compare.plan import Job, Plan, Point
from distail.errors import CheckpointError
from distail.training.history import History

FIGURE = "balanced_accuracy"
RULE = "balanced accuracy on the validation split after the last epoch, mean over seeds"


@dataclass(frozen=True)
class ScoredPoint:
    """A grid point with its validation figure by seed."""

    point: Point
    validation: Mapping[int, float]

    @property
    def mean(self) -> float | None:
        return math.fsum(self.validation.values()) / len(self.validation) if self.validation else None


def score_points(plan: Plan, finished: frozenset[tuple[str, int]]) -> dict[str, list[ScoredPoint]]:
    """The points of each method; runs that are not finished have no figure."""
    return {
        method: [
            ScoredPoint(
                point,
                {
                    seed: _last_validation(plan, point.label, seed)
                    for seed in plan.asked.seeds
                    if (point.label, seed) in finished and plan.asked.axes
                },
            )
            for point in points
        ]
        for method, points in plan.points.items()
    }


def best(points: Sequence[ScoredPoint]) -> Point | None:
    """The point with the best mean among those that lost the fewest seeds; None without any figure.

    A point one of whose runs failed never beats one that is whole, whatever its mean: a setting with which training
    breaks down is no choice, and a mean over other seeds is no fair match. With a single point there is nothing to
    choose.
    """
    if len(points) == 1:
        return points[0].point
    known = [(len(judged.validation), judged.mean, judged.point) for judged in points if judged.mean is not None]
    return max(known, key=lambda entry: entry[:2])[2] if known else None


def grid_content(
    plan: Plan,
    judged: Mapping[str, Sequence[ScoredPoint]],
    chosen: Mapping[str, Point | None],
    standing: Callable[[Job], Mapping[str, Any]],
) -> Any:
    """The grid as it stands in `comparison.json`; None without a grid.

    Every point has its validation figures, and how each of its runs stands: one that failed has no figure.
    """
    if not plan.asked.axes:
        return None
    return {
        "axes": {key: list(values) for key, values in plan.asked.axes.items()},
        "rule": RULE,
        "points": [
            {
                "method": method,
                "label": one.point.label,
                "settings": dict(one.point.settings),
                "runs": [{"seed": seed, **standing(plan.runs[one.point.label, seed])} for seed in plan.asked.seeds],
                "validation": {str(seed): value for seed, value in one.validation.items()},
                "mean": one.mean,
                "chosen": chosen[method] == one.point,
            }
            for method, points in judged.items()
            for one in points
        ],
    }


def _last_validation(plan: Plan, label: str, seed: int) -> float:
    job = plan.runs[label, seed]
    rows = [row for row in History(job.folder.path).rows() if row["stage"] == "student"]
    if not rows or rows[-1]["epoch"] != job.experiment.training.epochs - 1:
        raise CheckpointError(
            f"{job.folder.path / 'metrics.jsonl'} lacks the last epoch; remove {job.folder.result.name} beside it, and "
            "the run is finished again from its checkpoint"
        )
    return float(rows[-1]["validation"][FIGURE])
