"""How biased a teacher is, and which repair would touch it: every number of `distail audit`, before any training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from distail.audit.content import SCHEMA_VERSION, AdjustedMetrics, AuditContent, ErrorStatistics, GroupStatistics
from distail.audit.defaults import KEEP_HEAD
from distail.audit.recommendation import recommend
from distail.audit.sample_weights import StudentHeads, describe_weights
from distail.audit.target_repairs import Repair, describe_repair, published_repairs, repair_effects, repair_of
from distail.audit.teacher_statistics import ImageGroups, TeacherStatistics, percent
from distail.errors import DataError
from distail.evaluation.adjustment import TAU, evaluate_adjusted
from distail.evaluation.checks import checked_predictions
from distail.evaluation.groups import FEW_IMAGES, RULES, group_shares
from distail.evaluation.teacher_bias import error_flow, tail_errors


def audit(
    logits_NC: Tensor,
    target_N: Tensor,
    class_counts: Sequence[int] | Tensor,
    *,
    class_names: Sequence[str] | None = None,
    method: Mapping[str, object] | None = None,
    temperature: float | None = None,
    student: StudentHeads | None = None,
    keep_head: float | None = KEEP_HEAD,
    posterior: str | None = None,
) -> AuditContent:
    """Everything that a teacher's logits tell of its bias and of what each repair would do to its targets.

    Args:
        logits_NC: (N, C) floating and finite, in any class order that the labels share.
        target_N: (N,) integer labels, 0 to C - 1.
        class_counts: (C,) training images of each class, at least 1; they decide groups, reweighing and stand-ins.
        class_names: C names; by default `class 0`, `class 1`, ...
        method: an experiment's own, as `create_method` takes it; its repair and weights are shown with its parameters.
        temperature: one for all repairs; by default each has its method's.
        student: the logits of a trained student for the same images, where there is one.
        keep_head: how much of the head the recommended repair must keep, in percent; None recommends nothing.
        posterior: which class posterior the teacher learned, where that is known: `natural`, `balanced` or `mixed`.

    Returns:
        Plain values, ready for JSON; what each is stands in `distail.audit.content`.

    Raises:
        DataError: what does not fit, all of it listed.
        MethodError: fewer than two classes, a temperature that is not above 0, or a method that does not exist.

    >>> import torch
    >>> found = audit(4 * torch.eye(3)[[0, 0, 1, 0]], torch.tensor([0, 0, 1, 2]), [300, 50, 5])
    >>> found["groups"]["thirds"]["tail"]["recall"], found["swapped"]["groups"]["thirds"]["tail"]
    (0.0, {'images': 1, 'share': 100.0})
    """
    logits_NC, target_N, class_counts = checked_predictions(logits_NC, target_N, class_counts)
    names = _checked_names(class_names, len(class_counts))
    repairs = _repairs(class_counts, method, temperature)
    groups = ImageGroups(target_N, class_counts)
    statistics = TeacherStatistics(logits_NC, target_N, class_counts)
    correct_N, effects = repair_effects(logits_NC, target_N, repairs)
    return {
        "schema_version": SCHEMA_VERSION,
        "posterior": posterior,
        "rules": {grouping: RULES[grouping] for grouping in groups.classes},
        "overall": statistics.of_group(range(len(class_counts)), groups.all_N),
        "groups": _group_statistics(statistics, groups),
        "classes": statistics.of_classes(names, groups.classes["thirds"]),
        "errors": _error_statistics(statistics, groups),
        "adjusted": {
            "tau": TAU,
            "before": _adjusted(logits_NC, target_N, class_counts, 0.0),
            "after": _adjusted(logits_NC, target_N, class_counts, TAU),
        },
        "before": groups.describe(lambda chosen_N: {"right": percent(correct_N[chosen_N])}),
        "repairs": {name: describe_repair(repair, effects[name], groups) for name, repair in repairs.items()},
        "swapped": groups.describe(
            lambda chosen_N: {"images": int((~correct_N[chosen_N]).sum()), "share": percent(~correct_N[chosen_N])}
        ),
        "sample_weights": describe_weights(logits_NC, target_N, class_counts, groups, student, method),
        "recommendation": None
        if keep_head is None
        else recommend(logits_NC, target_N, class_counts, keep_head, posterior),
        "cautions": _cautions(groups, class_counts),
    }


def _adjusted(logits_NC: Tensor, target_N: Tensor, class_counts: tuple[int, ...], tau: float) -> AdjustedMetrics:
    found = evaluate_adjusted(logits_NC, target_N, class_counts, tau)
    thirds = found["groups"]["thirds"]
    return {
        "top1": found["top1"],
        "balanced_accuracy": found["balanced_accuracy"],
        "head": thirds["head"],
        "medium": thirds["medium"],
        "tail": thirds["tail"],
    }


def _group_statistics(statistics: TeacherStatistics, groups: ImageGroups) -> dict[str, dict[str, GroupStatistics]]:
    found: dict[str, dict[str, GroupStatistics]] = {}
    for grouping, parts in groups.classes.items():
        found[grouping] = {}
        for name, classes in parts.items():
            found[grouping][name] = statistics.of_group(classes, groups.images[grouping][name])
    return found


def _error_statistics(statistics: TeacherStatistics, groups: ImageGroups) -> ErrorStatistics:
    predictions = (statistics.predicted_N, statistics.target_N, statistics.class_counts)
    found = error_flow(*predictions)
    return {
        "flow": found["flow"],
        "swallowers": found["top_confusions"],
        "tail_errors": group_shares(tail_errors(*predictions), groups.classes["thirds"]),
    }


def _repairs(
    class_counts: tuple[int, ...], method: Mapping[str, object] | None, temperature: float | None
) -> dict[str, Repair]:
    repairs = published_repairs(class_counts, temperature)
    own = None if method is None else repair_of(method, class_counts, temperature)
    return repairs if own is None or method is None else {**repairs, str(method.get("name", "composition")): own}


def _cautions(groups: ImageGroups, class_counts: tuple[int, ...]) -> list[str]:
    cautions = []
    if min(class_counts) == max(class_counts):
        cautions.append(
            f"All {len(class_counts)} classes have {class_counts[0]:,} training images: head, medium and tail are "
            "defined only by the class index."
        )
    tail = int(groups.images["thirds"]["tail"].sum())
    if tail == 0:
        cautions.append("None of the images belongs to the tail third: there are no results for the tail.")
    elif tail < FEW_IMAGES:
        belong = "belongs" if tail == 1 else "belong"
        cautions.append(f"Only {tail} of the images {belong} to the tail third: results for the tail are uncertain.")
    return cautions


def _checked_names(names: Sequence[str] | None, classes: int) -> list[str]:
    if names is None:
        return [f"class {c}" for c in range(classes)]
    if len(names) != classes:
        raise DataError(f"got {len(names)} class names for {classes} classes; expected one each.")
    return [str(name) for name in names]
