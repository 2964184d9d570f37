"""From names and parameters to a `Method`: parse, check every name, build."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor, nn

from distail.errors import MethodError, did_you_mean, listed, unknown_name
from distail.functional.numerics import check_number, check_temperature, counts_of
from distail.objective.context import Setup
from distail.objective.divergences import DIVERGENCES
from distail.objective.method import Method, TermWeights
from distail.objective.representations import REPRESENTATIONS
from distail.objective.supervised import SUPERVISED
from distail.objective.targets import TARGETS
from distail.objective.weights import SAMPLE_WEIGHTS

SLOTS: dict[str, Mapping[str, type[nn.Module]]] = {
    "supervised": SUPERVISED,
    "targets": TARGETS,
    "divergence": DIVERGENCES,
    "weights": SAMPLE_WEIGHTS,
    "representation": REPRESENTATIONS,
}
WEIGHTS = tuple(f"{field.name}_weight" for field in fields(TermWeights))
DEFAULTS: dict[str, Any] = {"supervised": "ce", "divergence": "kl", "temperature": 4.0}


@dataclass(frozen=True)
class Entry:
    """A slot's entry as it was asked for."""

    slot: str
    name: str
    parameters: Mapping[str, Any]

    @property
    def builder(self) -> type[nn.Module]:
        return SLOTS[self.slot][self.name]

    def defaults(self) -> dict[str, Any]:
        """The parameters that the builder takes, with their defaults."""
        return entry_defaults(self.builder)

    def build(self, setup: Setup, shared: Mapping[str, Any]) -> nn.Module:
        own = {name: value for name, value in shared.items() if name in self.defaults()}
        return self.builder(setup, **{**own, **self.parameters})


def entry_defaults(builder: type[nn.Module]) -> dict[str, Any]:
    signature = inspect.signature(builder)
    keyword_only = [one for one in signature.parameters.values() if one.kind is inspect.Parameter.KEYWORD_ONLY]
    return {parameter.name: parameter.default for parameter in keyword_only}


def parse_slot(slot: str, asked: Any) -> list[Entry]:
    """A slot's value as entries: nothing, a name, a mapping with `name`, or for `targets` a list of these."""
    if asked is None:
        return []
    several = isinstance(asked, Sequence) and not isinstance(asked, str)
    if several and slot != "targets":
        raise MethodError(f"{slot} is {asked!r}; expected one entry, a name or a mapping with a name")
    return [_parse_entry(slot, one) for one in (asked if several else [asked])]


def _parse_entry(slot: str, asked: Any) -> Entry:
    given = {"name": asked} if isinstance(asked, str) else asked
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise MethodError(
            f"{slot} is {asked!r}; expected a name or a mapping with a name. {did_you_mean('', SLOTS[slot])}"
        )
    if given["name"] not in SLOTS[slot]:
        raise MethodError(unknown_name(f"{slot} entry", given["name"], SLOTS[slot]))
    entry = Entry(slot, given["name"], {key: value for key, value in given.items() if key != "name"})
    unknown = [key for key in entry.parameters if key not in entry.defaults()]
    if unknown:
        problems = [unknown_name("parameter", key, entry.defaults()) for key in unknown]
        raise MethodError(listed(problems, f"{slot} entry {entry.name}:"))
    return entry


def build(
    name: str,
    composition: Mapping[str, Any],
    *,
    class_counts: Sequence[int] | Tensor,
    student_dim: int | None = None,
    teacher_dim: int | None = None,
    teacher_supervised: str = "ce",
) -> Method:
    """A method from slots, term weights, temperature and parameters for whichever entries own them."""
    asked = {**DEFAULTS, **composition}
    entries = {slot: parse_slot(slot, asked.get(slot)) for slot in SLOTS}
    common = {key: asked[key] for key in ("temperature", *WEIGHTS) if key in asked}
    shared = {key: value for key, value in asked.items() if key not in SLOTS and key not in common}
    _check_owned(name, shared, [entry for slot in entries.values() for entry in slot])
    if not entries["supervised"]:
        raise MethodError("supervised is empty; every method learns from labels. To switch it off: supervised_weight=0")
    if not entries["divergence"] and (entries["targets"] or entries["weights"]):
        raise MethodError(
            f"{name} has targets or weights but no divergence that would read them; expected one, like kl"
        )

    setup = Setup(
        class_counts=counts_of(class_counts),
        temperature=check_temperature(common.pop("temperature")),
        student_dim=student_dim,
        teacher_dim=teacher_dim,
    )
    weights = {key.removesuffix("_weight"): check_number(key, value, least=0.0) for key, value in common.items()}
    built = {slot: [entry.build(setup, shared) for entry in entries[slot]] for slot in SLOTS}
    return Method(
        name,
        setup,
        TermWeights(**weights),
        supervised=built["supervised"][0],
        targets=built["targets"],
        divergence=next(iter(built["divergence"]), None),
        sample_weights=next(iter(built["weights"]), None),
        representation=next(iter(built["representation"]), None),
        teacher_supervised=teacher_supervised,
    )


def _check_owned(name: str, shared: Mapping[str, Any], entries: Sequence[Entry]) -> None:
    owned = {parameter for entry in entries for parameter in entry.defaults()}
    valid = {*owned, *SLOTS, "temperature", *WEIGHTS}
    problems = [unknown_name("parameter", key, valid) for key in shared if key not in owned]
    problems += [
        f"{key!r} is given twice for {entry.name}: {shared[key]!r} and {entry.parameters[key]!r}"
        for entry in entries
        for key in shared
        if key in entry.parameters
    ]
    if problems:
        raise MethodError(
            problems[0] if len(problems) == 1 else listed(problems, f"{len(problems)} problems in {name}:")
        )
