"""How biased a teacher is, and which repair would touch it: every number of `distail audit`, before any training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from distail.audit.sample_weights import StudentHeads, sample_weight_spreads
from distail.audit.target_repairs import (
    Repair,
    RepairEffect,
    asked_of,
    method_entries,
    published_repairs,
    repair_effects,
    repair_of,
)
from distail.audit.teacher_statistics import ByGroup, Describe, TeacherStatistics, percent
from distail.errors import DataError
from distail.evaluation.checks import checked_predictions
from distail.evaluation.groups import SHOTS_RULE, THIRDS_RULE, group_shares
from distail.evaluation.teacher_bias import flow_of_predictions, tail_errors

SCHEMA_VERSION = 1
FEW_IMAGES = 30


def audit(
    logits_NC: Tensor,
    target_N: Tensor,
    class_counts: Sequence[int] | Tensor,
    *,
    class_names: Sequence[str] | None = None,
    method: Mapping[str, Any] | None = None,
    temperature: float | None = None,
    student: StudentHeads | None = None,
) -> dict[str, Any]:
    """Everything that a teacher's logits tell of its bias and of what each repair would do to its targets.

    Args:
        logits_NC: (N, C) floating and finite, in any class order that the labels share.
        target_N: (N,) integer labels, 0 to C - 1.
        class_counts: (C,) training images of each class, at least 1; they decide groups, reweighing and stand-ins.
        class_names: C names; by default `class 0`, `class 1`, ...
        method: an experiment's own, as `create_method` takes it; its repair and weights are shown with its parameters.
        temperature: one for all repairs; by default each has its method's.
        student: the logits of a trained student for the same images, where there is one.

    Returns:
        Plain values, ready for JSON; percent unless said otherwise, None where nothing could be measured.
        ``overall`` and ``groups.{thirds,shots}.<group>``: ``classes``, ``training_images``, ``images``, ``recall`` and
        ``precision`` (means over classes), ``accuracy`` and ``confidence`` (over images), ``ece``,
        ``confidence_when_wrong``, ``true_share``, ``predicted_share``, ``mean_probability``.
        ``classes``: the same of each class, with ``errors_go_to`` (the class that most of its errors name) and
        ``tail_errors`` (how many errors of tail images name it). ``errors``: as `error_flow`, and ``tail_errors`` by
        third. ``repairs``: of each method's repair its ``entries``, ``parameters``, ``temperature``, whether it is a
        ``reconstruction``, and overall and by group ``kl`` (nats: mean of KL(repaired || original), both tempered),
        ``loss`` (kl times T^2) and ``right`` (images whose target then favours the label); ``before`` holds the
        ``right`` of the targets as they are.
        ``swapped``: ``images`` and ``share`` of those whose label DR-KD exchanges. ``sample_weights``: the `spread` of
        IPWD's and WSLD's weights and their ``meaning``: a student's, or stand-ins. ``cautions``: sentences.

    Raises:
        DataError: what does not fit, all of it listed.
        MethodError: fewer than two classes, a temperature that is not above 0, or a method that does not exist.

    >>> import torch
    >>> found = audit(4 * torch.eye(3)[[0, 0, 1, 0]], torch.tensor([0, 0, 1, 2]), [300, 50, 5])
    >>> found["groups"]["thirds"]["tail"]["recall"], found["swapped"]["groups"]["thirds"]["tail"]
    (0.0, {'images': 1, 'share': 100.0})
    """
    logits_NC, target_N, counts = checked_predictions(logits_NC, target_N, class_counts)
    names = _checked_names(class_names, len(counts))
    repairs = _repairs(counts, method, temperature)
    by_group = ByGroup(target_N, counts)
    third_classes = by_group.classes["thirds"]
    answers = TeacherStatistics(logits_NC, target_N, counts)
    right_N, effects = repair_effects(logits_NC, target_N, repairs)

    def figures(grouping: str) -> dict[str, Any]:
        return {
            name: answers.figures(classes, by_group.chosen[grouping][name])
            for name, classes in by_group.classes[grouping].items()
        }

    return {
        "schema_version": SCHEMA_VERSION,
        "rules": {"thirds": THIRDS_RULE, "shots": SHOTS_RULE},
        "overall": answers.figures(range(len(counts)), by_group.everything),
        "groups": {grouping: figures(grouping) for grouping in by_group.classes},
        "classes": answers.by_class(names, third_classes),
        "errors": {
            **flow_of_predictions(answers.predicted_N, target_N, counts),
            "tail_errors": group_shares(tail_errors(answers.predicted_N, target_N, counts), third_classes),
        },
        "before": by_group.describe(lambda chosen_N: {"right": percent(right_N[chosen_N])}),
        "repairs": {
            name: {
                "entries": list(repair.entries),
                "parameters": dict(repair.parameters),
                "temperature": repair.temperature,
                "reconstruction": repair.reconstruction,
                **by_group.describe(_moved(effects[name], repair.temperature)),
            }
            for name, repair in repairs.items()
        },
        "swapped": by_group.describe(
            lambda chosen_N: {"images": int((~right_N[chosen_N]).sum()), "share": percent(~right_N[chosen_N])}
        ),
        "sample_weights": sample_weight_spreads(
            logits_NC, target_N, counts, student, by_group, **_propensity_parameters(method)
        ),
        "cautions": _cautions(by_group, counts),
    }


def _repairs(counts: tuple[int, ...], method: Mapping[str, Any] | None, temperature: float | None) -> dict[str, Repair]:
    repairs = published_repairs(counts, temperature)
    own = None if method is None else repair_of(method, counts, temperature)
    return repairs if own is None or method is None else {**repairs, str(method.get("name", "composition")): own}


def _propensity_parameters(method: Mapping[str, Any] | None) -> dict[str, Any]:
    """Which way round IPWD's weights are, and where they are clipped: the method's own where it weighs so."""
    found = method_entries(asked_of({"name": "ipwd"} if method is None else method), "weights")
    own = next((parameters for entry, parameters in found if entry.name == "inverse_propensity"), None)
    if own is None:
        return _propensity_parameters(None)
    return {key: own[key] for key in ("ratio", "standardize_logits", "max_weight")}


def _moved(effect: RepairEffect, temperature: float) -> Describe:
    def describe(chosen_N: Tensor) -> dict[str, Any]:
        kl = float(effect.divergence[chosen_N].mean())
        return {"kl": kl, "loss": temperature**2 * kl, "right": percent(effect.right[chosen_N])}

    return describe


def _cautions(by_group: ByGroup, counts: tuple[int, ...]) -> list[str]:
    found = []
    if min(counts) == max(counts):
        found.append(
            f"All {len(counts)} classes have {counts[0]:,} training images: head, medium and tail are told apart by "
            "their number alone."
        )
    tail = int(by_group.chosen["thirds"]["tail"].sum())
    if tail == 0:
        found.append("None of the images belongs to the tail third: nothing can be said of the tail.")
    elif tail < FEW_IMAGES:
        belong = "belongs" if tail == 1 else "belong"
        found.append(f"Only {tail} of the images {belong} to the tail third: what is said of the tail is uncertain.")
    return found


def _checked_names(names: Sequence[str] | None, classes: int) -> list[str]:
    if names is None:
        return [f"class {c}" for c in range(classes)]
    if len(names) != classes:
        raise DataError(f"got {len(names)} class names for {classes} classes; expected one each.")
    return [str(name) for name in names]
