"""What a search shows, in sentences whose every number is in `search.json` or its comparison."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from distail.compare.content import ComparisonContent, DifferenceContent
from distail.compare.metrics import decides
from distail.errors import counted
from distail.evaluation import run_files
from distail.evaluation.groups import THIRD_PATHS
from distail.evaluation.headline import HEADLINE_WORDS
from distail.report.numbers import format_metric, format_signed
from distail.search.content import FAILED, FINISHED, STOPPED_EARLY, SearchContent, TrialContent
from distail.search.finals import CE, free_trials
from distail.search.goal import METRICS, WORST_THIRD
from distail.search.slots import FREE, KD, REFERENCE

_FREE = "ce, adjusted"


def statements(content: SearchContent, comparison: ComparisonContent | None = None) -> list[str]:
    """Of the search and its choice; with the comparison over other seeds also what the choice is worth."""
    sentences = [_tried(content["trials"])]
    best = next((one for one in content["trials"] if one["number"] == content["best"]), None)
    if best is not None:
        sentences += _chosen(content, best)
        if comparison is not None and not content["finalists"]:
            sentences.append(_open(comparison))
        elif comparison is not None and best["number"] != REFERENCE:
            sentences.append(_worth(content["finalists"][0]["label"], comparison))
            if content["metric"] == WORST_THIRD:
                sentences += _worst_thirds(content["finalists"][0]["label"], comparison)
    return sentences


def _open(comparison: ComparisonContent) -> str:
    """Which runs with other seeds the choice waits for; those of ce are only compared with."""
    lost = [run["folder"] for run in comparison["runs"] if run["state"] != run_files.FINISHED and run["method"] != CE]
    return (
        f"The choice is still open, because not all runs with other seeds are finished: {', '.join(lost)} in the "
        "comparison. Run the same command again to retry them."
    )


def _worth(label: str, comparison: ComparisonContent) -> str:
    """Against plain distillation and against what costs nothing, with the intervals that there are."""
    differences: dict[str, list[DifferenceContent]] = {}
    for one in comparison["differences"]:
        differences.setdefault(comparison["baseline"], []).append(one)
    for free in comparison["beyond_adjusting"]:
        differences.setdefault(free["against"], []).append(free)
    parts = []
    for against in (comparison["baseline"], _FREE):
        found = [
            one
            for one in differences.get(against, [])
            if (one["method"], one["figure"]) == (label, decides(comparison))
        ]
        between = [
            f"over {one['over']} {format_signed(one['interval'][0])} to {format_signed(one['interval'][1])}"
            for one in found
            if one["interval"] is not None
        ]
        if found:
            known = f" ({', '.join(between)})" if between else ""
            parts.append(f"{format_signed(found[0]['difference'])} points against {against}{known}")
    if not parts:
        return "The result on the test set is not known: runs of the comparison are not finished."
    seeds = ", ".join(map(str, comparison["seeds"]))
    words = HEADLINE_WORDS[decides(comparison)]
    return f"Result on the test set in {words}, seeds {seeds}: {' and '.join(parts)}."


def _worst_thirds(label: str, comparison: ComparisonContent) -> list[str]:
    """The chosen trial's and the references' means over seeds; no interval is known of a minimum of groups."""
    worst: dict[str, float] = {}
    for row in dict.fromkeys((label, comparison["baseline"], _FREE)):
        metrics = comparison["figures"].get(row, {})
        by_third = [metrics[path]["values"] for path in THIRD_PATHS if path in metrics and metrics[path]["values"]]
        if by_third:
            worst[row] = mean(min(values[seed] for values in by_third) for seed in by_third[0])
    if label not in worst:
        return []
    figures = "; ".join(f"{row} {format_metric(figure)}" for row, figure in worst.items())
    return [f"{METRICS[WORST_THIRD][0].capitalize()} on the test set, mean over seeds: {figures}."]


def _tried(trials: Sequence[TrialContent]) -> str:
    def number(state: str) -> int:
        return sum(one["state"] == state for one in trials)

    failed = f", {number(FAILED)} failed" if number(FAILED) else ""
    return (
        f"{counted(len(trials), 'trial')}: {number(FINISHED)} finished, {number(STOPPED_EARLY)} stopped early, because "
        f"others were better after the same number of epochs{failed}."
    )


def _chosen(content: SearchContent, best: TrialContent) -> list[str]:
    finalists = content["finalists"]
    if not finalists:
        return [f"The best so far is trial {best['number']} ({best['words']}), by {content['rule']}."]
    lost = [*_without_free(content), *_lost_to_the_bound(content)]
    again = f"Of kd and {counted(len(finalists) - 1, 'other trial')}, also trained with other seeds"
    kd = next(one for one in finalists if one["number"] == REFERENCE)
    chosen = finalists[0]
    if chosen is kd:
        if len(content["trials"]) == 1:
            return ["Only kd was tried."]
        nothing = "No trial is" if len(finalists) == 1 else f"{again}, nothing is"
        return [f"{nothing} better than kd by {content['rule']}.", *lost]
    lower = "" if chosen["top1_loss"] is None else f", top-1 {format_signed(-chosen['top1_loss'])} against kd"
    sentences = [
        f"{again}, trial {best['number']} ({best['words']}) is chosen by {content['rule']}, mean over seeds: "
        f"{METRICS[content['metric']][0]} {format_metric(chosen['figure'])}, kd {format_metric(kd['figure'])}"
        f"{lower}. The test set was not used."
    ]
    # They are sorted by their means, but for the chosen one.
    higher = next((one for one in finalists if one["within_bound"] and one["figure"] > chosen["figure"]), None)
    if higher is not None:
        sentences.append(
            f"The highest mean, that of trial {higher['number']}, exceeds it, but not by more than one standard "
            "error over the seeds: of indistinguishable trials, the one that costs nothing is chosen."
        )
    if best["recipe"]:
        keys = ", ".join(best["recipe"])
        sentences.append(f"It also changes {keys}, unlike kd and ce: its gain is not due to the repair alone.")
        same = free_trials(content) - {FREE, best["number"]}
        for one in finalists:
            if one["number"] in same:
                words = next(trial["words"] for trial in content["trials"] if trial["number"] == one["number"])
                sentences.append(
                    f"Trial {one['number']} ({words}), which costs nothing, has {format_metric(one['figure'])}."
                )
    return sentences + lost


def _without_free(content: SearchContent) -> list[str]:
    """That the choice was not held against what costs nothing, and why."""
    free = next((one for one in content["trials"] if one["number"] == FREE), None)
    finalists = [one for one in content["finalists"] if one["number"] in free_trials(content)]
    if free is None or any(one["within_bound"] for one in finalists):
        return []
    if finalists:
        best = max(finalists, key=lambda one: one["figure"])
        figure = f"{format_metric(best['figure'])} on average over seeds"
        return [_beyond_the_bound(f"Trial {best['number']}, which costs nothing,", figure, best["top1_loss"] or 0.0)]
    if free["state"] == FAILED:
        why = f"failed ({free['problem']}); run the same command again to retry it"
    elif free["top1_loss"] is not None:
        why = f"loses {format_metric(free['top1_loss'])} points of top-1"
    else:
        why = "is not finished"
    return [f"The choice was not held against trial {FREE} ({free['words']}), which costs nothing: it {why}."]


def _lost_to_the_bound(content: SearchContent) -> list[str]:
    """The best finished trial that no one could choose, where it is better than all that could be chosen."""
    finished = [one for one in content["trials"] if one["state"] == FINISHED and one["figure"] is not None]
    best = max(finished, key=lambda one: one["figure"] or 0.0, default=None)
    if best is None or best["within_bound"] or best["figure"] is None or best["top1_loss"] is None:
        return []
    figure = f"{format_metric(best['figure'])} with the searched seed"
    return [_beyond_the_bound(f"Trial {best['number']} ({best['words']})", figure, best["top1_loss"])]


def _beyond_the_bound(trial: str, figure: str, loss: float) -> str:
    return (
        f"{trial} has {figure}, but loses {format_metric(loss)} points of top-1: a larger --top1-loss, with another "
        "--output, would allow it."
    )


def what_mattered(content: SearchContent) -> str:
    """The parameters by their importance, in one sentence; empty where too few trials are known."""
    shares = sorted(content["importances"].items(), key=lambda item: -item[1])
    named = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares[: len(KD)])
    return f"Importance of the parameters over finished trials: {named}." if named else ""
