"""What a comparison shows, in sentences whose every number is in its tables."""

from __future__ import annotations

from collections.abc import Sequence

from distail.compare.content import ComparisonContent, DifferenceContent, PointContent, PointRunContent, RunContent
from distail.evaluation.metrics import METRICS
from distail.evaluation.run_files import FAILED, FINISHED
from distail.evaluation.significance import OVER_IMAGES, OVER_SEEDS

METRIC_TITLES = {path: metric.title for path, metric in METRICS.items()}
RULES = tuple(dict.fromkeys(metric.rule for metric in METRICS.values() if metric.rule))
MAIN_METRICS = ("top1", "balanced_accuracy", "groups.thirds.tail")
"""What sentences are made of; the tables have all."""


def differences_of(content: ComparisonContent, method: str, metric: str) -> list[DifferenceContent]:
    """One method's differences in one metric: over seeds, over test images, or both."""
    return [one for one in content["differences"] if (one["method"], one["figure"]) == (method, metric)]


def paired_seeds(content: ComparisonContent, method: str, metric: str) -> int:
    """Over how many seeds a difference from the baseline is: those in which both have the metric."""
    own, other = (content["figures"][label][metric]["values"] for label in (method, content["baseline"]))
    return sum(seed in other for seed in own)


def format_signed(value: float) -> str:
    """A difference in points.

    >>> format_signed(1.25), format_signed(-0.04), format_signed(0.0)
    ('+1.2', '0.0', '0.0')
    """
    text = f"{value:+.1f}"
    return text if float(text) else "0.0"


def format_metric(value: float) -> str:
    """A metric in percent, without a negative zero."""
    text = f"{value:.1f}"
    return text if float(text) else "0.0"


def statements(content: ComparisonContent) -> list[str]:
    """The sentences of `comparison.json`, from the rest of its content."""
    return [*_conditions(content), *_grid(content), *_differences(content), *_not_finished(content)]


def verdict(differences: Sequence[DifferenceContent]) -> str:
    """What is known of one method's difference in one metric: its entries over seeds and over test images.

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


def _conditions(content: ComparisonContent) -> list[str]:
    """What holds for every difference: what is paired, who taught, how p values are corrected."""
    sentences = [_pairing(content)]
    if content["teacher_runs"]:
        sentences.append(
            "All methods learn from the same teacher, one for each seed."
            if content["teachers"] == "shared"
            else "Each method learns from a teacher that was trained as its own paper does, one for each seed."
        )
    if len(content["seeds"]) == 1:
        sentences.append("One seed is one draw: how far figures move from seed to seed is not known here.")
    for over in (OVER_SEEDS, OVER_IMAGES):
        tests = sum(one["over"] == over and one["p"] is not None for one in content["differences"])
        if tests > 1:
            sentences.append(f"p values over {over} are corrected for {tests} differences by Holm's rule.")
    return sentences


def _pairing(content: ComparisonContent) -> str:
    """What is true of every difference: over all seeds only where none is over fewer."""
    seeds, baseline, differences = len(content["seeds"]), content["baseline"], content["differences"]
    if not differences and len(content["methods"]) > 1:
        return f"No difference from {baseline} is known: no other method shares a finished seed with it."
    if all(paired_seeds(content, one["method"], one["figure"]) == seeds for one in differences):
        return f"Every difference is against {baseline}, over {seeds} seed{'s' * (seeds != 1)}."
    return f"Every difference is against {baseline}, over those of the {seeds} seeds that both methods finished."


def _grid(content: ComparisonContent) -> list[str]:
    grid = content["grid"]
    if grid is None:
        return []
    sentences = []
    for point in grid["points"]:
        if not point["chosen"] or not point["settings"] or point["mean"] is None:
            continue
        among = sum(other["method"] == point["method"] for other in grid["points"])
        known, seeds = len(point["validation"]), len(content["seeds"])
        fewer = f" ({known} of {seeds} seeds)" if known < seeds else ""
        sentences.append(
            f"{point['label']} was chosen among {among} points by {grid['rule']}: "
            f"{format_metric(point['mean'])}{fewer}. The test set had no part in it."
        )
    lost = [point["label"] for point in grid["points"] if point["settings"] and _failed_runs(point)]
    if lost:
        sentences.append(f"{', '.join(lost)} lost seeds: such a point ranks below every point that lost fewer.")
    return sentences


def _failed_runs(point: PointContent) -> list[PointRunContent]:
    return [run for run in point["runs"] if run["state"] == FAILED]


def _differences(content: ComparisonContent) -> list[str]:
    sentences = []
    for method in content["methods"]:
        for metric in MAIN_METRICS:
            found = differences_of(content, method, metric)
            if not found:
                continue
            intervals = []
            for one in found:
                if one["interval"] is not None:
                    low, high = one["interval"]
                    intervals.append(f"over {one['over']} {format_signed(low)} to {format_signed(high)}")
            known = f" ({', '.join(intervals)})" if intervals else ""
            pairs, seeds = paired_seeds(content, method, metric), len(content["seeds"])
            fewer = f" over {pairs} of {seeds} seeds" if pairs < seeds else ""
            sentences.append(
                f"{method} against {content['baseline']}, {METRIC_TITLES[metric]}: "
                f"{format_signed(found[0]['difference'])} points{fewer}{known}: {verdict(found)}."
            )
    return sentences


def _not_finished(content: ComparisonContent) -> list[str]:
    """What is left of the compared methods' runs, and what failed at any point of a grid; each run once."""
    failed_points: list[tuple[str, PointRunContent]] = []
    for point in content["grid"]["points"] if content["grid"] else []:
        failed_points += [(point["label"], run) for run in _failed_runs(point)]
    among_points = {run["folder"] for _, run in failed_points}
    sentences = []
    for run in content["runs"]:
        if run["state"] != FINISHED and not (run["state"] == FAILED and run["folder"] in among_points):
            sentences.append(_unfinished(run["method"], run["seed"], run))
    return sentences + [_unfinished(label, run["seed"], run) for label, run in failed_points]


def _unfinished(label: str, seed: int, run: RunContent) -> str:
    return f"{label}, seed {seed}, is {run['state']}: {run['problem']}"
