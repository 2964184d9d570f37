"""What `search.json` holds: a contract, whose changes raise `SCHEMA_VERSION`."""

from __future__ import annotations

from typing import TypedDict

SCHEMA_VERSION = 1
FINISHED, STOPPED_EARLY, FAILED, UNDER_WAY = "finished", "stopped early", "failed", "under way"
"""How a trial stands."""


class TrialContent(TypedDict):
    """One trial.

    Attributes:
        problem: why it failed; None where it did not.
        words: what it is, for people.
        method, recipe: what stands under `method`, and the other keys that it changes.
        epochs: after how many its figures are.
        figure: the searched metric on the validation split, percent; None before the first epoch.
        top1, top1_loss: on the validation split, and how much of it the trial loses against kd at the same epoch; None
            also where an example may have several classes.
        within_bound: whether that is as little as it may be.
    """

    number: int
    state: str
    problem: str | None
    words: str
    parameters: dict[str, object]
    method: dict[str, object]
    recipe: dict[str, object]
    epochs: int
    figure: float | None
    top1: float | None
    top1_loss: float | None
    within_bound: bool
    folder: str


class FinalistContent(TypedDict):
    """A trial that was trained with other seeds as well, or kd.

    Attributes:
        label: its name in the comparison.
        figure, top1_loss: on the validation splits, means over the searched seed and the others; the loss is None
            where an example may have several classes.
    """

    number: int
    label: str
    figure: float
    top1_loss: float | None
    within_bound: bool


class BudgetContent(TypedDict):
    """How long the search was to go on, and whether it has."""

    minutes: float | None
    trials: int | None
    used_up: bool


class SearchContent(TypedDict):
    """The whole file.

    Attributes:
        top1_loss: the bound; None where an example may have several classes, and there is no top-1.
        rule: by what the best trial is chosen, in words.
        epochs: of a trial that goes to its end.
        seconds: that the search has taken, over all its starts; the comparison afterwards is not in it.
        best: the number of the trial that was chosen, or is the best so far; None before one is finished.
        finalists: what was chosen among at the end, the chosen one first; empty before the comparison, and
            where one of them lost a run in it, so that the choice is open.
        importances: parameter to its share of what made finished trials differ; empty where too few are known.
        comparison: the folder of the comparison over other seeds; None before there is one.
        statements: what came out, one sentence each.
    """

    schema_version: int
    name: str
    seed: int
    metric: str
    top1_loss: float | None
    rule: str
    epochs: int
    seconds: float
    budget: BudgetContent
    trials: list[TrialContent]
    finalists: list[FinalistContent]
    best: int | None
    importances: dict[str, float]
    comparison: str | None
    statements: list[str]


def ranked(trials: list[TrialContent]) -> list[TrialContent]:
    """The finished trials within the bound, from the best figure on; equal ones in the order in which they began."""
    known = [one for one in trials if one["state"] == FINISHED and one["within_bound"] and one["figure"] is not None]
    return sorted(known, key=lambda one: -(one["figure"] or 0.0))
