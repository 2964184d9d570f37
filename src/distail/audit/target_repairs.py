"""What each method's target repair would do to a teacher's targets, image by image, before any training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from distail.audit.content import RepairContent, TargetMove
from distail.audit.teacher_statistics import ImageGroups, percent
from distail.evaluation.checks import rows_at_once
from distail.functional.checks import check_temperature, counts_of, log_probabilities, of_target
from distail.functional.divergences import kl_of_log_probabilities
from distail.methods.checks import checked_output
from distail.methods.context import BatchContext, Progress, Requirements, SlotOutput, SlotSetup
from distail.methods.entries import DEFAULTS, Entry, parse
from distail.methods.method import identity_reduce
from distail.methods.presets import list_methods
from distail.outputs import Outputs


def whole_composition(method: Mapping[str, object]) -> dict[str, object]:
    """A method or composition, as `create_method` takes it, with all that its preset and the defaults add."""
    preset = list_methods()[str(method["name"])] if "name" in method else None
    return {**DEFAULTS, **(preset.composition if preset else {}), **method}


def slot_entries(composition: Mapping[str, object], slot: str) -> list[tuple[Entry, dict[str, object]]]:
    """The slot's entries in order, each with its parameters.

    >>> entries = slot_entries(whole_composition({"name": "ipwd", "max_weight": 3.0}), "weights")
    >>> [(entry.name, parameters["max_weight"], parameters["ratio"]) for entry, parameters in entries]
    [('inverse_propensity', 3.0, 'kd_over_cls')]
    """
    entries = []
    for entry in parse(composition)[slot]:
        given = {**composition, **entry.parameters}
        entries.append((entry, {key: given.get(key, default) for key, default in entry.defaults.items()}))
    return entries


@dataclass(frozen=True)
class Repair:
    """The target slot of a method: its entries, the parameters of each, the temperature of the targets.

    `reconstruction`: whether the method is our reading of a paper whose equations are not public.
    """

    entries: tuple[str, ...]
    settings: tuple[Mapping[str, Any], ...]
    temperature: float
    modules: tuple[nn.Module, ...]
    reconstruction: bool = False

    @property
    def parameters(self) -> dict[str, Any]:
        """Those of all entries together; of two with one name that of the last."""
        return {key: value for own in self.settings for key, value in own.items()}

    def __call__(self, logits_BC: Tensor, target_B: Tensor) -> list[SlotOutput]:
        """Teacher logits (B, C) and labels (B,) to what each entry makes of them, as at the end of training."""
        given = Outputs(logits_BC)
        context = BatchContext(given, given, target_B, None, self.temperature, Progress(), identity_reduce)
        outputs: list[SlotOutput] = []
        for module in self.modules:
            outputs.append(checked_output(module(context, logits_BC.clone()), module, logits_BC.shape))
            logits_BC = outputs[-1].values
        return outputs


@dataclass(frozen=True)
class RepairEffect:
    """Of each image: how far its target moves (nats, float64), and whether the target then favors the label (bool).

    A label that ties with the largest entry counts as favored, as in `distail.functional.swap_rectify`.
    `student_side` holds the places of the entries that change the student's logits.
    """

    divergence: Tensor
    correct: Tensor
    student_side: set[int] = field(default_factory=set)


def published_repairs(class_counts: Sequence[int] | Tensor, temperature: float | None = None) -> dict[str, Repair]:
    """The repair of every published method that has one, by the method's name, each at its own temperature by default.

    Args:
        class_counts: (C,) training images of each class, at least 1.
        temperature: one for all of them.

    Raises:
        MethodError: fewer than two classes, a count below 1, or a temperature that is not above 0.

    >>> {name: " + ".join(repair.entries) for name, repair in published_repairs([30, 5]).items()}
    {'bkd': 'reweigh', 'drkd': 'swap', 'krdistill': 'swap + debias', 'dive': 'power', 'distail': 'debias'}
    """
    found = {name: repair_of({"name": name}, class_counts, temperature) for name in list_methods()}
    return {name: repair for name, repair in found.items() if repair is not None}


def repair_of(
    method: Mapping[str, object], class_counts: Sequence[int] | Tensor, temperature: float | None = None
) -> Repair | None:
    """The repair of a method or composition, as `create_method` takes it; None where it repairs no targets.

    None as well where an entry reads features, of which an audit has none, or changes the student's logits, too, as
    `standardize` does, whose targets say nothing alone.

    Raises:
        MethodError: as `published_repairs`, or an entry or parameter that does not exist.

    >>> repair_of({"name": "bkd", "beta": 0.99}, [30, 5]).parameters
    {'beta': 0.99, 'defer_until': 0.0}
    >>> repair_of({"name": "kd"}, [30, 5]) is None
    True
    """
    preset = list_methods()[str(method["name"])] if "name" in method else None
    composition = whole_composition(method)
    every = slot_entries(composition, "targets")
    entries = [entry for entry, _ in every]
    needs = [getattr(entry.builder, "needs", Requirements()) for entry in entries]
    both_sides = any(getattr(entry.builder, "both_sides", False) for entry in entries)
    if not entries or both_sides or any(own.student_features or own.teacher_features for own in needs):
        return None
    own = check_temperature(composition["temperature"] if temperature is None else temperature)
    setup = SlotSetup(counts_of(class_counts), own)
    return Repair(
        tuple(entry.name for entry in entries),
        tuple(own_parameters for _, own_parameters in every),
        own,
        tuple(entry.build(setup, composition) for entry in entries),
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
        (N,) bool, whether the target as it is favors the label; and each repair's effect, by name.

    >>> right, effects = repair_effects(torch.tensor([[4.0, 0.0]]), torch.tensor([1]), published_repairs([30, 5], 4.0))
    >>> right, effects["drkd"].correct, effects["drkd"].divergence
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
        before_N[block] = _favors(logits_BC, target_B)
        for name, repair in repairs.items():
            outputs = repair(logits_BC, target_B)
            repaired_BC = outputs[-1].values
            effects[name].student_side.update(i for i, output in enumerate(outputs) if output.student is not None)
            moved_B = kl_of_log_probabilities(
                log_probabilities(repaired_BC, repair.temperature), log_probabilities(logits_BC, repair.temperature)
            )
            # A target that stays where it is may come out a rounding error below 0.
            effects[name].divergence[block] = moved_B.clamp_min(0.0)
            effects[name].correct[block] = _favors(repaired_BC, target_B)
    return before_N, effects


def describe_repair(repair: Repair, effect: RepairEffect, groups: ImageGroups) -> RepairContent:
    """A repair and what it does to the targets, overall and by group."""

    def target_move(chosen_N: Tensor) -> TargetMove:
        kl = float(effect.divergence[chosen_N].mean())
        return {"kl": kl, "loss": repair.temperature**2 * kl, "right": percent(effect.correct[chosen_N])}

    return {
        "settings": [
            {"entry": entry, "parameters": dict(own), "student_side": place in effect.student_side}
            for place, (entry, own) in enumerate(zip(repair.entries, repair.settings, strict=True))
        ],
        "entries": list(repair.entries),
        "parameters": repair.parameters,
        "temperature": repair.temperature,
        "reconstruction": repair.reconstruction,
        **groups.describe(target_move),
    }


def _favors(logits_BC: Tensor, target_B: Tensor) -> Tensor:
    return of_target(logits_BC, target_B) >= logits_BC.amax(dim=1)
