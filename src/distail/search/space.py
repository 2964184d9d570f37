"""What a search may choose: entries of slots, their strengths, and switches of the recipe around them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from distail.config.augment import augment_name
from distail.config.reading import apply_overrides
from distail.config.schema import Experiment
from distail.config.section import AUTO
from distail.errors import DistailError
from distail.runner.checks import problems_of

AS_GIVEN, NONE = "as given", "none"
BETAS = (0.9, 0.99, 0.999, 0.9999)
KD: dict[str, object] = {
    "supervised": "ce",
    "divergence": "kl",
    "targets": NONE,
    "weights": NONE,
    "adjust": NONE,
    "temperature": 4.0,
    "supervised_weight": 0.1,
    "distillation_weight": 0.9,
}
"""The preset `kd` as a point of the space: what every trial is held against."""
_BALANCED = {"supervised": "balanced_softmax", "temperature": 2.0, "supervised_weight": 0.5, "distillation_weight": 1.0}
STARTS: tuple[Mapping[str, object], ...] = (
    KD,
    # What costs nothing, and what every repair must beat.
    {"supervised": "ce", "divergence": NONE, "adjust": AUTO},
    {**KD, **_BALANCED, "targets": "debias", "debias_tau": 1.0, "debias_side": "teacher"},
    # The presets bkd and dive.
    {**KD, "targets": "reweigh", "reweigh_beta": 0.9999, "temperature": 2.0, "supervised_weight": 1.0}
    | {"distillation_weight": 1.0},
    {**KD, **_BALANCED, "targets": "power", "power_exponent": 0.5, "temperature": 3.0, "distillation_weight": 0.5},
)
"""Tried first and to the end: what is known to be good elsewhere. The rest of a search learns from them."""
Recipe = Mapping[str, object]


class Choices(Protocol):
    """Whoever is asked for every choice: a trial of Optuna, or choices that were made before."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...
    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...


@dataclass(frozen=True)
class Proposal:
    """One choice out of the space.

    Attributes:
        method: what stands under `method` in a configuration.
        recipe: keys beside the method to their values; empty where all is as the configuration has it.
        words: both, for people.
    """

    method: Mapping[str, object]
    recipe: Recipe
    words: str


@dataclass(frozen=True)
class Space:
    """The switches that this experiment has: name to option to what the option changes beside the method.

    >>> proposal_of(Space({}), STARTS[1]).method
    {'supervised': 'ce', 'divergence': None, 'adjust': 'auto'}
    """

    switches: Mapping[str, Mapping[str, Recipe]]

    def propose(self, trial: Choices) -> Proposal:
        """Ask a trial for every choice that there is to make, in an order that depends on its answers alone."""
        supervised, words = _supervised(trial)
        method: dict[str, object] = {"supervised": supervised, "divergence": None}
        if trial.suggest_categorical("divergence", ["kl", NONE]) == "kl":
            distillation, more = _distillation(trial)
            method, words = {**method, **distillation}, words + more
        else:
            words += ", no teacher"
        adjust = trial.suggest_categorical("adjust", [NONE, 0.5, 1.0, AUTO])
        if adjust != NONE:
            method["adjust"] = adjust
            words += f", adjusted by {adjust}"
        recipe: dict[str, object] = {}
        for name, options in self.switches.items():
            option = trial.suggest_categorical(name, [AS_GIVEN, *options])
            if option != AS_GIVEN:
                recipe |= options[str(option)]
                words += f", {name} {option}"
        return Proposal(method, recipe, words)

    def start(self, number: int) -> dict[str, object]:
        """The choices of a start, with the recipe as it is given."""
        return {**STARTS[number], **dict.fromkeys(self.switches, AS_GIVEN)}


def space_of(base: Experiment) -> Space:
    """The switches that this experiment can take: what its data, teacher or network refuses is left out."""
    training, augment = base.training, base.model_dump(mode="json")["data"]["augment"]
    here = {augment_name(entry) for entry in base.data.augment}
    candidates: dict[str, dict[str, Recipe]] = {
        "augment": {
            name: {"data.augment": [*augment, name]} for name in ("trivial_augment", "cutout") if name not in here
        },
        "mix": {name: {"training.mix": {"name": name}} for name in ("cutmix", "mixup")},
        "ema_decay": {f"{decay:g}": {"training.ema_decay": decay} for decay in (0.99, 0.999)},
    }
    if training.mix is not None:
        candidates["mix"][NONE] = {"training.mix": None}
    if training.ema_decay is not None:
        candidates["ema_decay"][NONE] = {"training.ema_decay": None}
    before = problems_of(base)
    kept = {
        name: {option: recipe for option, recipe in options.items() if _can(base, recipe, before)}
        for name, options in candidates.items()
    }
    return Space({name: options for name, options in kept.items() if options})


