"""The slots of a method, and the entries that fill them by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from torch import nn

from distail.errors import MethodError, Problems, unknown_name
from distail.methods.context import SlotSetup, TermWeights
from distail.methods.divergences import DIVERGENCES
from distail.methods.label_kinds import kinds_of, wrong_entry
from distail.methods.own_entries import own_entry
from distail.methods.representations import REPRESENTATIONS
from distail.methods.sample_weights import SAMPLE_WEIGHTS
from distail.methods.self_distillation import TEACHERS
from distail.methods.supervised import SUPERVISED
from distail.methods.targets import TARGETS
from distail.outputs import SINGLE_LABEL

SLOTS: dict[str, Mapping[str, type[nn.Module]]] = {
    "supervised": SUPERVISED,
    "targets": TARGETS,
    "divergence": DIVERGENCES,
    "weights": SAMPLE_WEIGHTS,
    "representation": REPRESENTATIONS,
    "teacher": TEACHERS,
}
TERM_WEIGHTS = tuple(f"{term.name}_weight" for term in fields(TermWeights))
COMMON = ("temperature", *TERM_WEIGHTS)
DEFAULTS: dict[str, Any] = {"supervised": "ce", "divergence": "kl", "temperature": 4.0}


@dataclass(frozen=True)
class Entry:
    """An entry of a slot, by name, and the parameters that it was given."""

    slot: str
    name: str
    parameters: Mapping[str, Any]

    @property
    def builder(self) -> Callable[..., nn.Module]:
        own, names = ":" in self.name, SLOTS[self.slot]
        return own_entry(self.slot, self.name, tuple(sorted(names))) if own else names[self.name]

    @property
    def defaults(self) -> dict[str, Any]:
        """The parameters that the entry takes: the keyword parameters of its builder."""
        signature = inspect.signature(self.builder).parameters.values()
        return {one.name: one.default for one in signature if one.kind is inspect.Parameter.KEYWORD_ONLY}

    def build(self, setup: SlotSetup, shared: Mapping[str, Any]) -> nn.Module:
        own = {name: value for name, value in shared.items() if name in self.defaults} | {**self.parameters}
        problems = Problems()
        built = problems.attempt(lambda: self.builder(setup, **own))
        if built is None:
            # A builder stops at its first problem; without parameters, and with one at a time, it shows them all.
            for alone in ({}, *({name: value} for name, value in own.items())):
                problems.attempt(partial(self.builder, setup, **alone))
            problems.stop(self.name, MethodError)
        assert built is not None
        return built


def parse(composition: Mapping[str, Any], labels: str = SINGLE_LABEL) -> dict[str, list[Entry]]:
    """Every slot's entries. A slot holds nothing, a name, or a mapping with `name`; `targets` also a list of these.

    Raises:
        MethodError: what is in the slots is none of it, does not go together, or does not take such `labels`.
    """
    problems = Problems()
    entries = {slot: _parse_slot(slot, composition.get(slot), problems) for slot in SLOTS}
    problems.add(*_of_other_labels(entries, labels))
    problems.stop("the method's slots", MethodError)
    if not entries["supervised"]:
        raise MethodError("supervised is empty; expected an entry (supervised_weight=0 switches it off)")
    readers = [slot for slot in ("targets", "weights", "teacher") if entries[slot]]
    if readers and not entries["divergence"]:
        verb = "is" if len(readers) == 1 else "are"
        raise MethodError(f"{' and '.join(readers)} {verb} given without a divergence; expected one, such as kl")
    if entries["teacher"] and entries["representation"]:
        raise MethodError(
            f"representation {entries['representation'][0].name!r} needs a teacher's features; "
            f"teacher {entries['teacher'][0].name!r} has none"
        )
    return entries


def _of_other_labels(entries: Mapping[str, Sequence[Entry]], labels: str) -> list[str]:
    """What is told of the entries that do not take such labels."""
    found = []
    for slot, of_slot in entries.items():
        valid = [name for name, builder in SLOTS[slot].items() if labels in kinds_of(builder, own=False)]
        found += [
            wrong_entry(slot, entry.name, labels, valid)
            for entry in of_slot
            if labels not in kinds_of(entry.builder, own=":" in entry.name)
        ]
    return found


def _parse_slot(slot: str, content: Any, problems: Problems) -> list[Entry]:
    if content is None:
        return []
    is_list = isinstance(content, Sequence) and not isinstance(content, str)
    if is_list and slot != "targets":
        problems.add(f"{slot} is {content!r}; expected one entry: a name, or a mapping with a name")
        return []
    entries = [problems.attempt(partial(parse_entry, slot, one)) for one in (content if is_list else [content])]
    return [entry for entry in entries if entry is not None]


def parse_entry(slot: str, content: Any) -> Entry:
    """One entry: a name, or a mapping with `name` and parameters.

    Raises:
        MethodError: there is no such entry or parameter.
    """
    given = {"name": content} if isinstance(content, str) else content
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        valid = ", ".join(sorted(SLOTS[slot]))
        raise MethodError(f"{slot} is {content!r}; expected a name, or a mapping with a name. Valid: {valid}.")
    if ":" not in given["name"] and given["name"] not in SLOTS[slot]:
        raise MethodError(unknown_name(f"{slot} entry", given["name"], SLOTS[slot]))
    entry = Entry(slot, given["name"], {key: value for key, value in given.items() if key != "name"})
    unknown = [
        f"{slot} entry {entry.name}: {unknown_parameter(key, entry.defaults)}"
        for key in entry.parameters
        if key not in entry.defaults
    ]
    if unknown:
        raise MethodError("; ".join(unknown), unknown)
    return entry


def unknown_parameter(key: str, valid: Iterable[str]) -> str:
    """What to tell of a parameter that is none of these, with the nearest one."""
    valid = sorted(valid)
    return unknown_name("parameter", key, valid) if valid else f"unknown parameter {key!r}; it takes none"
