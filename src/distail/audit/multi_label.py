"""How a teacher of several classes per example treats them from the frequent to the rare, and which debias suits it.

Shapes: N examples, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

from torch import Tensor

from distail.audit.content import SCHEMA_VERSION, AuditedContent
from distail.audit.defaults import KEEP_HEAD
from distail.audit.recommendation import TAUS
from distail.errors import DataError, some_of
from distail.evaluation.average_precision import average_precisions
from distail.evaluation.checks import checked_predictions
from distail.evaluation.groups import GROUPINGS, RULES, thirds
from distail.evaluation.metrics import group_means
from distail.functional import adjust_logits, class_log_odds
from distail.methods.context import BALANCED
from distail.outputs import MULTI_LABEL

Shares = dict[str, float | None]


class Behavior(TypedDict):
    """What a teacher says of a class, or the mean over the classes of a group; percent, None where nothing is measured.

    Attributes:
        average_precision: how far up the examples of a class stand.
        prevalence, mean_probability: how many of the examples here have it, and what the teacher says on average.
        found, rejected: of the examples that have it those whose probability is at least a half, and of the others
            those whose probability is below.
    """

    average_precision: float | None
    prevalence: float | None
    mean_probability: float | None
    found: float | None
    rejected: float | None


class ClassBehavior(Behavior):
    """The same of one class; `examples` here have it."""

    name: str
    third: str
    training_examples: int
    examples: int


class Debiased(TypedDict):
    """What targets decide with a debias of this tau: the mean of found and rejected, of all classes and by third."""

    tau: float
    average_class: float | None
    head: float | None
    medium: float | None
    tail: float | None


class MultiLabelRecommendation(TypedDict):
    """The debias after which the targets decide best in an average class; see `recommend`."""

    method: dict[str, Any]
    keep_head: float
    before: Debiased
    after: Debiased


class MultiLabelAudit(TypedDict):
    """What `audit_multi_label` finds; groups by grouping (``thirds``, ``shots``)."""

    schema_version: int
    targets: str
    rules: dict[str, str]
    overall: Behavior
    groups: dict[str, dict[str, Behavior]]
    classes: list[ClassBehavior]
    debias: list[Debiased]
    recommendation: MultiLabelRecommendation | None
    cautions: list[str]


class MultiLabelReport(MultiLabelAudit):
    """What `distail audit` shows of it."""

    audited: AuditedContent
    summary: list[str]
    command: str | None


def audit_multi_label(
    logits_NC: Tensor,
    target_NC: Tensor,
    class_counts: Sequence[int] | Tensor,
    samples: int,
    *,
    class_names: Sequence[str] | None = None,
    keep_head: float | None = KEEP_HEAD,
    posterior: str | None = None,
) -> MultiLabelAudit:
    """What a teacher's log odds tell of its bias, and of what a debias would make of its targets.

    Args:
        logits_NC: (N, C) floating and finite.
        target_NC: (N, C) bool, which classes each example has.
        class_counts: (C,) training examples that have each class, at least 1.
        samples: how many training examples there are.
        class_names: C names; by default `class 0`, `class 1`, ...
        keep_head: how much of what is decided for the head the recommended debias must keep, in percent; None
            recommends nothing.
        posterior: `balanced` for a teacher that aims at equal shares.

    Raises:
        DataError: what does not fit.
        MethodError: a class that every training example has.

    >>> import torch
    >>> logits = torch.tensor([[2.0, -1.0], [2.0, -3.0], [-2.0, -3.0]])
    >>> target = torch.tensor([[True, True], [True, False], [False, False]])
    >>> found = audit_multi_label(logits, target, [50, 10], samples=100)
    >>> found["classes"][1]["average_precision"], found["classes"][1]["found"]
    (100.0, 0.0)
    >>> [(one["tau"], one["average_class"]) for one in found["debias"]][:2], found["recommendation"]["after"]["tau"]
    ([(0.0, 75.0), (1.0, 100.0)], 1.0)
    """
    logits_NC, target_NC, counts = checked_predictions(logits_NC, target_NC, class_counts, multi_label=True)
    names = list(class_names) if class_names is not None else [f"class {c}" for c in range(len(counts))]
    if len(names) != len(counts):
        raise DataError(f"{len(names)} class names for {len(counts)} classes; expected one each")
    found_C, rejected_C = _decided(logits_NC, target_NC)
    by_class: dict[str, Sequence[float | None]] = {
        "average_precision": average_precisions(logits_NC, target_NC),
        "prevalence": (100 * target_NC.double().mean(0)).tolist(),
        "mean_probability": (100 * logits_NC.double().sigmoid().mean(0)).tolist(),
        "found": found_C,
        "rejected": rejected_C,
    }
    debias = list(_debiased(logits_NC, target_NC, counts, samples))
    third_of = {c: third for third, classes in thirds(counts).items() for c in classes}
    examples = target_NC.sum(0).tolist()
    return {
        "schema_version": SCHEMA_VERSION,
        "targets": MULTI_LABEL,
        "rules": {grouping: RULES[grouping] for grouping in ("thirds", "shots")},
        "overall": _behavior({key: group_means(own, {"": range(len(counts))})[""] for key, own in by_class.items()}),
        "groups": {grouping: _of_groups(by_class, GROUPINGS[grouping](counts)) for grouping in ("thirds", "shots")},
        "classes": [
            {
                "name": name,
                "third": third_of[c],
                "training_examples": counts[c],
                "examples": examples[c],
                **_behavior({key: own[c] for key, own in by_class.items()}),
            }
            for c, name in enumerate(names)
        ],
        "debias": debias,
        "recommendation": None if keep_head is None else recommend(debias, keep_head, posterior),
        "cautions": _cautions(names, examples, len(target_NC)),
    }


def recommend(debias: Sequence[Debiased], keep_head: float, posterior: str | None = None) -> MultiLabelRecommendation:
    """The debias after which the targets decide right most often in an average class, and on labels of the same tau.

    A target decides at a half. Of a class counts the mean of the examples that have it and of those that have not, so
    that rare classes are not won by saying no. Left out is what keeps less than `keep_head` percent of the head; it is
    `kd` where no debias is better than none. A teacher that aims at equal shares already has nothing to take off: the
    labels follow it.
    """
    before = debias[0]
    if posterior == BALANCED:
        labels = {"supervised": {"name": "bce", "tau": 1.0}, "divergence": "sigmoid", "temperature": 2.0}
        return {"method": labels, "keep_head": keep_head, "before": before, "after": before}
    kept = [one for one in debias[1:] if (one["head"] or 0.0) >= keep_head / 100 * (before["head"] or 0.0)]
    best = max(kept, key=lambda one: one["average_class"] or 0.0, default=before)
    if (best["average_class"] or 0.0) <= (before["average_class"] or 0.0):
        return {"method": {"name": "kd"}, "keep_head": keep_head, "before": before, "after": before}
    tau = best["tau"]
    method = {
        "supervised": {"name": "bce", "tau": tau},
        "targets": [{"name": "debias", "tau": tau}],
        "divergence": "sigmoid",
        "temperature": 2.0,
    }
    return {"method": method, "keep_head": keep_head, "before": before, "after": best}


def _debiased(logits_NC: Tensor, target_NC: Tensor, counts: Sequence[int], samples: int) -> Iterator[Debiased]:
    log_odds_C = class_log_odds(counts, samples)
    groups = {"average_class": range(len(counts)), **thirds(counts)}
    for tau in (0.0, *TAUS):
        found_C, rejected_C = _decided(adjust_logits(logits_NC.double(), log_odds_C, -tau), target_NC)
        pairs = zip(found_C, rejected_C, strict=True)
        decided_C = [None if has is None or has_not is None else (has + has_not) / 2 for has, has_not in pairs]
        means = group_means(decided_C, groups)
        yield {
            "tau": tau,
            "average_class": means["average_class"],
            "head": means["head"],
            "medium": means["medium"],
            "tail": means["tail"],
        }


def _decided(logits_NC: Tensor, target_NC: Tensor) -> tuple[list[float | None], list[float | None]]:
    """Of each class how many of its examples reach a half, and how many of the others do not, in percent."""
    above_NC = logits_NC >= 0
    return _percent(above_NC & target_NC, target_NC), _percent(~above_NC & ~target_NC, ~target_NC)


def _percent(part_NC: Tensor, whole_NC: Tensor) -> list[float | None]:
    parts, wholes = part_NC.sum(0).tolist(), whole_NC.sum(0).tolist()
    return [100 * part / whole if whole else None for part, whole in zip(parts, wholes, strict=True)]


def _of_groups(
    by_class: Mapping[str, Sequence[float | None]], groups: Mapping[str, Sequence[int]]
) -> dict[str, Behavior]:
    means = {key: group_means(own, groups) for key, own in by_class.items()}
    return {name: _behavior({key: own[name] for key, own in means.items()}) for name in groups}


def _behavior(values: Shares) -> Behavior:
    return {
        "average_precision": values["average_precision"],
        "prevalence": values["prevalence"],
        "mean_probability": values["mean_probability"],
        "found": values["found"],
        "rejected": values["rejected"],
    }


_FEW = 10


def _cautions(names: Sequence[str], examples: Sequence[int], total: int) -> list[str]:
    absent = [name for name, count in zip(names, examples, strict=True) if count == 0]
    few = sum(0 < count < _FEW for count in examples)
    found = []
    if absent:
        found.append(
            f"No example here has {some_of(absent, 5)}: there is no result for {len(absent)} of {len(names)} classes."
        )
    if few:
        found.append(
            f"{few} of {len(names)} classes have fewer than {_FEW} examples here, of {total:,}: their metrics are "
            "imprecise."
        )
    return found
