"""What a method's slots may be in a search, by the kind of its labels: entries, their strengths, and where to start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from distail.methods.preset_table import PRESETS
from distail.outputs import MULTI_LABEL, SINGLE_LABEL

NONE = "none"
BETAS = (0.9, 0.99, 0.999, 0.9999)
BCE_TAUS = (0.0, 0.5, 1.0)


def _preset(name: str, **strengths: object) -> dict[str, object]:
    """A preset as a point of the space, without its term of features."""
    own = PRESETS[name].composition
    return {
        "supervised": own["supervised"],
        "divergence": own["divergence"],
        "targets": " + ".join(own.get("targets", [])) or NONE,
        "weights": NONE,
        "adjust": NONE,
        "temperature": own["temperature"],
        "supervised_weight": own.get("supervised_weight", 1.0),
        "distillation_weight": own.get("distillation_weight", 1.0),
        **strengths,
    }


KD = _preset("kd")
"""What every trial is held against."""
_DEBIAS = {"debias_tau": 1.0, "debias_side": "teacher"}
STARTS: tuple[Mapping[str, object], ...] = (
    KD,
    # What costs nothing, and what every repair must beat; plain ce where nothing is to be adjusted. A tau that is
    # given: `auto` would choose it on the very split by which the trial is judged.
    {"supervised": "ce", "divergence": NONE, "adjust": 1.0},
    # For teachers that have little to teach.
    {"supervised": "balanced_softmax", "divergence": NONE},
    _preset("distail", **_DEBIAS),
    _preset("krdistill", **_DEBIAS),
    _preset("bkd", reweigh_beta=0.9999),
    _preset("dive", power_exponent=0.5),
)
"""Tried first and to the end: what is known to be good elsewhere. The rest of a search learns from them."""
REFERENCE, FREE = 0, 1  # of these starts, whatever the labels: kd, and plain training without a teacher, adjusted
_MULTI_LABEL_KD = {**KD, "supervised": "bce", "bce_tau": 0.0, "divergence": "sigmoid"}
_EVEN = {"temperature": 2.0, "supervised_weight": 0.5, "distillation_weight": 1.0}
MULTI_LABEL_STARTS: tuple[Mapping[str, object], ...] = (
    _MULTI_LABEL_KD,
    {"supervised": "bce", "bce_tau": 0.0, "divergence": NONE},
    {**_MULTI_LABEL_KD, **_EVEN, "bce_tau": 1.0, "targets": "debias", **_DEBIAS},
    {**_MULTI_LABEL_KD, **_EVEN, "supervised": "asymmetric", "asymmetric_gamma_neg": 4.0},
    {**_MULTI_LABEL_KD, **_EVEN, "supervised": "distribution_balanced", "distribution_balanced_neg_scale": 2.0},
)
"""The same where a sample has several classes: kd, no teacher, one posterior corrected once, two published losses."""


class Choices(Protocol):
    """Whoever is asked for every choice: a trial of Optuna, or choices that were made before."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...
    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...


@dataclass(frozen=True)
class Slots:
    """What can be chosen of a method.

    Attributes:
        supervised: asks for a supervised term, and says it in words.
        divergence: the one that there is.
        targets: the entries of that slot.
        of_softmax: whether there is a gate, which looks at the one label, and adjusting after training.
        starts: the first of them is kd.
    """

    supervised: Callable[[Choices], tuple[object, str]]
    divergence: str
    targets: tuple[str, ...]
    of_softmax: bool
    starts: tuple[Mapping[str, object], ...]

    def choose(
        self, trial: Choices, can_adjust: Callable[[Mapping[str, object]], bool]
    ) -> tuple[dict[str, object], str]:
        """Ask for every choice that there is to make, in an order that depends on the answers alone.

        Args:
            can_adjust: whether adjusting after training is for what such a method has learned.
        """
        supervised, words = self.supervised(trial)
        method: dict[str, object] = {"supervised": supervised, "divergence": None}
        if trial.suggest_categorical("divergence", [self.divergence, NONE]) == self.divergence:
            distillation, more = self._distillation(trial)
            method, words = {**method, **distillation}, words + more
        else:
            words += ", no teacher"
        asked = self.of_softmax and can_adjust(method)
        adjust = trial.suggest_categorical("adjust", [NONE, 0.5, 1.0]) if asked else NONE
        if adjust != NONE:
            method["adjust"] = adjust
            words += f", adjusted by {adjust}"
        return method, words

    def _distillation(self, trial: Choices) -> tuple[dict[str, object], str]:
        targets, words = _targets(trial, self.targets)
        temperature = _number(trial, "temperature", 1.0, 8.0, log=True)
        on_labels = _number(trial, "supervised_weight", 0.1, 1.0)
        on_teacher = _number(trial, "distillation_weight", 0.25, 4.0, log=True)
        method: dict[str, object] = {
            "divergence": self.divergence,
            **({"targets": targets} if targets else {}),
            "temperature": temperature,
            "supervised_weight": on_labels,
            "distillation_weight": on_teacher,
        }
        words += f", T {temperature:g}, weights {on_labels:g} and {on_teacher:g}"
        if self.of_softmax and trial.suggest_categorical("weights", [NONE, "gate"]) == "gate":
            return {**method, "weights": "gate"}, f"{words}, gate"
        return method, words


