"""How a model looks in every chart: one colour, symbol and line, the same on the page and in static figures.

Colours are those of Okabe and Ito (2008), told apart with any colour vision; symbols and dashes tell them apart without
colour. The teacher is grey, so that the students stand out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distail import files
from distail.errors import ConfigError, unknown_name
from distail.report.views import RunView

FORMATS = ("png", "svg", "pdf")
SOFT, GRID = "#555e67", "#d9dcd6"
# Without a date the file depends on its content alone.
_UNDATED: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}


@dataclass(frozen=True)
class Style:
    """Colours on a light and on a dark page, an SVG path in a 10 by 10 box, a matplotlib marker, a dash pattern."""

    light: str
    dark: str
    path: str
    marker: str
    filled: bool = True
    dash: tuple[int, ...] = ()


_CIRCLE = "M5 .6A4.4 4.4 0 1 1 5 9.4A4.4 4.4 0 1 1 5 .6Z"
_TRIANGLE = "M5 .4L9.8 9.2H.2Z"
_SQUARE = "M1 1H9V9H1Z"
_DIAMOND = "M5 0L10 5L5 10L0 5Z"
_UPSIDE_DOWN = "M5 9.6L.2 .8H9.8Z"
_CROSS = "M3.4 0H6.6V3.4H10V6.6H6.6V10H3.4V6.6H0V3.4H3.4Z"

TEACHERS = (
    Style("#5b6570", "#a9b3bd", _DIAMOND, "D", dash=(5, 3)),
    Style("#5b6570", "#a9b3bd", _DIAMOND, "D", filled=False, dash=(1, 3)),
)
STUDENTS = (
    Style("#0072B2", "#56B4E9", _CIRCLE, "o"),
    Style("#D55E00", "#E69F00", _TRIANGLE, "^"),
    Style("#009E73", "#009E73", _SQUARE, "s"),
    Style("#CC79A7", "#CC79A7", _UPSIDE_DOWN, "v"),
    Style("#E69F00", "#F0E442", _CROSS, "P"),
    Style("#56B4E9", "#0072B2", _CIRCLE, "o", filled=False, dash=(6, 2)),
    Style("#D55E00", "#D55E00", _TRIANGLE, "^", filled=False, dash=(6, 2)),
    Style("#009E73", "#F0E442", _SQUARE, "s", filled=False, dash=(6, 2)),
)
# What becomes of an image, and the ink that is read on it: a colour for right, a darkening brown for wrong.
OUTCOME_COLOURS = {
    "correct": ("#1f7a74", "white"),
    "tail": ("#e8d7b8", "#1b1f23"),
    "medium": ("#c78f3c", "#1b1f23"),
    "head": ("#7a4208", "white"),
}


def styles_of(runs: Sequence[RunView]) -> list[Style]:
    """A style for each run, in order; with more runs than styles they repeat.

    >>> [style.marker for style in styles_of([RunView("t", "teacher"), RunView("kd", "student")])]
    ['D', 'o']
    """
    seen = {"teacher": 0, "student": 0}
    table = {"teacher": TEACHERS, "student": STUDENTS}
    styles = []
    for run in runs:
        choices = table[run.role]
        styles.append(choices[seen[run.role] % len(choices)])
        seen[run.role] += 1
    return styles


def check_format(path: Path) -> str:
    """The format that the file's ending names.

    Raises:
        ConfigError: another ending than those of `FORMATS`.
    """
    ending = path.suffix.removeprefix(".")
    if ending not in FORMATS:
        raise ConfigError(f"{path}: {unknown_name('figure format', ending, FORMATS)}")
    return ending


@contextmanager
def canvas(width: float, height: float) -> Iterator[Any]:
    """An empty matplotlib figure of that many inches, drawn without a display."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "distail", "svg.fonttype": "path", "font.size": 9, "axes.titlesize": 10}):
        figure = Figure(figsize=(width, height), dpi=200, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def save(figure: Any, path: Path) -> Path:
    """Write the figure in the format of the file's ending; the file appears complete or not at all."""
    import io

    ending = check_format(path)
    content = io.BytesIO()
    figure.savefig(content, format=ending, metadata=_UNDATED[ending])
    files.write_bytes(path, content.getvalue())
    return path


def draw_once(path: Path, size: tuple[float, float], draw: Callable[[Any], None]) -> Path:
    """One figure into one file."""
    check_format(path)
    with canvas(*size) as figure:
        draw(figure)
        return save(figure, path)


def plain(axes: Any, *, grid: str = "y") -> None:
    """A light grid in one direction, no frame and no tick marks."""
    axes.grid(axis=grid, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
