"""Which repair, and how strong, suits a teacher: found from its own answers, before any training.

Shapes: N images, C classes.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from distail.audit.content import FavoredShares, Recommendation
from distail.audit.defaults import KEEP_HEAD
from distail.audit.target_repairs import repair_effects, repair_of
from distail.config.reading import NotPlain, load_plain_yaml
from distail.evaluation.groups import thirds
from distail.methods.context import BALANCED

TAUS = (1.0, 0.75, 0.5, 0.25)
_SPREAD_KNOWN = 10  # images of a class
BETAS = (0.9999, 0.999, 0.99, 0.9)
_BALANCED_TEACHER = {"supervised": "balanced_softmax", "divergence": "kl", "temperature": 2.0}
_WHY_NONE = {
    "equal_classes": "All classes have the same number of training images, so a repair by class priors changes "
    "nothing: the targets {now}",
    "keep_head": "With every repair tried, the share of head images whose target favors the label falls below {keep} "
    "of its original value. Unchanged, the targets {now}",
    "no_gain": "With every repair tried{kept}, fewer targets favor the label in an average class than without a "
    "repair. Unchanged, the targets {now}",
}


def recommend(
    logits_NC: Tensor,
    target_N: Tensor,
    class_counts: tuple[int, ...],
    keep_head: float = KEEP_HEAD,
    posterior: str | None = None,
) -> Recommendation:
    """The repair after which the targets favor the label in the largest share of an average class.

    Tried are `debias` with supervised learning of the same tau, and `bkd`, at several strengths. Those are left out
    after which the targets of the head third favor the label for less than `keep_head` percent of the images for which
    they did before; of equals `debias` is taken, and the strongest. It is `kd` where all of them make it worse, or
    classes are of equal size. A repair that is told the label (`swap`) is always right, which says nothing: it is not
    tried. A teacher that aims at equal shares already has nothing to repair: the labels follow it, with
    `balanced_softmax`.

    Args:
        logits_NC: (N, C) the teacher's, floating and finite.
        target_N: (N,) int64 labels.
        class_counts: (C,) training images of each class.
        keep_head: percent.
        posterior: `balanced` for a teacher that aims at equal shares.
    """
    candidates = {str(number): candidate for number, candidate in enumerate(_candidates())}
    repairs = {}
    for number, candidate in candidates.items():
        repair = repair_of(candidate, class_counts)
        assert repair is not None  # every candidate has one
        repairs[number] = repair
    before_N, effects = repair_effects(logits_NC, target_N, repairs)
    before = _favored(before_N, target_N, class_counts)
    as_it_is: Recommendation = {
        "method": {"name": "kd"},
        "reason": "equal_classes",
        "keep_head": keep_head,
        "before": before,
        "after": before,
        "standard_error": 0.0,
    }
    if min(class_counts) == max(class_counts):
        return as_it_is
    if posterior == BALANCED:
        return {**as_it_is, "method": dict(_BALANCED_TEACHER), "reason": "balanced_teacher"}
    best: tuple[str, FavoredShares] | None = None
    for number in candidates:
        shares = _favored(effects[number].correct, target_N, class_counts)
        kept = (shares["head"] or 0.0) >= keep_head / 100 * (before["head"] or 0.0)
        if kept and (best is None or shares["average_class"] > best[1]["average_class"]):
            best = number, shares
    if best is None:
        return {**as_it_is, "reason": "keep_head"}
    # A few images of the tail may show no difference; what plain training adds to the head is known all the same.
    if best[1]["average_class"] < before["average_class"]:
        return {**as_it_is, "reason": "no_gain"}
    number, after = best
    error = _standard_error(before_N, effects[number].correct, target_N, len(class_counts))
    return {**as_it_is, "method": candidates[number], "reason": "repair", "after": after, "standard_error": error}


def sentence(found: Recommendation) -> str:
    """The recommendation in words, without the command."""
    method, before, after = found["method"], found["before"], found["after"]
    no_head, keep = before["head"] is None, f"{found['keep_head']:g} %"
    now = f"favor the label of {before['average_class']:.1f} % of an average class's images"
    if found["reason"] == "balanced_teacher":
        return (
            "Recommended: unchanged targets, with balanced_softmax for the labels. The teacher aims at equal "
            f"class priors already, and a repair would remove them twice. The targets {now}."
        )
    if found["reason"] != "repair":
        kept = "" if no_head else f" that leaves the head at least {keep} of its share"
        return f"Recommended: kd. {_WHY_NONE[found['reason']].format(keep=keep, kept=kept, now=now)}."
    targets = method.get("targets")
    what = f"debias with tau {targets[0]['tau']:g}" if targets else f"bkd with beta {method['beta']:g}"
    if after["average_class"] == before["average_class"]:
        return (
            f"Recommended for want of evidence: {what}. No repair changes how many targets {now.partition(' of ')[0]} "
            f"on these images ({before['average_class']:.1f} % in an average class), so that they do not show which "
            "one helps: compare some of them by training (distail compare)."
        )
    moved = [f"from {before['average_class']:.1f} to {after['average_class']:.1f} % in an average class"]
    for name in ("head", "medium", "tail"):
        then, now_too = before[name], after[name]
        if then is not None and now_too is not None:
            moved.append(f"from {then:.1f} to {now_too:.1f} % in the {name}")
    bound = (
        "No image of the head was audited, so the cost of the repair for the head is not known."
        if no_head
        else f"The share of the head had to stay at {keep} or more of its original value."
    )
    gain = after["average_class"] - before["average_class"]
    shares = f"The share of images whose target favors the label goes {', '.join(moved)}. {bound}"
    if gain <= found["standard_error"]:
        return (
            f"Recommended for want of evidence: {what}. {shares} On these images the gain of an average class "
            f"is within its standard error ({found['standard_error']:.1f} points): compare some repairs by training "
            "(distail compare)."
        )
    return f"Recommended: {what}. {shares} No training was used to find this: it is a first choice to try."


def command(method: Mapping[str, Any], config: str = "CONFIG", teacher: Mapping[str, Any] | None = None) -> str:
    """The `distail run` line that trains with a method, in a folder of its own.

    Args:
        config: the configuration and changes of it, as a shell takes them.
        teacher: keys of the configuration, and the values with which what was audited teaches.

    >>> print(command({"name": "bkd", "beta": 0.99}, teacher={"teacher.checkpoint": "runs/a/teacher.safetensors"}))
    distail run CONFIG name=recommended output=runs/recommended teacher.checkpoint=runs/a/teacher.safetensors \
