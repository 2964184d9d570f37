"""A method's entries in one slot with the parameters that it gives them, without building the method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distail.objective.composition import DEFAULTS, Entry, parse
from distail.objective.presets import list_methods


def asked_of(method: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that a method or composition, as `create_method` takes it, comes to with its preset and defaults."""
    preset = list_methods()[method["name"]] if "name" in method else None
    return {**DEFAULTS, **(preset.composition if preset else {}), **method}


def method_entries(asked: Mapping[str, Any], slot: str) -> list[tuple[Entry, dict[str, Any]]]:
    """The slot's entries in order, each with its parameters.

    >>> entries = method_entries(asked_of({"name": "ipwd", "max_weight": 3.0}), "weights")
    >>> [(entry.name, parameters["max_weight"], parameters["ratio"]) for entry, parameters in entries]
    [('inverse_propensity', 3.0, 'kd_over_cls')]
    """
    return [
        (entry, {key: entry.parameters.get(key, asked.get(key, default)) for key, default in entry.defaults.items()})
        for entry in parse(asked)[slot]
    ]
