"""Which repair, and how strong, suits a teacher: found from its own answers, before any training.

Shapes: N images, C classes.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from distail.audit.content import FavoredShares, Recommendation
from distail.audit.target_repairs import repair_effects, repair_of
from distail.evaluation.groups import thirds

TAUS = (1.0, 0.75, 0.5, 0.25)
BETAS = (0.9999, 0.999, 0.99, 0.9)
KEEP_HEAD = 80.0


def recommend(
    logits_NC: Tensor, target_N: Tensor, class_counts: tuple[int, ...], keep_head: float = KEEP_HEAD
) -> Recommendation:
    """The repair after which the targets favor the label in the largest share of an average class.

    Tried are `debias` with supervised learning of the same tau, and `bkd`, at several strengths. Those are left out
    after which the targets of the head third favor the label for less than `keep_head` percent of the images for which
    they did before; of equals `debias` is taken, and the strongest. It is `kd` where all of them make it worse, or
    classes are of equal size. A repair that is told the label (`swap`) is always right, which says nothing: it is not
    tried.

    Args:
        logits_NC: (N, C) the teacher's, floating and finite.
        target_N: (N,) int64 labels.
        class_counts: (C,) training images of each class.
        keep_head: percent.
    """
    candidates = {str(number): candidate for number, candidate in enumerate(_candidates())}
    repairs = {}
    for number, candidate in candidates.items():
        repair = repair_of(candidate, class_counts)
        assert repair is not None  # every candidate has one
        repairs[number] = repair
    before_N, effects = repair_effects(logits_NC, target_N, repairs)
    before = _favored(before_N, target_N, class_counts)
    best: tuple[dict[str, Any], FavoredShares] | None = None
    for number, candidate in candidates.items():
        shares = _favored(effects[number].correct, target_N, class_counts)
        kept = (shares["head"] or 0.0) >= keep_head / 100 * (before["head"] or 0.0)
        if kept and (best is None or shares["average_class"] > best[1]["average_class"]):
            best = candidate, shares
    # A few images of the tail may show no difference; what plain training adds to the head is known all the same.
    equal_classes = min(class_counts) == max(class_counts)
    if best is None or equal_classes or best[1]["average_class"] < before["average_class"]:
        best = {"name": "kd"}, before
    return {"method": best[0], "keep_head": keep_head, "before": before, "after": best[1]}


def sentence(found: Recommendation) -> str:
    """The recommendation in words, without the command."""
    method, before, after = found["method"], found["before"], found["after"]
    head = f"at least {found['keep_head']:g} % of the head's images for which they did before"
    if method == {"name": "kd"}:
        return (
            "Recommended: kd. Classes are of one size, or with every repair that was tried the targets favor the label "
            f"less often in an average class than as they are ({before['average_class']:.1f} %), or not for {head}."
        )
    targets = method.get("targets")
    what = f"debias with tau {targets[0]['tau']:g}" if targets else f"bkd with beta {method['beta']:g}"
    moved = [f"{before['average_class']:.1f} to {after['average_class']:.1f} % of an average class"]
    for name in ("head", "medium", "tail"):
        then, now = before[name], after[name]
        if then is not None and now is not None:
            moved.append(f"{then:.1f} to {now:.1f} % of the {name}'s images")
    return (
        f"Recommended: {what}. The targets then favor the label of {', '.join(moved)}; asked for was {head}. Nothing "
        "was trained to find this: the first choice to try, not the last."
    )


def command(method: Mapping[str, Any], config: str = "CONFIG") -> str:
    """The `distail run` line that trains with a method, in a folder of its own.

    >>> print(command({"name": "bkd", "beta": 0.99}))
    distail run CONFIG name=recommended output=runs/recommended method='{"name": "bkd", "beta": 0.99}'
    """
    words = shlex.quote(json.dumps(method))
    return f"distail run {config} name=recommended output=runs/recommended method={words}"


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
