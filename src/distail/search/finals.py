"""The end of a search: its best trials over other seeds, one choice among them, and what that is worth."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, sqrt
from pathlib import Path
from statistics import stdev

from distail.compare.plan import ComparisonConfig
from distail.config.data import Folds
from distail.config.reading import dump_plain_yaml
from distail.config.schema import Experiment, Teacher
from distail.evaluation.metrics import MetricValues
from distail.json_values import as_mapping
from distail.search.content import FinalistContent, SearchContent, TrialContent, ranked
from distail.search.goal import Goal
from distail.search.slots import FREE, REFERENCE
from distail.search.space import with_recipe
from distail.search.trials import TrialRuns
from distail.search.validation import students_of, validation_by_epoch

FINALISTS = 3
"""How many trials are trained again: a validation split has few images of rare classes, and the best of many trials is
often only the luckiest."""
METHODS = 4 + FINALISTS
CE, KD = "ce", "kd"


def finalists_of(content: SearchContent) -> list[TrialContent]:
    """What costs nothing, where it was tried, and the best other trials; without kd, which is always there.

    What costs nothing is there twice where another recipe makes it better: a gain of the recipe is not the repair's.
    """
    finished = ranked(content["trials"])
    free = free_trials(content)
    best = [one for one in finished if one["number"] not in {REFERENCE, *free}]
    given = [one for one in finished if one["number"] == FREE]
    better = [one for one in finished if one["number"] in free][:1]
    return given + [one for one in better if one not in given] + best[:FINALISTS]


def free_trials(content: SearchContent) -> set[int]:
    """The trials of the method without a teacher and without cost, with whatever recipe."""
    method = next((one["method"] for one in content["trials"] if one["number"] == FREE), None)
    return {one["number"] for one in content["trials"] if one["method"] == method}


def comparison_of(base: Experiment, content: SearchContent, seeds: Sequence[int], folder: Path) -> ComparisonConfig:
    """`ce`, `kd` and the finalists over other seeds; a longer search may add some to the same folder."""
    finalists = finalists_of(content)
    return ComparisonConfig(
        base,
        {CE: {"name": CE}, KD: {"name": KD}} | {_label(one): one["method"] for one in finalists},
        seeds,
        baseline=KD,
        output=folder,
        recipes={_label(one): one["recipe"] for one in finalists if one["recipe"]},
        recommends=False,
    )


def choose(
    runs: TrialRuns, goal: Goal, content: SearchContent, seeds: Sequence[int], folder: Path
) -> list[FinalistContent]:
    """kd and the finalists with their means over all seeds, those of the validation splits alone; the chosen one first.

    What keeps the bound on average is better than what does not. What costs nothing is chosen unless the best mean is
    above its by more than a standard error of the difference over seeds. Where one of them lost a run the choice is
    open, and the list is empty: it could be the best, and a mean over fewer seeds is no fair match.
    """
    candidates = [(REFERENCE, KD), *((one["number"], _label(one)) for one in finalists_of(content))]
    last = runs.base.training.epochs
    by_label: dict[str, list[MetricValues]] = {}
    for number, label in candidates:
        again = [validation_by_epoch(students_of(runs.base, folder, label, seed), last) for seed in seeds]
        judged = [epochs[last] for epochs in (runs.validation(number), *again) if last in epochs]
        if len(judged) <= len(seeds):
            return []
        by_label[label] = judged
    found: list[FinalistContent] = []
    figures: dict[int, list[float]] = {}
    for number, label in candidates:
        own = by_label[label]
        figures[number] = [goal.figure(each) for each in own]
        losses = [goal.loss(each, kd) for each, kd in zip(own, by_label[KD], strict=True)]
        lost = [loss for loss in losses if loss is not None]
        mean, loss = fsum(figures[number]) / len(own), fsum(lost) / len(lost) if lost else None
        within = goal.allows(loss)
        found.append({"number": number, "label": label, "figure": mean, "top1_loss": loss, "within_bound": within})
    # Sorting is stable: of equal ones kd, then the one that was better in the search.
    found = sorted(found, key=lambda one: (not one["within_bound"], -one["figure"]))
    free_numbers = free_trials(content)
    free = next((one for one in found if one["number"] in free_numbers and one["within_bound"]), None)
    if free is None or beyond_its_error(figures[found[0]["number"]], figures[free["number"]]):
        return found
    return [free, *(one for one in found if one is not free)]


def beyond_its_error(own: Sequence[float], others: Sequence[float]) -> bool:
    """Whether figures, pair by pair, are above others by more than a standard error of their mean difference.

    >>> beyond_its_error([90.0, 95.0, 91.0], [89.0, 94.0, 90.5]), beyond_its_error([90.0, 99.0], [92.0, 94.0])
    (True, False)
    """
    differences = [one - other for one, other in zip(own, others, strict=True)]
    error = stdev(differences) / sqrt(len(differences)) if len(differences) > 1 else 0.0
    return fsum(differences) / len(differences) > error


def best_yaml(base: Experiment, best: TrialContent, teacher: Teacher | None) -> str:
    """The experiment that `distail run` takes, in a folder of its own; what folds have chosen needs no validation.

    Args:
        teacher: of the run that was searched. Where the recipe changes, a teacher that is trained anew would change
            with it: this one was trained with the recipe as it was.
    """
    raw = with_recipe(base, best["recipe"])
    if best["recipe"] and teacher is not None:
        raw["teacher"] = teacher.model_dump(mode="json")
    if isinstance(base.data.validation, Folds):
        raw["data"] = {**as_mapping(raw["data"]), "validation": 0}
    rest = {key: value for key, value in raw.items() if key not in ("name", "output", "method")}
    whole = {"name": f"{base.name}-best", **rest, "method": best["method"]}
    return f"# trial {best['number']}: {best['words']}\n" + dump_plain_yaml(whole)


def _label(one: TrialContent) -> str:
    return f"trial-{one['number']}"
