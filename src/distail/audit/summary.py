"""An audit in plain words: each claim is a number that the audit holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from distail.evaluation.groups import THIRDS
from distail.evaluation.teacher_bias import describe_bias

NAMED_SWALLOWERS = 3


def summary(audit: Mapping[str, Any]) -> list[str]:
    """Sentences on the teacher's bias, its confidence, and what each repair would do to the targets.

    Args:
        audit: what `distail.audit.audit.audit` returned.

    >>> import torch
    >>> from distail.audit.audit import audit
    >>> found = audit(4 * torch.eye(3)[[0, 0, 1, 0]], torch.tensor([0, 0, 1, 2]), [300, 50, 5])
    >>> print(summary(found)[1])
    The errors on tail images end most often in class 0 (100.0 %).
    """
    return [*_bias(audit), *_confidence(audit), *_swaps(audit), *_repairs(audit), *_weights(audit)]


def _bias(audit: Mapping[str, Any]) -> Iterator[str]:
    thirds = audit["groups"]["thirds"]
    yield describe_bias(
        {
            "samples": audit["overall"]["images"],
            "wrong": audit["overall"]["wrong"],
            "tail_errors": audit["errors"]["tail_errors"],
            **{
                figure: {name: thirds[name][figure] for name in THIRDS}
                for figure in ("true_share", "predicted_share", "recall")
            },
        }
    )
    names = [(audit["classes"][found["class"]]["name"], found["share"]) for found in audit["errors"]["swallowers"]]
    if names:
        shares = [f"{name} ({share:.1f} %)" for name, share in names[:NAMED_SWALLOWERS]]
        yield f"The errors on tail images end most often in {_joined(shares)}."


def _confidence(audit: Mapping[str, Any]) -> Iterator[str]:
    measured = _measured(audit["groups"]["thirds"], "confidence")
    parts = [
        f"{third['confidence']:.1f} % sure and {third['accuracy']:.1f} % right on the {name}"
        for name, third in measured
    ]
    yield f"On average it is {_joined(parts)}."
    parts = [
        f"{third['confidence_when_wrong']:.1f} % on the {name}"
        for name, third in _measured(audit["groups"]["thirds"], "confidence_when_wrong")
    ]
    if parts:
        yield f"Where it is wrong, its mean confidence is {_joined(parts)}."


def _swaps(audit: Mapping[str, Any]) -> Iterator[str]:
    swapped = audit["swapped"]
    parts = [
        f"{third['share']:.1f} % of the {name}'s" for name, third in _measured(swapped["groups"]["thirds"], "share")
    ]
    yield (
        f"DR-KD would swap the targets of {swapped['overall']['images']:,} of {audit['overall']['images']:,} images: "
        f"{_joined(parts)}."
    )


def _repairs(audit: Mapping[str, Any]) -> Iterator[str]:
    before = dict(_measured(audit["before"]["groups"]["thirds"], "right"))
    groups: list[str] = [name for name in ("head", "tail") if name in before] or list(before)
    now = " and ".join(f"{before[name]['right']:.1f} % of the {name}'s" for name in groups)
    yield f"As they are, the targets favour the label of {now} images."
    for name, repair in audit["repairs"].items():
        after = [repair["groups"]["thirds"][group] for group in groups]
        moved = " and ".join(f"{third['loss']:.2f}" for third in after)
        right = " and ".join(f"{third['right']:.1f} %" for third in after)
        how = f"{' + '.join(repair['entries'])}, temperature {repair['temperature']:g}"
        ours = "; a reconstruction" if repair["reconstruction"] else ""
        yield (
            f"The repair of {name} ({how}{ours}) moves the targets of {' and '.join(groups)} by {moved} "
            f"(T^2 x KL), which then favour the label for {right}."
        )


def _weights(audit: Mapping[str, Any]) -> Iterator[str]:
    ipwd = audit["sample_weights"]["ipwd"]
    parts = [f"{third['mean']:.2f} on the {name}" for name, third in _measured(ipwd["groups"]["thirds"], "mean")]
    share, limit = ipwd["overall"]["clipped_share"], ipwd["max_weight"]
    clipped = "none is clipped" if limit is None else f"{share:.1f} % of all are clipped at {limit:g}"
    yield f"{_WEIGHTS[ipwd['heads']]} {_joined(parts)} on average ({ipwd['ratio']}); {clipped}."


_WEIGHTS = {
    "own": "IPWD's weights, from this run's two heads, are",
    "stand-in": "A stand-in for IPWD's weights (not the paper's, which needs a student with two heads) is",
}


def _measured(groups: Mapping[str, Any], figure: str) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, part) for name, part in groups.items() if part is not None and part[figure] is not None]


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