def _supervised(trial: Choices) -> tuple[object, str]:
    name = str(trial.suggest_categorical("supervised", ["ce", "balanced_softmax", "logit_adjusted", "class_balanced"]))
    if name == "logit_adjusted":
        tau = _number(trial, "logit_adjusted_tau", 0.25, 1.5)
        if tau == 1.0:
            return "balanced_softmax", "balanced_softmax"  # which is the same
        return {"name": name, "tau": tau}, f"{name} {tau:g}"
    if name == "class_balanced":
        beta = trial.suggest_categorical("class_balanced_beta", BETAS)
        return {"name": name, "beta": beta}, f"{name} {beta:g}"
    return name, name


def _multi_label_supervised(trial: Choices) -> tuple[object, str]:
    name = str(trial.suggest_categorical("supervised", ["bce", "asymmetric", "distribution_balanced"]))
    if name == "asymmetric":
        gamma = _number(trial, "asymmetric_gamma_neg", 1.0, 6.0)
        return {"name": name, "gamma_neg": gamma}, f"{name} {gamma:g}"
    if name == "distribution_balanced":
        scale = _number(trial, "distribution_balanced_neg_scale", 1.0, 5.0)
        return {"name": name, "neg_scale": scale}, f"{name} {scale:g}"
    tau = trial.suggest_categorical("bce_tau", BCE_TAUS)
    return ({"name": name, "tau": tau}, f"{name} {tau:g}") if tau else (name, name)


def _targets(trial: Choices, names: Sequence[str]) -> tuple[list[object], str]:
    name = str(trial.suggest_categorical("targets", [NONE, *names]))
    if name in {"debias", "swap + debias"}:
        tau, side = _number(trial, "debias_tau", 0.25, 1.5), trial.suggest_categorical("debias_side", _SIDES)
        first: list[object] = ["swap"] if name == "swap + debias" else []
        return [*first, {"name": "debias", "tau": tau, "side": side}], f", {name} {tau:g} of the {side}"
    if name == "reweigh":
        beta = trial.suggest_categorical("reweigh_beta", BETAS)
        return [{"name": name, "beta": beta}], f", {name} {beta:g}"
    if name == "power":
        exponent = _number(trial, "power_exponent", 0.2, 0.9)
        return [{"name": name, "exponent": exponent}], f", {name} {exponent:g}"
    return ([], "") if name == NONE else ([name], f", {name}")


_SIDES = ("teacher", "student")


def _number(trial: Choices, name: str, low: float, high: float, *, log: bool = False) -> float:
    """A number of two digits: a third one would change nothing that a validation split can see."""
    return float(f"{trial.suggest_float(name, low, high, log=log):.2g}")


SLOTS = {
    SINGLE_LABEL: Slots(_supervised, "kl", ("debias", "swap + debias", "reweigh", "power", "swap"), True, STARTS),
    MULTI_LABEL: Slots(_multi_label_supervised, "sigmoid", ("debias", "reweigh", "power"), False, MULTI_LABEL_STARTS),
}
"""By the kind of labels."""
