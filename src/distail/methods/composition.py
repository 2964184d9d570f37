"""What the entries of a method's slots say of it before anything is built: its needs, terms and posterior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from distail.functional import effective_number_weights
from distail.methods.context import BALANCED, MIXED, NATURAL, Requirements
from distail.methods.entries import Entry, parse_entry
from distail.outputs import MULTI_LABEL, SINGLE_LABEL

_LEFT = 0.1
"""Of the imbalance, which counts as none."""
_LEAST_BETA = 0.999
"""Where the class counts are not known: it removes the imbalance of classes of up to some hundred examples."""


@dataclass(frozen=True)
class Composition:
    """The entries of every slot, and what they say of the method before anything is built.

    Attributes:
        options: temperature, weights of terms, and parameters outside of slots.
        teacher_supervised: the supervised entry that the method's paper trains its teacher with.
        labels: `single_label` or `multi_label`.
        drawn: which posterior plain cross-entropy learns of the labels as they are drawn and weighted: `natural`,
            `balanced` where all classes count equally, `mixed` in between.
        weighted: whether that is by the weights of examples, not by a sampler alone.
        class_counts: training examples of each class, where they are known.
    """

    entries: Mapping[str, Sequence[Entry]]
    options: Mapping[str, Any] = field(default_factory=dict)
    teacher_supervised: str | Mapping[str, Any] = "ce"
    labels: str = SINGLE_LABEL
    drawn: str = NATURAL
    weighted: bool = False
    class_counts: Sequence[int] = ()

    @property
    def needs(self) -> Requirements:
        """What a run must supply: as `Method.needs`, but for what an entry's parameters take back."""
        needs = Requirements(teacher=bool(self.entries["divergence"]) and not self.entries["teacher"])
        for entry in self._every:
            needs |= getattr(entry.builder, "needs", Requirements())
        return needs | Requirements(teacher=needs.teacher_features)

    @property
    def readers_of_teacher_features(self) -> tuple[str, ...]:
        """The entries for which logits of a teacher are not enough."""
        return tuple(
            entry.name for entry in self._every if getattr(entry.builder, "needs", Requirements()).teacher_features
        )

    @property
    def beginnings(self) -> dict[str, tuple[str, float]]:
        """Of entries that begin after a share of training, by slot and name: the parameter that says so, its value."""
        found = {}
        for entry in self._every:
            key = getattr(entry.builder, "begins_at", None)
            if key is not None:
                found[f"{entry.slot}: {entry.name}"] = (key, self._values(entry)[key])
        return found

    @property
    def terms(self) -> tuple[str, ...]:
        """The names of the terms that the method returns."""
        has_auxiliary = any(getattr(entry.builder, "auxiliary", ()) for entry in self._every)
        present = {
            "supervised": True,
            "distillation": bool(self.entries["divergence"]),
            "representation": bool(self.entries["representation"]),
            "auxiliary": has_auxiliary,
        }
        return tuple(term for term, is_present in present.items() if is_present)

    @property
    def posterior(self) -> str | None:
        """Which posterior the student is taught: `natural`, `balanced`, `mixed`, or None where no part says.

        Its teacher is taken to be trained as the method's paper says.
        """
        return self.posterior_with(self.teacher_posterior)

    @property
    def teacher_posterior(self) -> str | None:
        """Which posterior a teacher learns that is trained as the method's paper says."""
        entry = parse_entry("supervised", self.teacher_supervised)
        return MIXED if self._corrects_in_part(entry) else self._aim(entry, NATURAL)

    def posterior_with(self, teacher_posterior: str | None) -> str | None:
        """The same with a teacher that learned this posterior; None where nobody knows."""
        aims = {aim for aim in self.aims(teacher_posterior).values() if aim is not None}
        if len(aims) == 1 and not self.order_warning() and not any(map(self._corrects_in_part, self._teaching)):
            return aims.pop()
        return MIXED if aims else None

    def aims(self, teacher_posterior: str | None) -> dict[str, str | None]:
        """Which posterior each part that teaches the student aims at: `natural`, `balanced`, or None for neither.

        Args:
            teacher_posterior: what the teacher learned, which may be `mixed`; None where nobody knows.
        """
        of_labels = self._aim_of_labels
        aims: dict[str, str | None] = {}
        if self._learns_from_labels:
            sampler = "" if self.drawn == NATURAL else " with these weights" if self.weighted else " with this sampler"
            aims[f"supervised: {self.entries['supervised'][0].name}{sampler}"] = of_labels
        if self._distills:
            part, aim = "its teacher", of_labels if self.entries["teacher"] else teacher_posterior
            for entry in self._repairs:
                if self._changes_posterior(entry):
                    part, aim = f"{entry.slot}: {entry.name}", entry.builder.posterior  # type: ignore[attr-defined]
            aims[part] = aim
        return aims

    def posterior_warning(self, teacher_posterior: str | None) -> str | None:
        """What to tell a user whose parts aim at two posteriors; None where they do not."""
        parts = {aim: part for part, aim in self.aims(teacher_posterior).items()}
        if not {NATURAL, BALANCED} <= parts.keys():
            return None
        balanced = "{name: bce, tau: 1}" if self.labels == MULTI_LABEL else "balanced_softmax"
        repairs = [f"supervised: {balanced}"] if self.drawn == NATURAL else []
        repairs += ["targets: debias"] if teacher_posterior != BALANCED else []
        return (
            f"{parts[NATURAL]} aims at the class priors of the training data and {parts[BALANCED]} at equal class "
            "priors: the student learns something between the two."
            + (f" To have both aim at equal class priors, set {' and '.join(repairs)}" if repairs else "")
        )

    def correction_warning(self, teacher_posterior: str | None) -> str | None:
        """What to tell a user whose class priors are corrected twice: by two repairs, or by the teacher already.

        Args:
            teacher_posterior: what the teacher learned; a student that teaches itself is known to the composition.
        """
        repairs = [f"{entry.slot}: {entry.name}" for entry in self._repairs if self._removes_priors(entry)]
        itself = bool(self.entries["teacher"])
        learned = self._aim_of_labels if itself else teacher_posterior
        if len(repairs) > 1:
            return (
                f"{' and '.join(repairs)} both remove the class priors from the teacher's predictions: the priors are "
                "removed twice, which favors rare classes. Leave one of them out"
            )
        if not repairs or learned not in (BALANCED, MIXED):
            return None
        if learned == MIXED:
            if any(map(self._corrects_in_part, self._repairs)):
                return None  # which may be just what is left
            return (
                "the teacher has learned the class priors only in part (its terms, or its members, aim at two "
                f"posteriors, or correct in part), and {repairs[0]} removes them in full: in part they are removed "
                "twice, which favors rare classes"
            )
        again = "once more in every epoch" if itself else "twice"
        return (
            f"the teacher{', the student itself,' if itself else ''} already aims at equal class priors, and "
            f"{repairs[0]} removes the class priors again: they are removed {again}, which favors rare classes. "
            f"Leave {repairs[0].removeprefix('targets: ')} out"
        )

    def sampling_warning(self) -> str | None:
        """What to tell a user whose class priors are corrected by the supervised term, and by the sampler as well."""
        labels = self.entries["supervised"][0]
        if self.drawn == NATURAL or not self._learns_from_labels or self._aim(labels, NATURAL) != BALANCED:
            return None
        part = "in part " if self.drawn == MIXED or self._corrects_in_part(labels) else ""
        by, without = "the sampler draws rare classes more often", "with sampler: instance"
        if self.weighted:
            by, without = "the examples of rare classes weigh more", "without these weights"
        return (
            f"{by}, and supervised: {labels.name} removes the class priors as well: they are {part}removed twice, "
            f"which favors rare classes. Leave one of the two out, with supervised: ce or {without}"
        )

    def order_warning(self) -> str | None:
        """What to tell a user of whose targets one scales the logits, priors and all, before another corrects these."""
        scaling: Entry | None = None
        for entry in self.entries["targets"] if self._distills else []:
            if scaling is not None and self._removes_priors(entry):
                return (
                    f"targets: {scaling.name} scales the class priors in the teacher's logits before {entry.name} "
                    f"corrects them as they were: expected {entry.name} before {scaling.name}"
                )
            scaling = entry if getattr(entry.builder, "scales", False) and not self._is_neutral(entry) else scaling
        return None

    @property
    def targets_that_remove_priors(self) -> tuple[str, ...]:
        """The target repairs that remove class priors from what the teacher says."""
        repairs = self.entries["targets"] if self._distills else []
        return tuple(entry.name for entry in repairs if self._removes_priors(entry))

    @property
    def _learns_from_labels(self) -> bool:
        weights = self.entries["weights"]
        supervised = self.options.get("supervised_weight", 1.0) and not any(map(self._takes_labels_away, weights))
        return bool(supervised) or any(map(self._adds_labels, weights))

    @property
    def _distills(self) -> bool:
        return bool(self.entries["divergence"]) and bool(self.options.get("distillation_weight", 1.0))

    @property
    def _repairs(self) -> list[Entry]:
        """What may change the posterior of what a teacher says."""
        return [*self.entries["targets"], *self.entries["divergence"]]

    @property
    def _teaching(self) -> list[Entry]:
        """Every entry that may have a say in what the student learns."""
        labels = self.entries["supervised"] if self._learns_from_labels else []
        return [*labels, *(self._repairs if self._distills else [])]

    @property
    def _aim_of_labels(self) -> str | None:
        """That of the supervised term, over the labels that are drawn; what is corrected twice counts as `mixed`."""
        aim = self._aim(self.entries["supervised"][0], NATURAL)
        if aim is None or self.drawn == NATURAL:
            return aim
        return self.drawn if aim == NATURAL else MIXED

    def _aim(self, entry: Entry, before: str | None) -> str | None:
        aim: str | None = entry.builder.posterior if self._changes_posterior(entry) else before  # type: ignore[attr-defined]
        return aim

    def _changes_posterior(self, entry: Entry) -> bool:
        """Whether an entry has a posterior of its own, and no parameter with which it changes nothing."""
        return hasattr(entry.builder, "posterior") and not self._is_neutral(entry)

    def _is_neutral(self, entry: Entry) -> bool:
        """Whether an entry has a parameter with which it changes nothing."""
        values, neutral = self._values(entry), getattr(entry.builder, "neutral", {})
        return any(values[key] == value for key, value in neutral.items())

    def _removes_priors(self, entry: Entry) -> bool:
        return self._aim(entry, None) == BALANCED

    def _corrects_in_part(self, entry: Entry) -> bool:
        """Whether an entry removes less than all of the class priors, by its `tau` or its `beta`."""
        values = self._values(entry)
        tau, beta = values.get("tau", 1.0), values.get("beta")
        if not self._removes_priors(entry):
            return False
        weak = isinstance(beta, int | float) and 0 <= beta < 1 and self._weighs_too_little(beta)
        return weak or (isinstance(tau, int | float) and tau < 1)

    def _weighs_too_little(self, beta: float) -> bool:
        """Whether the effective numbers of `beta` leave more than a tenth of the imbalance, in logarithms."""
        if len({*self.class_counts}) < 2:
            return beta < _LEAST_BETA
        weights_C, counts_C = effective_number_weights(self.class_counts, beta), torch.tensor(self.class_counts)
        removed, whole = (torch.log(each_C.max() / each_C.min()) for each_C in (weights_C, counts_C.double()))
        return bool(removed < (1 - _LEFT) * whole)

    def _adds_labels(self, entry: Entry) -> bool:
        """Whether an entry has labels learned as an auxiliary term."""
        key = getattr(entry.builder, "label_weight_key", None)
        return key is not None and bool(self._values(entry)[key]) and bool(self.options.get("auxiliary_weight", 1.0))

    def _takes_labels_away(self, entry: Entry) -> bool:
        """Whether an entry leaves the supervised term out, by the parameters with which it says that it does."""
        values, without = self._values(entry), getattr(entry.builder, "without_labels", {})
        return bool(without) and all(values[key] == value for key, value in without.items())

    def _values(self, entry: Entry) -> dict[str, Any]:
        """The parameters of an entry, where they are given or by default."""
        return {**entry.defaults, **self.options, **entry.parameters}

    @property
    def _every(self) -> list[Entry]:
        return [entry for slot in self.entries.values() for entry in slot]
