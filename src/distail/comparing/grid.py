"""The points of a grid: each method with each choice of the settings that it takes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from distail.config.reading import apply_overrides
from distail.config.schema import Experiment
from distail.errors import DistailError
from distail.methods.composition import TERM_WEIGHTS
from distail.methods.method import Method, Terms
from distail.outputs import Outputs
from distail.runner.checks import build_method

# Every method takes these settings; without the term that each is for, it does not use them.
TERM_OF = {
    "method.temperature": "distillation",
    **{f"method.{weight}": weight.removesuffix("_weight") for weight in TERM_WEIGHTS},
}


@dataclass(frozen=True)
class Point:
    """One method with one choice of settings.

    Attributes:
        label: the method's label, followed by the settings: "kd temperature=2".
        raw: the experiment's mapping, but for name, seed and output.
    """

    method: str
    label: str
    settings: Mapping[str, Any]
    raw: Mapping[str, Any]


def points_of(
    base: Experiment, methods: Mapping[str, Mapping[str, Any]], axes: Mapping[str, Sequence[Any]]
) -> tuple[dict[str, list[Point]], list[str]]:
    """The points of each method, and what is wrong with the grid.

    A method spans only the axes that it takes, as it is given, without the others: `ce` has no temperature, so it runs
    once. An axis that no method takes is a problem.
    """
    taken = {label: _taken_axes(base, method, axes) for label, method in methods.items()}
    problems = [
        f"--grid: no method takes {key}={', '.join(map(str, values))}: {_why_not(base, methods, key, values)}"
        for key, values in axes.items()
        if not any(key in own for own in taken.values())
    ]
    points = {}
    for label, method in methods.items():
        own = taken[label]
        points[label] = [
            _point(base, label, method, dict(zip(own, choice, strict=True)))
            for choice in itertools.product(*(axes[key] for key in own))
        ]
    return points, problems


def _point(base: Experiment, label: str, method: Mapping[str, Any], settings: Mapping[str, Any]) -> Point:
    words = [f"{key.partition('.')[2]}={_shown(value)}" for key, value in settings.items()]
    return Point(label, " ".join([label, *words]), settings, _raw(base, method, settings))


def _raw(base: Experiment, method: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    raw = {**base.model_dump(mode="json"), "method": dict(method)}
    return apply_overrides(raw, [f"{key}={json.dumps(value)}" for key, value in settings.items()])


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace('"', "")


def _taken_axes(base: Experiment, method: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> list[str]:
    return [key for key, values in axes.items() if any(_takes(base, method, key, value) is None for value in values)]


def _why_not(base: Experiment, methods: Mapping[str, Mapping[str, Any]], key: str, values: Sequence[Any]) -> str:
    reasons = (_takes(base, method, key, value) for method in methods.values() for value in values)
    return next(reason for reason in reasons if reason is not None)


def _takes(base: Experiment, method: Mapping[str, Any], key: str, value: Any) -> str | None:
    """None where the method takes this value, else why not; what is not the method's is taken by every one."""
    if not key.startswith("method."):
        return None
    try:
        experiment = base.model_copy(update={"method": _raw(base, method, {key: value})["method"]})
        built = build_method(experiment, [2, 1], 8, 8)
        unused = key in TERM_OF and TERM_OF[key] not in _terms(built)
    except DistailError as error:
        return str(error)
    return f"{built.name} has no {TERM_OF[key]} term" if unused else None


def _terms(method: Method) -> Terms:
    """What the method answers for two images: only its entries know which terms they bring."""
    outputs, label_B = Outputs(torch.zeros(2, 2), torch.eye(2, 8)), torch.arange(2)
    method.prepare([(outputs, label_B)])
    terms: Terms = method.eval()(outputs, outputs, label_B, index=label_B)
    return terms
