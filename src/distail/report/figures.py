"""A static figure for papers and READMEs: recall of every class against its number of training images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distail.errors import ConfigError, unknown_name
from distail.evaluation.groups import thirds
from distail.report.series import class_order, moving_mean, neighbourhood, rank_ticks
from distail.report.style import Style, styles_of
from distail.report.views import RunView

FORMATS = ("png", "svg", "pdf")


def recall_figure(
    path: str | Path, runs: Sequence[RunView], class_counts: Sequence[int], *, title: str | None = None
) -> Path:
    """Draw recall by class, classes from most to fewest training images, and return the path.

    Marks are classes, lines the mean over neighbouring ones (`distail.report.series.neighbourhood`). Colours, symbols
    and dashes are those of the report page, told apart with any colour vision and without colour. The same input gives
    the same bytes.

    Args:
        path: the file to write; its ending (png, svg, pdf) decides the format.
        runs: the models; those without figures are left out.
        class_counts: (C,) training images of each class.
        title: printed above the figure.

    Raises:
        ConfigError: another ending, or no model with figures.
    """
    path = Path(path)
    if path.suffix.removeprefix(".") not in FORMATS:
        raise ConfigError(f"{path}: {unknown_name('figure format', path.suffix.removeprefix('.'), FORMATS)}")
    measured = [(run, style) for run, style in zip(runs, styles_of(runs), strict=True) if run.figures is not None]
    if not measured:
        raise ConfigError(f"{path}: none of the {len(runs)} models has test figures, so there is nothing to draw.")

    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    order = class_order(class_counts)
    with rc_context({"svg.hashsalt": "distail", "svg.fonttype": "path", "font.size": 9, "axes.titlesize": 10}):
        figure = Figure(figsize=(6.4, 3.6), dpi=200, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _thirds(axes, class_counts)
        for run, style in measured:
            assert run.figures is not None
            _draw(axes, run.name, style, [run.figures["per_class_recall"][c] for c in order])
        ticks = rank_ticks(len(order), 9)
        axes.set(
            xlim=(-0.5, len(order) - 0.5),
            ylim=(-2, 102),
            xticks=ticks,
            xticklabels=[f"{class_counts[order[rank]]:,}" for rank in ticks],
            xlabel="training images in the class",
            ylabel="recall, %",
        )
        axes.grid(axis="y", color="#d9dcd6", linewidth=0.6)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
        figure.legend(loc="outside upper left", ncols=4, frameon=False, handlelength=3.6)
        if title:
            figure.suptitle(title, x=0.01, ha="left")
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without a date the file depends on its content alone.
        undated = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
        figure.savefig(path, metadata=undated[path.suffix.removeprefix(".")])
    return path


def _draw(axes: Any, name: str, style: Style, recalls: Sequence[float | None]) -> None:
    face = style.light if style.filled else "white"
    marks: dict[str, Any] = {"marker": style.marker, "markerfacecolor": face, "markeredgecolor": style.light}
    dashes = {"dashes": style.dash} if style.dash else {}
    window = neighbourhood(len(recalls))
    means = moving_mean(recalls, window)
    ranks = range(len(recalls))
    lone = window == 1
    if not lone:
        axes.plot(ranks, _gaps(recalls), linestyle="none", markersize=3, alpha=0.45, **marks)
    axes.plot(
        ranks,
        _gaps(means),
        color=style.light,
        linewidth=1.6,
        label=name,
        markersize=5,
        markevery=None if lone else max(1, len(recalls) // 8),
        **marks,
        **dashes,
    )


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _thirds(axes: Any, class_counts: Sequence[int]) -> None:
    start = 0
    for name, members in thirds(class_counts).items():
        if members:
            axes.text(start + len(members) / 2 - 0.5, 103, name, ha="center", va="bottom", fontsize=8, color="#555e67")
            if name == "medium":
                axes.axvspan(start - 0.5, start + len(members) - 0.5, color="#1b1f23", alpha=0.04, linewidth=0)
        start += len(members)
