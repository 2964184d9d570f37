"""`comparison.json`: what the finished runs say together."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from distail.compare.plan import Job, Plan
from distail.compare.scheduler import MISSING, State
from distail.compare.selection import best, grid_content, score_points
from distail.compare.status import FINISHED
from distail.compare.summary import statements
from distail.errors import CheckpointError, DistailError
from distail.evaluation.bootstrap import Array, ImageFacts, bootstrap_metrics, image_facts
from distail.evaluation.metrics import METRICS, metric_at
from distail.evaluation.predictions import load_predictions
from distail.evaluation.significance import Difference, corrected, over_images, over_seeds, summarize
from distail.report.json_values import mapping
from distail.report.read_run import RECONSTRUCTIONS

SCHEMA_VERSION = 1
GRID_UNDER_WAY = State(MISSING, "its grid is not finished")
Key = tuple[str, int]
"""A method's label, with its grid point where there is a grid, and a seed."""


def comparison_content(plan: Plan, states: Mapping[str, State], *, images: bool) -> dict[str, Any]:
    """The content of `comparison.json`.

    Args:
        plan: all runs.
        states: how each stands, by its job's name.
        images: whether to draw the test images again (seconds to a minute); done once, at the end.
    """
    seeds = plan.asked.seeds
    finished = frozenset(key for key, job in plan.runs.items() if states[job.name].state == FINISHED)
    judged = score_points(plan, finished)
    # While any of its points could still win, a method has no choice and so no test figures.
    under_way = {
        method
        for method, points in plan.points.items()
        if len(points) > 1
        and any(states[plan.runs[point.label, seed].name].state == MISSING for point in points for seed in seeds)
    }
    chosen = {method: None if method in under_way else best(points) for method, points in judged.items()}
    labels = {method: point.label if point else method for method, point in chosen.items()}
    runs: dict[Key, Job] = {
        (labels[method], seed): plan.runs[(point or plan.points[method][0]).label, seed]
        for method, point in chosen.items()
        for seed in seeds
    }
    shown = {key: job for key, job in runs.items() if key in finished and key[0] not in under_way}
    results = {key: job.folder.stored_result() or {} for key, job in shown.items()}
    any_result: Mapping[str, Any] = next(iter(results.values()), {})
    baseline = labels[plan.baseline]
    values = {label: {name: _values(results, label, name) for name in METRICS} for label in labels.values()}
    notes: list[str] = []
    drawn = _drawn(shown, any_result, notes) if images and shown else lambda metric: lambda label, seed: None
    differences = _differences(values, baseline, drawn, images)
    content = {
        "schema_version": SCHEMA_VERSION,
        "name": plan.asked.base.name,
        "class_names": any_result.get("class_names", []),
        "class_counts": any_result.get("class_counts", []),
        "subset_sha256": {str(seed): result["subset_sha256"] for (_, seed), result in results.items()},
        "seeds": list(plan.asked.seeds),
        "methods": list(labels.values()),
        "baseline": baseline,
        "teachers": plan.asked.teachers,
        "runs": [
            {
                "method": label,
                "seed": seed,
                **_standing(plan, job, GRID_UNDER_WAY if label in under_way else states[job.name]),
            }
            for (label, seed), job in runs.items()
        ],
        "teacher_runs": [
            {"seed": one.seed, "supervised": one.supervised, **_standing(plan, one.job, states[one.job.name])}
            for one in plan.teachers
        ],
        "figures": {
            label: {name: summarize(of_seed).as_json() for name, of_seed in metrics.items()}
            for label, metrics in values.items()
        },
        "differences": [difference.as_json() for difference in differences],
        "grid": grid_content(plan, judged, chosen, lambda job: _standing(plan, job, states[job.name])),
    }
    notes += [
        f"{label}, seed {seed}, was trained on other images than other runs of that seed: "
        "what sets them apart is partly the data."
        for (label, seed), result in results.items()
        if result["subset_sha256"] != content["subset_sha256"][str(seed)]
    ]
    notes += [
        f"The runs differ in {what}: what sets them apart is partly that."
        for what in ("precision", "torch")
        if len({str(mapping(result.get("versions")).get(what)) for result in results.values()}) > 1
    ]
    asked = json.dumps([dict(method) for method in plan.asked.methods.values()])
    notes += [note for name, note in RECONSTRUCTIONS.items() if f'"{name}"' in asked][:1]
    return {**content, "statements": [*statements(content), *notes]}


def _standing(plan: Plan, job: Job, state: State) -> dict[str, Any]:
    result = job.folder.stored_result() if state.state == FINISHED else None
    return {
        "folder": job.experiment.output.relative_to(plan.folder).as_posix(),
        "state": state.state,
        "problem": state.problem,
        "seconds": result["timing"]["student"]["seconds"] if result else None,
    }


def _values(results: Mapping[Key, Mapping[str, Any]], label: str, name: str) -> dict[int, float]:
    known = {
        seed: metric_at(result["student"]["test"], name) for (own, seed), result in results.items() if own == label
    }
    return {seed: value for seed, value in known.items() if value is not None}


Drawn = Callable[[str], Callable[[str, int], Array | None]]
"""Metric to (label, seed) to its values on the test sets drawn again."""


def _drawn(runs: Mapping[Key, Job], result: Mapping[str, Any], notes: list[str]) -> Drawn:
    facts: dict[Key, ImageFacts] = {}
    target = None
    for key, job in runs.items():
        try:
            logits_NC, target_N = load_predictions(job.folder.predictions)
            if target is not None and not target_N.equal(target):
                raise CheckpointError("the labels of its test images are not those of the other runs.")
            facts[key] = image_facts(logits_NC, target_N, result["class_counts"])
            target = target_N
        except DistailError as error:
            notes.append(f"{key[0]}, seed {key[1]}, is left out of what other test images would say: {error}")
    if target is None:
        return lambda metric: lambda label, seed: None
    values = bootstrap_metrics(target.numpy(), result["class_counts"], list(facts.values()))
    place = {key: i for i, key in enumerate(facts)}

    def of_metric(metric: str) -> Callable[[str, int], Array | None]:
        known = values.get(metric)
        if known is None:
            return lambda label, seed: None
        return lambda label, seed: known[:, place[label, seed]] if (label, seed) in place else None

    return of_metric


def _differences(
    values: Mapping[str, Mapping[str, Mapping[int, float]]], baseline: str, drawn: Drawn, images: bool
) -> list[Difference]:
    found: list[Difference | None] = []
    for label, metrics in values.items():
        for name in METRICS if label != baseline else ():
            own, other = metrics[name], values[baseline][name]
            found.append(over_seeds(label, name, own, other))
            if images:
                found.append(over_images(label, name, own, other, drawn(name), baseline))
    return corrected([difference for difference in found if difference is not None])