def with_recipe(base: Experiment, recipe: Recipe) -> dict[str, object]:
    """The experiment's mapping with these keys changed."""
    return apply_overrides(
        base.model_dump(mode="json"), [f"{key}={json.dumps(value)}" for key, value in recipe.items()]
    )


def _can(base: Experiment, recipe: Recipe, before: list[str]) -> bool:
    """Whether the experiment takes these keys, and they change it."""
    try:
        changed = Experiment.from_mapping(with_recipe(base, recipe))
    except DistailError:
        return False
    return changed != base and not set(problems_of(changed)) - set(before)


def _supervised(trial: Choices) -> tuple[object, str]:
    name = str(trial.suggest_categorical("supervised", ["ce", "balanced_softmax", "logit_adjusted", "class_balanced"]))
    if name == "logit_adjusted":
        tau = _number(trial, "logit_adjusted_tau", 0.25, 1.5)
        return {"name": name, "tau": tau}, f"{name} {tau:g}"
    if name == "class_balanced":
        beta = trial.suggest_categorical("class_balanced_beta", BETAS)
        return {"name": name, "beta": beta}, f"{name} {beta:g}"
    return name, name


def _distillation(trial: Choices) -> tuple[dict[str, object], str]:
    targets, words = _targets(trial)
    temperature = _number(trial, "temperature", 1.0, 8.0, log=True)
    on_labels = _number(trial, "supervised_weight", 0.1, 1.0)
    on_teacher = _number(trial, "distillation_weight", 0.25, 4.0, log=True)
    method: dict[str, object] = {
        "divergence": "kl",
        **({"targets": [targets]} if targets else {}),
        "temperature": temperature,
        "supervised_weight": on_labels,
        "distillation_weight": on_teacher,
    }
    words += f", T {temperature:g}, weights {on_labels:g} and {on_teacher:g}"
    if trial.suggest_categorical("weights", [NONE, "gate"]) == "gate":
        return {**method, "weights": "gate"}, f"{words}, gate"
    return method, words


def _targets(trial: Choices) -> tuple[object, str]:
    name = str(trial.suggest_categorical("targets", [NONE, "debias", "reweigh", "power", "swap"]))
    if name == "debias":
        tau, side = _number(trial, "debias_tau", 0.25, 1.5), trial.suggest_categorical("debias_side", _SIDES)
        return {"name": name, "tau": tau, "side": side}, f", {name} {tau:g} of the {side}"
    if name == "reweigh":
        beta = trial.suggest_categorical("reweigh_beta", BETAS)
        return {"name": name, "beta": beta}, f", {name} {beta:g}"
    if name == "power":
        exponent = _number(trial, "power_exponent", 0.2, 0.9)
        return {"name": name, "exponent": exponent}, f", {name} {exponent:g}"
    return (None, "") if name == NONE else (name, f", {name}")


_SIDES = ("teacher", "student")


def _number(trial: Choices, name: str, low: float, high: float, *, log: bool = False) -> float:
    """A number of two digits: a third one would change nothing that a validation split can see."""
    return float(f"{trial.suggest_float(name, low, high, log=log):.2g}")


def proposal_of(space: Space, parameters: Mapping[str, object]) -> Proposal:
    """What a trial with these choices is.

    Raises:
        ValueError: a choice is missing.

    >>> proposal_of(Space({}), KD).words
    'ce, T 4, weights 0.1 and 0.9'
    """
    return space.propose(_Given(parameters))


@dataclass(frozen=True)
class _Given:
    """Choices that were made before."""

    parameters: Mapping[str, object]

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._given(name)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return float(str(self._given(name)))

    def _given(self, name: str) -> object:
        if name not in self.parameters:
            raise ValueError(f"nothing was chosen for {name}")
        return self.parameters[name]
