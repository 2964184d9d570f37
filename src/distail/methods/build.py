"""From names and parameters to a `Method`: every parameter checked, every entry built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from distail.errors import MethodError, Problems
from distail.functional.checks import check_number, check_temperature, check_whole, counts_of
from distail.methods.context import SlotSetup, TermWeights
from distail.methods.entries import COMMON, DEFAULTS, SLOTS, TERM_WEIGHTS, Entry, parse, unknown_parameter
from distail.methods.label_kinds import for_labels
from distail.methods.method import Method, Slots
from distail.outputs import MULTI_LABEL, SINGLE_LABEL


def build(
    name: str,
    preset: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    class_counts: Sequence[int] | Tensor,
    student_dim: int | None = None,
    teacher_dim: int | None = None,
    teacher_supervised: str | Mapping[str, Any] = "ce",
    samples: int | None = None,
) -> Method:
    """A method from what a preset says and a user gave: slots, term weights, temperature, and parameters of entries.

    A parameter outside a slot reaches every entry that owns one of that name.
    """
    problems, labels = Problems(), SINGLE_LABEL if samples is None else MULTI_LABEL
    entries = problems.attempt(lambda: parse({**for_labels(DEFAULTS, labels), **preset, **given}, labels)) or {}
    all_entries = [entry for slot_entries in entries.values() for entry in slot_entries]
    options = {**DEFAULTS, **preset, **_composition_defaults(all_entries), **given}
    # A parameter of the preset goes with its entry, where another has taken that entry's slot.
    named = {*given, *(key for entry in all_entries for key in entry.defaults)}
    shared = {key: value for key, value in options.items() if key in named and key not in {*SLOTS, *COMMON}}
    if entries:  # else a parameter may be that of an entry whose name is wrong
        problems.add(*_not_owned(shared, all_entries))

    def number(key: str, check: Callable[[str, Any], float]) -> float:
        checked = problems.attempt(lambda: check(key, options[key]))
        return 1.0 if checked is None else checked  # by which the entries can still be tried

    temperature = number("temperature", lambda _, value: check_temperature(value))
    weights = {
        key.removesuffix("_weight"): number(key, partial(check_number, least=0.0))
        for key in TERM_WEIGHTS
        if key in options
    }
    setup = problems.attempt(
        lambda: SlotSetup(
            class_counts=counts_of(class_counts),
            temperature=temperature,
            student_dim=None if student_dim is None else check_whole("student_dim", student_dim, least=1),
            teacher_dim=None if teacher_dim is None else check_whole("teacher_dim", teacher_dim, least=1),
            samples=samples,
        )
    )
    modules: dict[str, list[Any]] = {}
    if setup is not None:
        for slot, slot_entries in entries.items():
            modules[slot] = [problems.attempt(partial(entry.build, setup, shared)) for entry in slot_entries]
    problems.stop(name, MethodError)
    assert setup is not None
    single: dict[str, Any] = {slot: next(iter(of_slot), None) for slot, of_slot in modules.items()}
    slots = Slots(
        supervised=single["supervised"],
        targets=tuple(modules["targets"]),
        divergence=single["divergence"],
        weights=single["weights"],
        representation=single["representation"],
        previous_epoch=single["teacher"],
    )
    return Method(name, setup, TermWeights(**weights), slots, teacher_supervised)


def _composition_defaults(entries: Sequence[Entry]) -> dict[str, Any]:
    """Defaults that an entry sets for the whole composition, where another entry has a parameter of that name."""
    taken = {key for entry in entries for key in entry.defaults if key not in entry.parameters}
    defaults: dict[str, Any] = {}
    for entry in entries:
        own: Mapping[str, Any] = getattr(entry.builder, "composition_defaults", {})
        defaults |= {key: value for key, value in own.items() if key in COMMON or key in taken}
    return defaults


def _not_owned(shared: Mapping[str, Any], entries: Sequence[Entry]) -> list[str]:
    """What is wrong with the parameters outside of slots: owned by no entry, or given inside as well."""
    owned = {key for entry in entries for key in entry.defaults}
    problems = [unknown_parameter(key, {*owned, *SLOTS, *COMMON}) for key in shared if key not in owned]
    for entry in entries:
        problems += [
            f"{key} is given twice for {entry.name}: {value!r} in its slot, {shared[key]!r} outside"
            for key, value in entry.parameters.items()
            if key in shared
        ]
    return problems
