"""`comparison.yaml`: what a folder was asked for, so that another comparison cannot be mixed into it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distail import files
from distail.comparing.plan import Asked, Plan
from distail.config.reading import dump_plain_yaml, read_yaml
from distail.runner.run_folder import FREE_DATA_SETTINGS, differences

# Methods and seeds may be added later, a baseline or a grid chosen anew; the trainer section is the machine's.
_FREE = frozenset({"name", "seed", "output", "method", "trainer"})


def stored_problems(asked: Asked) -> list[str]:
    """Every setting in which the folder's comparison differs from the one asked for."""
    path = asked.folder / "comparison.yaml"
    if not path.is_file():
        return []
    stored = read_yaml(path)
    ground = _ground(asked)
    there = {"teachers": stored.get("teachers"), "experiment": _without_free(stored.get("experiment"))}
    differing = list(differences(there, ground))
    where = f"{str(asked.folder)!r} holds another comparison; choose another --output"
    return [f"{where}. It differs in {one}" for one in differing]


def store(plan: Plan) -> Path:
    """Write what was asked for."""
    asked = plan.asked
    content = {
        "name": asked.base.name,
        "methods": [{label: dict(method)} for label, method in asked.methods.items()],
        "seeds": list(asked.seeds),
        "baseline": plan.baseline,
        "grid": {key: list(values) for key, values in asked.axes.items()},
        **_ground(asked),
    }
    path = plan.folder / "comparison.yaml"
    files.write_text(path, dump_plain_yaml(content))
    return path


def _ground(asked: Asked) -> dict[str, Any]:
    """What all runs of a folder have in common."""
    return {"teachers": asked.teachers, "experiment": _without_free(asked.base.model_dump(mode="json"))}


def _without_free(experiment: Any) -> Any:
    """An experiment's mapping without the settings that a run may change between starts, nor those of one run."""
    if not isinstance(experiment, Mapping):
        return experiment
    ground = {key: value for key, value in experiment.items() if key not in _FREE}
    if isinstance(data := ground.get("data"), Mapping):
        ground["data"] = {key: value for key, value in data.items() if key not in FREE_DATA_SETTINGS}
    return ground
