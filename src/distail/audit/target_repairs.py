"""What each method's target repair would do to a teacher's targets, image by image, before any training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distail.evaluation.checks import rows_at_once
from distail.functional.checks import check_temperature, counts_of, log_probabilities, of_target
from distail.functional.divergences import kl_of_log_probabilities
from distail.methods.composition import DEFAULTS, Entry, parse
from distail.methods.context import BatchContext, Progress, SlotSetup
from distail.methods.method import identity_reduce
from distail.methods.presets import list_methods
from distail.outputs import Outputs


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


@dataclass(frozen=True)
class Repair:
    """The target slot of a method: its entries, their parameters, the temperature of the targets.

    `reconstruction`: whether the method is our reading of a paper whose equations are not public.
    """

    entries: tuple[str, ...]
    parameters: Mapping[str, Any]
    temperature: float
    modules: tuple[nn.Module, ...]
    reconstruction: bool = False

    def __call__(self, logits_BC: Tensor, target_B: Tensor) -> Tensor:
        """Teacher logits (B, C) and labels (B,) to repaired logits (B, C), as at the end of training."""
        given = Outputs(logits_BC)
        context = BatchContext(given, given, target_B, None, self.temperature, Progress(), identity_reduce)
        for module in self.modules:
            logits_BC = module(context, logits_BC).values
        return logits_BC


@dataclass(frozen=True)
class RepairEffect:
    """Of each image: how far its target moves (nats, float64), and whether the target then favours the label (bool).

    A label that ties with the largest entry counts as favoured, as in `distail.functional.swap_rectify`.
    """

    divergence: Tensor
    right: Tensor


def published_repairs(class_counts: Sequence[int] | Tensor, temperature: float | None = None) -> dict[str, Repair]:
    """The repair of every published method that has one, by the method's name, each at its own temperature by default.

    Args:
        class_counts: (C,) training images of each class, at least 1.
        temperature: one for all of them.

    Raises:
        MethodError: fewer than two classes, a count below 1, or a temperature that is not above 0.

    >>> {name: " + ".join(repair.entries) for name, repair in published_repairs([30, 5]).items()}
    {'bkd': 'reweigh', 'drkd': 'swap', 'krdistill': 'swap + reweigh', 'dive': 'power'}
    """
    found = {name: repair_of({"name": name}, class_counts, temperature) for name in list_methods()}
    return {name: repair for name, repair in found.items() if repair is not None}


def repair_of(
    method: Mapping[str, Any], class_counts: Sequence[int] | Tensor, temperature: float | None = None
) -> Repair | None:
    """The repair of a method or composition, as `create_method` takes it; None where it repairs no targets.

    Raises:
        MethodError: as `published_repairs`, or an entry or parameter that does not exist.

    >>> repair_of({"name": "bkd", "beta": 0.99}, [30, 5]).parameters
    {'beta': 0.99, 'defer_until': 0.0}
    >>> repair_of({"name": "kd"}, [30, 5]) is None
    True
    """
    preset = list_methods()[method["name"]] if "name" in method else None
    asked = asked_of(method)
    found = method_entries(asked, "targets")
    if not found:
        return None
    entries = [entry for entry, _ in found]
    own = check_temperature(asked["temperature"] if temperature is None else temperature)
    setup = SlotSetup(counts_of(class_counts), own)
    parameters = {key: value for _, own_parameters in found for key, value in own_parameters.items()}
    return Repair(
        tuple(entry.name for entry in entries),
        parameters,
        own,
        tuple(entry.build(setup, asked) for entry in entries),
        preset is not None and preset.reconstruction,
    )


def repair_effects(
    logits_NC: Tensor, target_N: Tensor, repairs: Mapping[str, Repair]
) -> tuple[Tensor, dict[str, RepairEffect]]:
    """What is right before, and how far each repair moves each image's target: ``KL(repaired || original)`` in nats.

    Both are softmaxes at the repair's temperature T. ``T^2`` times the divergence is the distillation loss which the
    repair charges a student that copies its teacher [ours]. One pass over blocks of rows, in float64.

    Args:
        logits_NC: (N, C) floating and finite, on the CPU.
        target_N: (N,) int64.

    Returns:
        (N,) bool, whether the target as it is favours the label; and each repair's effect, by name.

    >>> right, effects = repair_effects(torch.tensor([[4.0, 0.0]]), torch.tensor([1]), published_repairs([30, 5], 4.0))
    >>> right, effects["drkd"].right, effects["drkd"].divergence
    (tensor([False]), tensor([True]), tensor([0.4621], dtype=torch.float64))
    """
    # Filled in place, as in `by_rows`.
    before_N = torch.empty(len(target_N), dtype=torch.bool)
    effects = {
        name: RepairEffect(torch.empty(len(target_N), dtype=torch.float64), torch.empty_like(before_N))
        for name in repairs
    }
    at_once = rows_at_once(logits_NC)
    for first in range(0, len(target_N), at_once):
        block = slice(first, first + at_once)
        logits_BC, target_B = logits_NC[block].double(), target_N[block]
        before_N[block] = _favours(logits_BC, target_B)
        for name, repair in repairs.items():
            repaired_BC = repair(logits_BC, target_B)
            moved_B = kl_of_log_probabilities(
                log_probabilities(repaired_BC, repair.temperature), log_probabilities(logits_BC, repair.temperature)
            )
            # A target that stays where it is may come out a rounding error below 0.
            effects[name].divergence[block] = moved_B.clamp_min(0.0)
            effects[name].right[block] = _favours(repaired_BC, target_B)
    return before_N, effects


def _favours(logits_BC: Tensor, target_B: Tensor) -> Tensor:
    return of_target(logits_BC, target_B) >= logits_BC.amax(dim=1)
