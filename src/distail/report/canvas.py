"""Static figures as files: one look, and the same bytes for the same input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distail import files
from distail.errors import ConfigError, unknown_name

FORMATS = ("png", "svg", "pdf")
SOFT, GRID = "#555e67", "#d9dcd6"
# Without a date the file depends on its content alone.
_UNDATED: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}


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
