"""An audit in plain words: each claim is a number that the audit holds."""

from __future__ import annotations

from distail.audit.content import AuditContent
from distail.audit.recommendation import sentence
from distail.errors import enumerated
from distail.evaluation.groups import THIRDS
from distail.evaluation.teacher_bias import describe_bias

NAMED_CONFUSIONS = 3
_TWICE = {"balanced": "twice", "mixed": "in part twice"}
_WEIGHTS = {
    "own": "IPWD's weights, from this run's two heads, are",
    "stand-in": "A stand-in for IPWD's weights (not the paper's, which needs a student with two heads) is",
}


def summary(found: AuditContent) -> list[str]:
    """Sentences on the teacher's bias, its confidence, and what each repair would do to the targets.

    Args:
        found: what `distail.audit.audit.audit` returned.

    >>> import torch
    >>> from distail.audit.audit import audit
    >>> found = audit(4 * torch.eye(3)[[0, 0, 1, 0]], torch.tensor([0, 0, 1, 2]), [300, 50, 5])
    >>> print(summary(found)[1])
    The most frequent wrong predictions for tail images: class 0 (100.0 %).
    """
    teacher = [*_bias(found), _adjusted(found), *_confidence(found)]
    sentences = [*teacher, _swaps(found), *_repairs(found), _weights(found)]
    return [*sentences, sentence(found["recommendation"])] if found["recommendation"] else sentences


def _bias(found: AuditContent) -> list[str]:
    thirds, wrong = found["groups"]["thirds"], found["overall"]["wrong"]
    assert wrong is not None  # nothing is audited without images
    sentences = [
        describe_bias(
            {
                "samples": found["overall"]["images"],
                "wrong": wrong,
                "tail_errors": found["errors"]["tail_errors"],
                "true_share": {name: thirds[name]["true_share"] for name in THIRDS},
                "predicted_share": {name: thirds[name]["predicted_share"] for name in THIRDS},
                "recall": {name: thirds[name]["recall"] for name in THIRDS},
            }
        )
    ]
    shares = []
    for confusion in found["errors"]["swallowers"][:NAMED_CONFUSIONS]:
        shares.append(f"{found['classes'][confusion['class']]['name']} ({confusion['share']:.1f} %)")
    if shares:
        sentences.append(f"The most frequent wrong predictions for tail images: {enumerated(shares)}.")
    return sentences


def _adjusted(found: AuditContent) -> str:
    before, after = found["adjusted"]["before"], found["adjusted"]["after"]
    moved = [f"balanced accuracy from {before['balanced_accuracy']:.1f} to {after['balanced_accuracy']:.1f} %"]
    if before["tail"] is not None and after["tail"] is not None:
        moved.append(f"the tail's recall from {before['tail']:.1f} to {after['tail']:.1f} %")
    if found["posterior"] in _TWICE:
        what = f"would remove the class priors {_TWICE[found['posterior']]}: it would move"
    else:
        what = "needs no training, and moves"
    return (
        f"Adjusting its logits after training (tau {found['adjusted']['tau']:g}) {what} top-1 from "
        f"{before['top1']:.1f} to {after['top1']:.1f} %, {enumerated(moved)}."
    )


def _confidence(found: AuditContent) -> list[str]:
    confidence, when_wrong = [], []
    for name, third in found["groups"]["thirds"].items():
        if third["confidence"] is not None:
            confidence.append(
                f"{third['confidence']:.1f} % confident and {third['accuracy']:.1f} % correct on the {name}"
            )
        if third["confidence_when_wrong"] is not None:
            when_wrong.append(f"{third['confidence_when_wrong']:.1f} % on the {name}")
    sentences = [f"On average it is {enumerated(confidence)}."]
    if when_wrong:
        sentences.append(f"The mean confidence of its wrong predictions is {enumerated(when_wrong)}.")
    return sentences


def _swaps(found: AuditContent) -> str:
    swapped = found["swapped"]
    shares = []
    for name, third in swapped["groups"]["thirds"].items():
        if third is not None and third["share"] is not None:
            shares.append(f"{third['share']:.1f} % of the {name}'s")
    return (
        f"DR-KD would swap the targets of {swapped['overall']['images']:,} of {found['overall']['images']:,} images: "
        f"{enumerated(shares)}."
    )


def _repairs(found: AuditContent) -> list[str]:
    before: dict[str, float] = {}
    for name, third in found["before"]["groups"]["thirds"].items():
        if third is not None and third["right"] is not None:
            before[name] = third["right"]
    groups: list[str] = [name for name in ("head", "tail") if name in before] or list(before)
    now = " and ".join(f"{before[name]:.1f} % of the {name}'s" for name in groups)
    sentences = [f"Unchanged, the targets favor the label of {now} images."]
    for name, repair in found["repairs"].items():
        moves = [move for group in groups if (move := repair["groups"]["thirds"][group]) is not None]
        moved = " and ".join(f"{move['loss']:.2f}" for move in moves)
        right = " and ".join(f"{move['right']:.1f} %" for move in moves)
        how = f"{' + '.join(repair['entries'])}, temperature {repair['temperature']:g}"
        ours = "; a reconstruction" if repair["reconstruction"] else ""
        if all(setting["student_side"] for setting in repair["settings"]):
            sentences.append(
                f"The repair of {name} ({how}{ours}) does not change the targets, but the student's logits that "
                "they are compared with."
            )
            continue
        sentences.append(
            f"The repair of {name} ({how}{ours}) moves the targets of {' and '.join(groups)} by {moved} "
            f"(T^2 x KL), which then favor the label for {right}."
        )
    return sentences


def _weights(found: AuditContent) -> str:
    ipwd = found["sample_weights"]["ipwd"]
    means = []
    for name, third in ipwd["groups"]["thirds"].items():
        if third is not None:
            means.append(f"{third['mean']:.2f} on the {name}")
    share, limit = ipwd["overall"]["clipped_share"], ipwd["max_weight"]
    clipped = "none is clipped" if limit is None else f"{share:.1f} % of all are clipped at {limit:g}"
    return f"{_WEIGHTS[ipwd['heads']]} {enumerated(means)} on average ({ipwd['ratio']}); {clipped}."
