"""What a comparison shows, in sentences whose every number is in its tables."""

from __future__ import annotations

from collections.abc import Sequence

from distail.compare.advice import advice
from distail.compare.content import (
    ComparisonContent,
    DifferenceContent,
    MethodRunContent,
    PointContent,
    PointRunContent,
)
from distail.compare.draws import Draw
from distail.compare.metrics import decides, main_metrics, of_multi_label
from distail.errors import enumerated
from distail.evaluation.adjustment import adjusted_name
from distail.evaluation.metrics import METRICS
from distail.evaluation.run_files import FAILED, FINISHED
from distail.evaluation.significance import (
    MORE_THAN_NOISE,
    NOISE,
    NOT_KNOWN,
    NOT_TESTED,
    OVER_IMAGES,
    OVER_SEEDS,
    TOO_FEW_SEEDS,
    enough_seeds,
    seeds_can_tell,
    smallest_effect,
)
from distail.report.numbers import format_metric, format_signed

METRIC_TITLES = {path: metric.title for path, metric in METRICS.items()}
RULES = tuple(dict.fromkeys(metric.rule for metric in METRICS.values() if metric.rule))


def differences_against(content: ComparisonContent, against: str) -> Sequence[DifferenceContent]:
    """All differences from one row: the baseline, or a row that was only adjusted."""
    if against == content["baseline"]:
        return content["differences"]
    return [one for one in content["beyond_adjusting"] if one["against"] == against]


def adjusted_references(content: ComparisonContent) -> list[str]:
    """The rows that were only adjusted, and that others are held against."""
    return list(dict.fromkeys(one["against"] for one in content["beyond_adjusting"]))


def differences_of(
    content: ComparisonContent, method: str, metric: str, against: str | None = None
) -> list[DifferenceContent]:
    """One row's differences in one metric: over test images, over seeds, or both, in this order."""
    differences = differences_against(content, against or content["baseline"])
    found = [one for one in differences if (one["method"], one["figure"]) == (method, metric)]
    return sorted(found, key=lambda one: one["over"] == OVER_SEEDS)


def statements(content: ComparisonContent, *, recommends: bool = True) -> list[str]:
    """The sentences of `comparison.json`, from the rest of its content."""
    return [
        *(advice(content) if recommends else []),
        *_conditions(content),
        *_grid(content),
        *_taus(content),
        *_differences(content),
        *_beyond_adjusting(content),
        *_not_finished(content),
    ]


def verdict(differences: Sequence[DifferenceContent]) -> str:
    """What is known of one method's difference in one metric: its entries over test images and over seeds.

    >>> images = {"over": "test images", "verdict": "more than the noise", "seeds": 2}
    >>> over_two = {"over": "seeds", "verdict": "too few seeds to tell", "seeds": 2}
    >>> verdict([images])
    'more than the noise of test images'
    >>> verdict([images, over_two])
    'more than the noise of test images; 2 seeds are too few to tell'
    """
    ways: dict[str, list[str]] = {}
    for one in differences:
        ways.setdefault(one["verdict"], []).append(one["over"])
    parts = []
    if MORE_THAN_NOISE in ways:
        parts.append(f"more than the noise of {' and '.join(ways[MORE_THAN_NOISE])}")
    if NOISE in ways:
        parts.append(f"within the noise of {' and '.join(ways[NOISE])}")
    if TOO_FEW_SEEDS in ways:
        parts.append(f"{differences[0]['seeds']} seeds are too few to tell")
    return "; ".join(parts) or (NOT_TESTED if NOT_TESTED in ways else NOT_KNOWN)


def planned_tests(content: ComparisonContent, over: str, against: str | None = None) -> int:
    """How many differences are corrected together: those from the same row."""
    differences = differences_against(content, against or content["baseline"])
    return sum(one["over"] == over and one["figure"] in main_metrics(of_multi_label(content)) for one in differences)


def _conditions(content: ComparisonContent) -> list[str]:
    """What holds for every difference: what is paired, who taught, how p values are corrected."""
    sentences, drawn = [_pairing(content)], "seed" if content.get("folds") is None else "seed and fold"
    if content["teacher_runs"]:
        sentences.append(
            f"All methods use the same teacher, one per {drawn}."
            if content["teachers"] == "shared"
            else f"Each method uses a teacher trained as in its paper, one per {drawn}."
        )
    sentences += _folds(content)
    if len(content["seeds"]) == 1:
        sentences.append("There is one seed, so the variation between seeds is not known.")
    return [*sentences, *_corrections(content), *_what_seeds_can_tell(content)]


def _folds(content: ComparisonContent) -> list[str]:
    """That metrics are means over folds, and the metrics of the methods out of fold."""
    folds = content.get("folds")
    if folds is None:
        return []
    sentences = [
        f"All test metrics are means over {folds} folds per seed, of students trained on all training data except one "
        "fold."
    ]
    for method, figures in content.get("out_of_fold", {}).items():
        means = {
            metric: figures[metric]["mean"] for metric in main_metrics(of_multi_label(content)) if metric in figures
        }
        known = [f"{METRIC_TITLES[metric]} {format_metric(mean)}" for metric, mean in means.items() if mean is not None]
        if known:
            sentences.append(
                f"{method} on training data, each example predicted by the student that held it out: "
                f"{', '.join(known)}."
            )
    return sentences


def _corrections(content: ComparisonContent) -> list[str]:
    tested = {one["over"] for one in content["differences"] if one["p_corrected"] is not None}
    sentences = []
    for over in (OVER_IMAGES, OVER_SEEDS):
        tests = planned_tests(content, over)
        if over in tested and tests > 1:
            sentences.append(f"p values over {over} are corrected for {tests} differences by Holm's method.")
    if tested:
        titles = [METRIC_TITLES[metric] for metric in main_metrics(of_multi_label(content))]
        sentences.append(f"Tested metrics: {enumerated(titles)}; other metrics have no verdict.")
    return sentences


