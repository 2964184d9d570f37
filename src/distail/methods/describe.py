"""What can be said about a method before it is used: for the documentation and `distail methods NAME`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distail.functional.checks import check_choice
from distail.methods.entries import COMMON, DEFAULTS, Entry, parse
from distail.methods.preset_table import PRESETS, RECONSTRUCTION, Preset
from distail.methods.self_distillation import SelfDistillation


@dataclass(frozen=True)
class Parameter:
    """A keyword of `create_method` for one method, its default there, and the slot entry that owns it."""

    name: str
    default: Any
    owner: str


@dataclass(frozen=True)
class Description:
    """A method's row of the table and every parameter it takes; printing it gives the text for the command line."""

    name: str
    preset: Preset
    parameters: tuple[Parameter, ...]

    def __str__(self) -> str:
        preset = self.preset
        width = max(len(each.name) for each in self.parameters)
        lines = [f"{self.name}: {preset.title}", f"  {preset.paper}"]
        lines += [f"  https://arxiv.org/abs/{preset.arxiv}"] if preset.arxiv else []
        lines += ["", f"  {RECONSTRUCTION}"] if preset.reconstruction else []
        lines += ["", f"  {preset.formula}", "", "Slots"]
        lines += [f"  {slot:<15} {' -> '.join(names)}" for slot, names in preset.slots.items()]
        lines += [f"  {'its teacher':<15} trained with {preset.teacher_supervised}"] if self._has_teacher else []
        lines += ["", "Parameters"]
        lines += [f"  {each.name:<{width}}  {each.default!s:<12} {each.owner}" for each in self.parameters]
        lines += ["", "Provenance", *(f"  {line}" for line in preset.provenance)] if preset.provenance else []
        return "\n".join(lines)

    @property
    def _has_teacher(self) -> bool:
        return "divergence" in self.preset.slots


def describe_method(name: str) -> Description:
    """The method of that name: slots, formula, parameters with defaults, paper, and what is whose.

    Raises:
        MethodError: an unknown name, with the nearest valid one.

    >>> print(describe_method("bkd"))  # doctest: +ELLIPSIS
    bkd: Balanced Knowledge Distillation
      Zhang, Chen, Hu, Peng; Neurocomputing 2023
      https://arxiv.org/abs/2104.10510
    <BLANKLINE>
      L = CE(z_s, y) + T^2 * KL(q || p_s^T), q ~ w * p_t^T, w_c = (1 - beta) / (1 - beta^n_c)
    <BLANKLINE>
    Slots
      supervised      ce
      targets         reweigh
      divergence      kl
      its teacher     trained with ce
    <BLANKLINE>
    Parameters
      temperature            2.0          every method
    ...
    """
    preset = PRESETS[check_choice("method", name, PRESETS)]
    common = {**dict.fromkeys(COMMON, 1.0), **DEFAULTS, **preset.composition}
    parameters = [Parameter(key, common[key], "every method") for key in COMMON]
    for entries in parse({**DEFAULTS, **preset.composition}).values():
        parameters += [
            Parameter(key, {**preset.composition, **entry.parameters}.get(key, default), f"{entry.slot}: {entry.name}")
            for entry in entries
            for key, default in entry.defaults.items()
        ]
    if "divergence" in preset.slots and "representation" not in preset.slots:
        form = Entry("teacher", "previous_epoch", {})
        taken = {each.name for each in parameters}
        replaced = {key: value for key, value in SelfDistillation.composition_defaults.items() if key in taken}
        parameters += [Parameter(key, value, "with teacher=previous_epoch") for key, value in replaced.items()]
        parameters += [Parameter(key, default, "with teacher=previous_epoch") for key, default in form.defaults.items()]
    return Description(name, preset, tuple(parameters))