method='{"name": "bkd", "beta": 0.99}'
    """
    given = {"name": "recommended", "output": "runs/recommended", **(teacher or {}), "method": dict(method)}
    words = [f"{key}={shlex.quote(_as_yaml(value))}" for key, value in given.items()]
    return f"distail run {config} {' '.join(words)}"


def _as_yaml(value: object) -> str:
    """On one line; a text that would be read as something else in quotes."""
    try:
        is_plain = isinstance(value, str) and load_plain_yaml(value) == value
    except NotPlain:
        is_plain = False
    return str(value) if is_plain else json.dumps(value, ensure_ascii=False)


def _candidates() -> Iterator[dict[str, Any]]:
    for tau in TAUS:
        labels = "balanced_softmax" if tau == 1.0 else {"name": "logit_adjusted", "tau": tau}
        yield {
            "supervised": labels,
            "targets": [{"name": "debias", "tau": tau}],
            "divergence": "kl",
            "temperature": 2.0,
        }
    for beta in BETAS:
        yield {"name": "bkd", "beta": beta}


def _favored(correct_N: Tensor, target_N: Tensor, class_counts: tuple[int, ...]) -> FavoredShares:
    """Percent of the images whose target favors the label: of each third, and the mean over classes."""
    images_C = torch.bincount(target_N, minlength=len(class_counts)).double()
    correct_C = torch.bincount(target_N[correct_N], minlength=len(class_counts)).double()
    present_C = images_C > 0
    thirds_of: dict[str, float | None] = {}
    for name, classes in thirds(class_counts).items():
        chosen = list(classes)
        images = float(images_C[chosen].sum())
        thirds_of[name] = 100 * float(correct_C[chosen].sum()) / images if images else None
    return {
        "average_class": 100 * float((correct_C[present_C] / images_C[present_C]).mean()),
        "head": thirds_of["head"],
        "medium": thirds_of["medium"],
        "tail": thirds_of["tail"],
    }


def _standard_error(before_N: Tensor, after_N: Tensor, target_N: Tensor, classes: int) -> float:
    """Of the change of an average class's share, in points: paired over the images of each class.

    A class of few images shows no spread of its own: there, as if on average nothing changed.
    """
    change_N = after_N.double() - before_N.double()
    variance, present = 0.0, 0
    for label in range(classes):
        own = change_N[target_N == label]
        present += len(own) > 0
        if len(own):
            variance += float(own.var() if len(own) >= _SPREAD_KNOWN else own.square().mean()) / len(own)
    return 100 * math.sqrt(variance) / present
