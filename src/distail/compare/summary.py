"""What a comparison shows, in sentences whose every number is in its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distail.compare.status import FAILED, FINISHED
from distail.evaluation.metrics import METRICS

METRIC_TITLES = {path: metric.title for path, metric in METRICS.items()}
RULES = tuple(dict.fromkeys(metric.rule for metric in METRICS.values() if metric.rule))
MAIN_METRICS = ("top1", "balanced_accuracy", "groups.thirds.tail")
"""What sentences are made of; the tables have every figure."""


def paired_seeds(content: Mapping[str, Any], method: str, figure: str) -> int:
    """Over how many seeds a difference from the baseline is: those in which both have the figure."""
    own, other = (content["figures"][label][figure]["values"] for label in (method, content["baseline"]))
    return sum(seed in other for seed in own)


def signed(value: float) -> str:
    """A difference in points.

    >>> signed(1.25), signed(-0.04), signed(0.0)
    ('+1.2', '0.0', '0.0')
    """
    text = f"{value:+.1f}"
    return text if float(text) else "0.0"


def plain(value: float) -> str:
    """A figure in percent, without a negative zero."""
    text = f"{value:.1f}"
    return text if float(text) else "0.0"


def statements(content: Mapping[str, Any]) -> list[str]:
    """The sentences of `comparison.json`, from the rest of its content."""
    return [
        *_ground(content),
        *_grid(content),
        *_differences(content),
        *_not_finished(content),
    ]


def verdict(differences: Sequence[Mapping[str, Any]]) -> str:
    """What is known of one method's difference in one figure: its entries over seeds and over test images.

    >>> verdict([{"over": "seeds", "p_corrected": 0.2, "inside_noise": True}])
    'inside the noise of seeds'
    >>> verdict([{"over": "test images", "p_corrected": 0.01, "inside_noise": False}])
    'more than the noise of test images'
    """
    known = [one for one in differences if one["p_corrected"] is not None]
    inside = [one["over"] for one in known if one["inside_noise"]]
    if not known:
        return "not known"
    if inside:
        return f"inside the noise of {' and '.join(inside)}"
    return f"more than the noise of {' and '.join(one['over'] for one in known)}"


def _ground(content: Mapping[str, Any]) -> list[str]:
    seeds = len(content["seeds"])
    ground = [_pairing(content)]
    if content["teacher_runs"]:
        ground.append(
            "All methods learn from the same teacher, one for each seed."
            if content["teachers"] == "shared"
            else "Each method learns from a teacher that was trained as its own paper does, one for each seed."
        )
    if seeds == 1:
        ground.append("One seed is one draw: how far figures move from seed to seed is not known here.")
    for over in ("seeds", "test images"):
        tests = sum(one["over"] == over and one["p"] is not None for one in content["differences"])
        if tests > 1:
            ground.append(f"p values over {over} are corrected for {tests} differences by Holm's rule.")
    return ground


def _pairing(content: Mapping[str, Any]) -> str:
    """What is true of every difference: over the seeds asked for only where none is over fewer."""
    asked, baseline, differences = len(content["seeds"]), content["baseline"], content["differences"]
    if not differences and len(content["methods"]) > 1:
        return f"No difference from {baseline} is known: no other method shares a finished seed with it."
    if all(paired_seeds(content, one["method"], one["figure"]) == asked for one in differences):
        return f"Every difference is against {baseline}, over {asked} seed{'s' * (asked != 1)}."
    return f"Every difference is against {baseline}, over those of the {asked} seeds that both methods finished."


def _grid(content: Mapping[str, Any]) -> list[str]:
    grid = content["grid"]
    if grid is None:
        return []
    asked = len(content["seeds"])
    sentences = [
        f"{point['label']} was chosen among {sum(other['method'] == point['method'] for other in grid['points'])} "
        f"points by {grid['rule']}: {plain(point['mean'])}{_of_seeds(point, asked)}. The test set had no part in it."
        for point in grid["points"]
        if point["chosen"] and point["settings"] and point["mean"] is not None
    ]
    lost = [point["label"] for point in grid["points"] if point["settings"] and _lost_runs(point)]
    if lost:
        sentences.append(f"{', '.join(lost)} lost seeds: such a point ranks below every point that lost fewer.")
    return sentences


def _of_seeds(point: Mapping[str, Any], asked: int) -> str:
    known = len(point["validation"])
    return f" ({known} of {asked} seeds)" if known < asked else ""


def _lost_runs(point: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [run for run in point["runs"] if run["state"] == FAILED]


def _differences(content: Mapping[str, Any]) -> list[str]:
    sentences = []
    for method in content["methods"]:
        for figure in MAIN_METRICS:
            found = [one for one in content["differences"] if (one["method"], one["figure"]) == (method, figure)]
            if not found:
                continue
            intervals = [
                f"over {one['over']} {signed(one['interval'][0])} to {signed(one['interval'][1])}"
                for one in found
                if one["interval"] is not None
            ]
            known = f" ({', '.join(intervals)})" if intervals else ""
            pairs, asked = paired_seeds(content, method, figure), len(content["seeds"])
            fewer = f" over {pairs} of {asked} seeds" if pairs < asked else ""
            sentences.append(
                f"{method} against {content['baseline']}, {METRIC_TITLES[figure]}: "
                f"{signed(found[0]['difference'])} points"
                f"{fewer}{known}: {verdict(found)}."
            )
    return sentences


def _not_finished(content: Mapping[str, Any]) -> list[str]:
    """What is left of the compared methods' runs, and what failed at any point of a grid; each run once."""
    grid = content["grid"]
    lost = [(point["label"], run) for point in grid["points"] for run in _lost_runs(point)] if grid else []
    told = {run["folder"] for _, run in lost}
    left = [
        (run["method"], run)
        for run in content["runs"]
        if run["state"] != FINISHED and not (run["state"] == FAILED and run["folder"] in told)
    ]
    return [f"{label}, seed {run['seed']}, is {run['state']}: {run['problem']}" for label, run in left + lost]
