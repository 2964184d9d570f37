"""How a report looks: its colors on light and dark pages, and one color, symbol and line for each model everywhere.

Model colors are those of Okabe and Ito (2008), told apart with any color vision; symbols and dashes tell them apart
without color. The teacher is gray, so that the students stand out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distail.report.views import RunView

PAGE_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
LIGHT = {
    "paper": "#fdfdfb",
    "panel": "#f4f5f2",
    "ink": "#1b1f23",
    "soft": "#555e67",
    "line": "#d9dcd6",
    "link": "#005a8d",
    "warn": "#8a4600",
    # What becomes of an image, and the ink that is read on it: a color for correct, a darkening brown for incorrect.
    "flow-correct": "#1f7a74",
    "flow-tail": "#e8d7b8",
    "flow-medium": "#c78f3c",
    "flow-head": "#7a4208",
    "on-flow-correct": "#ffffff",
    "on-flow-tail": "#1b1f23",
    "on-flow-medium": "#1b1f23",
    "on-flow-head": "#ffffff",
}
DARK = {
    "paper": "#14171a",
    "panel": "#1c2024",
    "ink": "#e8eaec",
    "soft": "#a4adb6",
    "line": "#343a41",
    "link": "#7cc4f2",
    "warn": "#f0b266",
    "flow-correct": "#57b8ae",
    "flow-tail": "#5b4a2e",
    "flow-medium": "#a9762c",
    "flow-head": "#f0b25e",
    "on-flow-correct": "#14171a",
    "on-flow-tail": "#e8eaec",
    "on-flow-medium": "#14171a",
    "on-flow-head": "#14171a",
}


@dataclass(frozen=True)
class Style:
    """Colors on a light and on a dark page, an SVG path in the square from -1 to 1, a dash pattern."""

    light: str
    dark: str
    path: str
    filled: bool = True
    dash: tuple[int, ...] = ()


_CIRCLE = "M0-.88A.88.88 0 1 1 0 .88A.88.88 0 1 1 0-.88Z"
_TRIANGLE = "M0-.92L.96.84H-.96Z"
_SQUARE = "M-.8-.8H.8V.8H-.8Z"
_DIAMOND = "M0-1L1 0L0 1L-1 0Z"
_UPSIDE_DOWN = "M0 .92L-.96-.84H.96Z"
_CROSS = "M-.32-1H.32V-.32H1V.32H.32V1H-.32V.32H-1V-.32H-.32Z"

TEACHERS = (
    Style("#5b6570", "#a9b3bd", _DIAMOND, dash=(5, 3)),
    Style("#5b6570", "#a9b3bd", _DIAMOND, filled=False, dash=(1, 3)),
)
STUDENTS = (
    Style("#0072B2", "#56B4E9", _CIRCLE),
    Style("#D55E00", "#E69F00", _TRIANGLE),
    Style("#009E73", "#009E73", _SQUARE),
    Style("#CC79A7", "#CC79A7", _UPSIDE_DOWN),
    Style("#E69F00", "#F0E442", _CROSS),
    Style("#56B4E9", "#0072B2", _CIRCLE, filled=False, dash=(6, 2)),
    Style("#D55E00", "#D55E00", _TRIANGLE, filled=False, dash=(6, 2)),
    Style("#009E73", "#F0E442", _SQUARE, filled=False, dash=(6, 2)),
)


def styles_of(runs: Sequence[RunView]) -> list[Style]:
    """A style for each run, in order; with more runs than styles they repeat.

    >>> [style.light for style in styles_of([RunView("t", "teacher"), RunView("kd", "student")])]
    ['#5b6570', '#0072B2']
    """
    seen = {"teacher": 0, "student": 0}
    table = {"teacher": TEACHERS, "student": STUDENTS}
    styles = []
    for run in runs:
        choices = table[run.role]
        styles.append(choices[seen[run.role] % len(choices)])
        seen[run.role] += 1
    return styles


def css_variables(runs: Sequence[RunView], *, dark: bool = False) -> Mapping[str, str]:
    """Every color of a page by the name of its CSS variable, ``series-0`` the first run's."""
    series = {f"series-{i}": style.dark if dark else style.light for i, style in enumerate(styles_of(runs))}
    return {**(DARK if dark else LIGHT), **series}
