"""How the compared figures are called in tables and sentences, and by which rule classes are grouped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distail.evaluation.significance import FIGURES
from distail.report.table import COLUMNS

_COLUMN = {
    "groups.thirds.head": "head",
    "groups.thirds.medium": "medium",
    "groups.thirds.tail": "tail",
    "groups.shots.many": "many",
    "groups.shots.medium": "medium_shot",
    "groups.shots.few": "few",
}
TITLES = {name: COLUMNS[_COLUMN.get(name, name)].title for name in FIGURES}
RULES = tuple(dict.fromkeys(rule for name in FIGURES if (rule := COLUMNS[_COLUMN.get(name, name)].rule)))
MAIN = ("top1", "balanced_accuracy", "groups.thirds.tail")
"""What sentences are made of; the tables have every figure."""


def paired_seeds(content: Mapping[str, Any], method: str, figure: str) -> int:
    """Over how many seeds a difference from the baseline is: those in which both have the figure."""
    own, other = (content["figures"][label][figure]["values"] for label in (method, content["baseline"]))
    return sum(seed in other for seed in own)


def signed(value: float) -> str:
    """A difference in points.

    >>> signed(1.25), signed(-0.04), signed(0.0)
    ('+1.2', '0.0', '0.0')
    """
    text = f"{value:+.1f}"
    return text if float(text) else "0.0"


def plain(value: float) -> str:
    """A figure in percent, without a negative zero."""
    text = f"{value:.1f}"
    return text if float(text) else "0.0"