def _what_seeds_can_tell(content: ComparisonContent) -> list[str]:
    seeds, tests = len(content["seeds"]), planned_tests(content, OVER_SEEDS)
    if seeds < 2 or not tests:
        return []
    least = (
        f"With {tests} differences, {seeds} seeds can detect none unless the clearest exceeds "
        f"{smallest_effect(seeds, tests):.1f} times its standard deviation over seeds"
    )
    if seeds_can_tell(seeds, tests):
        return [f"{least}."]
    enough = enough_seeds(tests)
    return [f"{least}; with {enough} seeds, {smallest_effect(enough, tests):.1f} times."]


def _pairing(content: ComparisonContent) -> str:
    """What is true of every difference: over all seeds only where none is over fewer."""
    seeds, baseline, differences = len(content["seeds"]), content["baseline"], content["differences"]
    if not differences and len(content["methods"]) > 1:
        return f"No difference from {baseline} is known: no other method has a finished seed in common with it."
    if all(one["seeds"] == seeds for one in differences):
        return f"All differences are from {baseline}, over {seeds} seed{'s' * (seeds != 1)}."
    return f"All differences are from {baseline}, over those of the {seeds} seeds that both methods finished."


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
            f"{format_metric(point['mean'])}{fewer}. The test set was not used."
        )
    lost = [point["label"] for point in grid["points"] if point["settings"] and _failed_runs(point)]
    if lost:
        sentences.append(f"{', '.join(lost)} lost seeds: such a point ranks below all points that lost fewer.")
    return sentences


def _failed_runs(point: PointContent) -> list[PointRunContent]:
    return [run for run in point["runs"] if run["state"] == FAILED]


def _differences(content: ComparisonContent) -> list[str]:
    return [
        sentence
        for method in content["methods"]
        for metric in main_metrics(of_multi_label(content))
        for sentence in _difference(content, method, metric, content["baseline"])
    ]


def _beyond_adjusting(content: ComparisonContent) -> list[str]:
    """What each method gives beyond adjusting after training, adjusted as well where it can be."""
    sentences = []
    for against in adjusted_references(content)[:1]:
        tests = planned_tests(content, OVER_SEEDS, against)
        sentences.append(
            f'Logit adjustment after training is free. The gain of each method over "{against}" follows, corrected '
            f"as a separate family of {tests} differences."
        )
        for method in content["methods"]:
            adjusted = adjusted_name(method)
            row = adjusted if adjusted in content["figures"] and adjusted != against else method
            sentences += _difference(content, row, decides(content), against)
    return sentences


def _difference(content: ComparisonContent, method: str, metric: str, against: str) -> list[str]:
    """The sentence on one difference; none where it is not known."""
    found = differences_of(content, method, metric, against)
    if not found:
        return []
    pairs, seeds = found[0]["seeds"], len(content["seeds"])
    names = [f'"{label}"' if "," in label else label for label in (method, against)]
    what = f"{' against '.join(names)}, {METRIC_TITLES[metric]}"
    over_images = found[0] if found[0]["over"] == OVER_IMAGES else None
    too_few = any(one["verdict"] == TOO_FEW_SEEDS for one in found)
    if too_few and over_images and over_images["interval"] and over_images["p_corrected"] is not None:
        # The interval over so few seeds is as wide as the scale: here it would only hide what is known.
        lower, upper = map(format_metric, over_images["interval"])
        certain = "within their noise" if over_images["inside_noise"] else "more than their noise"
        which = f"{pairs} of {seeds} seeds" if pairs < seeds else f"{seeds} seeds"
        said = format_signed(over_images["difference"])
        return [
            f"{what}: {which} are too few to tell; over test images it is {said} ({lower} to {upper}), {certain}"
            f"{_once_corrected([over_images])}."
        ]
    intervals = []
    for one in found:
        if one["interval"] is not None:
            low, high = one["interval"]
            intervals.append(f"over {one['over']} {format_signed(low)} to {format_signed(high)}")
    known = f" ({', '.join(intervals)})" if intervals else ""
    fewer = f" over {pairs} of {seeds} seeds" if pairs < seeds else ""
    said = f"{verdict(found)}{_once_corrected(found)}"
    return [f"{what}: {format_signed(found[0]['difference'])} points{fewer}{known}: {said}."]


def _once_corrected(differences: Sequence[DifferenceContent]) -> str:
    """What explains an interval that leaves 0 out beside the verdict that a difference is noise."""
    without_zero = [one for one in differences if one["interval"] and one["interval"][0] * one["interval"][1] > 0]
    noise = any(one["inside_noise"] and one["p_corrected"] is not None for one in without_zero)
    return " once corrected for all differences" if noise else ""


def _taus(content: ComparisonContent) -> list[str]:
    """Which methods are adjusted in themselves, and how far."""
    sentences = []
    folds = "" if content.get("folds") is None else " (mean over the folds of a seed)"
    for method in content["methods"]:
        taus = sorted(set(content["taus"].get(method, {}).values()))
        if taus:
            said = " and ".join(f"{tau:g}" for tau in taus) + folds
            sentences.append(f"{method}: its logits are adjusted after training (method.adjust), with tau {said}.")
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
            sentences.append(_unfinished(run["method"], run))
    return sentences + [_unfinished(label, run) for label, run in failed_points]


def _unfinished(label: str, run: MethodRunContent | PointRunContent) -> str:
    return f"{label}, {Draw(run['seed'], run.get('fold')).words}, is {run['state']}: {run['problem']}"
