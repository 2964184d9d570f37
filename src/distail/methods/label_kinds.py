"""What labels are, one class per sample or several, and which entries of the slots are for which."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from distail.errors import MethodError, unknown_name
from distail.outputs import MULTI_LABEL, SINGLE_LABEL

KINDS = (SINGLE_LABEL, MULTI_LABEL)
COUNTERPARTS: dict[str, dict[str, str | dict[str, Any]]] = {
    "supervised": {
        "ce": "bce",
        "balanced_softmax": {"name": "bce", "tau": 1.0},
        "logit_adjusted": {"name": "bce", "tau": 1.0},
    },
    "divergence": {"kl": "sigmoid"},
}
"""What an entry for one class per sample is where a sample has several: the same, for each class by itself."""


def kinds_of(builder: Callable[..., nn.Module], own: bool) -> tuple[str, ...]:
    """The labels that an entry takes; a user's own entry that says nothing takes what it is given."""
    kinds: tuple[str, ...] = getattr(builder, "label_kinds", KINDS if own else (SINGLE_LABEL,))
    return kinds


def check_kind(labels: object) -> str:
    """Let pass `single_label` and `multi_label`.

    Raises:
        MethodError: it is neither.
    """
    if labels not in KINDS:
        raise MethodError(unknown_name("kind of labels", labels, KINDS))
    return str(labels)


def for_labels(composition: Mapping[str, Any], labels: str) -> dict[str, Any]:
    """A published composition, with the counterparts of its entries where a sample has several classes.

    >>> for_labels({"supervised": "ce", "targets": ["debias"], "divergence": "kl"}, MULTI_LABEL)
    {'supervised': 'bce', 'targets': ['debias'], 'divergence': 'sigmoid'}
    """
    if labels == SINGLE_LABEL:
        return dict(composition)
    return {slot: counterpart(slot, content) for slot, content in composition.items()}


def counterpart(slot: str, content: Any) -> Any:
    """Of an entry that is a mere name; whatever has parameters was somebody's choice.

    >>> counterpart("divergence", "kl"), counterpart("divergence", None), counterpart("targets", ["swap"])
    ('sigmoid', None, ['swap'])
    """
    return COUNTERPARTS.get(slot, {}).get(content, content) if isinstance(content, str) else content


def wrong_entry(slot: str, name: str, labels: str, valid: Iterable[str]) -> str:
    """What to tell of an entry that does not take such labels; `valid` are those of its slot that do.

    >>> print(wrong_entry("supervised", "ce", MULTI_LABEL, ["bce"]))
    supervised entry 'ce' is for single-label data, but the data are multi-label. Expected 'bce'; valid: bce
    >>> print(wrong_entry("supervised", "balanced_softmax", MULTI_LABEL, ["bce"]))
    supervised entry 'balanced_softmax' is for single-label data, but the data are multi-label. Expected {name: bce, \
tau: 1}; valid: bce
    >>> print(wrong_entry("targets", "swap", MULTI_LABEL, ["power"]))
    targets entry 'swap' is for single-label data, but the data are multi-label. Valid: power
    """
    takes, here = ("single-label", "multi-label") if labels == MULTI_LABEL else ("multi-label", "single-label")
    back = {_name(new): old for old, new in reversed(COUNTERPARTS.get(slot, {}).items())}
    nearest = counterpart(slot, name) if labels == MULTI_LABEL else back.get(name, name)
    names = ", ".join(sorted(valid)) or "none, leave it out"
    expected = f"Expected {_written(nearest)}; valid" if nearest != name else "Valid"
    return f"{slot} entry {name!r} is for {takes} data, but the data are {here}. {expected}: {names}"


def _written(entry: Any) -> str:
    """As in YAML: a mapping with its parameters."""
    if not isinstance(entry, Mapping):
        return repr(entry)
    parameters = [
        f"{key}: {value:g}" if isinstance(value, float) else f"{key}: {value}" for key, value in entry.items()
    ]
    return f"{{{', '.join(parameters)}}}"


def _name(entry: Any) -> str:
    return str(entry["name"] if isinstance(entry, Mapping) else entry)
