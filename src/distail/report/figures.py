"""Static figures for papers and READMEs, as PNG, SVG or PDF; colours, symbols and dashes are those of the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distail.errors import ConfigError
from distail.evaluation.groups import THIRDS, thirds
from distail.report.chart_data import (
    OUTCOME_TITLES,
    OUTCOMES,
    class_order,
    cost_data,
    groups_data,
    moving_mean,
    neighbourhood,
    rank_ticks,
    tail_flow,
)
from distail.report.style import OUTCOME_COLOURS, SOFT, Style, canvas, check_format, draw_once, plain, save, styles_of
from distail.report.views import ReportView, RunView, recall_by_class

Draw = Callable[[Any, ReportView], None]
Styled = list[tuple[RunView, Style]]


def recall_figure(
    path: str | Path, runs: Sequence[RunView], class_counts: Sequence[int], *, title: str | None = None
) -> Path:
    """Draw recall by class, classes from most to fewest training images, and return the path.

    Marks are classes, lines the mean over neighbouring ones (`distail.report.chart_data.neighbourhood`). Colours,
    symbols and dashes are told apart with any colour vision and without colour. The same input gives the same bytes.

    Args:
        path: the file to write; its ending (png, svg, pdf) decides the format.
        runs: the models; those without recall by class are left out.
        class_counts: (C,) training images of each class.
        title: printed above the figure.

    Raises:
        ConfigError: another ending, or no model with recall by class.
    """
    path = Path(path)
    check_format(path)
    view = ReportView(title or "", runs, class_counts=class_counts)
    if not _with_recall(view):
        raise ConfigError(f"{path}: none of the {len(runs)} models has test figures, so there is nothing to draw.")

    def draw(figure: Any) -> None:
        _recall(figure, view)
        if title:
            figure.suptitle(title, x=0.01, ha="left")

    return draw_once(path, (6.4, 3.6), draw)


def write_figures(folder: str | Path, view: ReportView) -> list[Path]:
    """Every figure that the view has numbers for, as PNG and SVG; returns the files written.

    ``recall``, ``groups`` (head, medium and tail third, with the deviation over seeds), ``error-flow`` (where images of
    tail classes end), ``reliability`` and ``cost`` (balanced accuracy against parameters and training time).
    """
    written = []
    for name, (size, drawable, draw) in FIGURES.items():
        if drawable(view):
            with canvas(*size(view)) as figure:
                draw(figure, view)
                written += [save(figure, Path(folder) / f"{name}.{ending}") for ending in ("png", "svg")]
    return written


def _styled(view: ReportView) -> Styled:
    return list(zip(view.runs, styles_of(view.runs), strict=True))


def _with_recall(view: ReportView) -> Styled:
    return [pair for pair in _styled(view) if recall_by_class(pair[0]) is not None] if view.class_counts else []


def _measured(view: ReportView) -> Styled:
    return [pair for pair in _styled(view) if pair[0].metrics is not None]


def _with_flow(view: ReportView) -> Styled:
    return [pair for pair in _styled(view) if tail_flow(pair[0]) is not None]


def _with_bins(view: ReportView) -> Styled:
    return [pair for pair in _styled(view) if any(item.count for item in pair[0].reliability)]


def _costs(view: ReportView) -> dict[str, list[list[float] | None]]:
    return {name: points for name, points in cost_data(view.runs).items() if any(points)}


def _recall(figure: Any, view: ReportView) -> None:
    axes = figure.add_subplot()
    order = class_order(view.class_counts)
    _shade_thirds(axes, view.class_counts)
    for run, style in _with_recall(view):
        recalls = recall_by_class(run)
        assert recalls is not None
        _draw_recalls(axes, run.name, style, [recalls[c] for c in order])
    ticks = rank_ticks(len(order), 9)
    plain(axes)
    axes.set(
        xlim=(-0.5, len(order) - 0.5),
        ylim=(-2, 102),
        xticks=ticks,
        xticklabels=[f"{view.class_counts[order[rank]]:,}" for rank in ticks],
        xlabel="training images in the class",
        ylabel="recall, %",
    )
    _legend(figure)


def _groups(figure: Any, view: ReportView) -> None:
    axes = figure.add_subplot()
    data = groups_data(view.runs, view.class_counts, "thirds")
    shown = [(i, run, style) for i, (run, style) in enumerate(_styled(view)) if data["values"][i] is not None]
    height = 0.8 / len(shown)
    for position, (i, run, style) in enumerate(shown):
        places = [group - 0.4 + height * (position + 0.5) for group in range(len(THIRDS))]
        values = [value or 0.0 for value in data["values"][i]]
        deviations = [deviation or 0.0 for deviation in data["deviations"][i]]
        axes.barh(
            places,
            values,
            height * 0.86,
            xerr=deviations if any(deviations) else None,
            error_kw={"elinewidth": 0.9, "capsize": 2, "ecolor": "#1b1f23"},
            label=run.name,
            **_bar(style),
        )
        told_of = zip(places, data["values"][i], deviations, data["missing"], strict=True)
        for place, value, deviation, missing in told_of:
            told = missing if value is None else f"{value:.1f}" + (f" ± {deviation:.1f}" if deviation else "")
            axes.text((value or 0.0) + deviation + 1, place, told, va="center", fontsize=7.5)
    plain(axes, grid="x")
    axes.set(xlim=(0, 108), xticks=range(0, 101, 25), yticks=range(len(THIRDS)), xlabel="mean recall, %")
    axes.set_yticklabels([_group_label(name, size) for name, size in zip(THIRDS, data["sizes"], strict=False)])
    axes.invert_yaxis()
    _legend(figure)


def _flow(figure: Any, view: ReportView) -> None:
    axes = figure.add_subplot()
    shown = [(run, flow) for run, _ in _with_flow(view) if (flow := tail_flow(run)) is not None]
    left = [0.0] * len(shown)
    for outcome in OUTCOMES:
        colour, ink = OUTCOME_COLOURS[outcome]
        values = [flow[outcome] or 0.0 for _, flow in shown]
        axes.barh(range(len(shown)), values, 0.72, left, color=colour, edgecolor="white", label=OUTCOME_TITLES[outcome])
        for row, value in enumerate(values):
            if value >= 5:
                axes.text(left[row] + value / 2, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=ink)
        left = [start + value for start, value in zip(left, values, strict=True)]
    plain(axes, grid="x")
    axes.set(xlim=(0, 100), xlabel="test images of tail classes, %", yticks=range(len(shown)))
    axes.set_yticklabels([run.name for run, _ in shown])
    axes.invert_yaxis()
    _legend(figure, columns=2)


def _reliability(figure: Any, view: ReportView) -> None:
    axes = figure.add_subplot()
    axes.plot((0, 100), (0, 100), color=SOFT, linewidth=0.8, linestyle=(0, (2, 4)))
    for run, style in _with_bins(view):
        bins = [item for item in run.reliability if item.confidence is not None and item.accuracy is not None]
        axes.plot(
            [100 * (item.confidence or 0.0) for item in bins],
            [100 * (item.accuracy or 0.0) for item in bins],
            label=run.name,
            markersize=4.5,
            **_line(style),
        )
    plain(axes, grid="both")
    axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="confidence, %", ylabel="accuracy, %", aspect="equal")
    _legend(figure, columns=3)


def _cost(figure: Any, view: ReportView) -> None:
    costs = _costs(view)
    labels = {"parameters": "parameters, millions", "seconds": "seconds of training"}
    for axes, (what, points) in zip(
        figure.subplots(1, len(costs), sharey=True, squeeze=False)[0], costs.items(), strict=True
    ):
        for (run, style), point in zip(_styled(view), points, strict=True):
            if point is not None:
                cost, accuracy, deviation = point
                axes.errorbar(
                    cost,
                    accuracy,
                    yerr=deviation or None,
                    capsize=2,
                    markersize=6,
                    label=run.name if axes is figure.axes[0] else None,
                    **{**_line(style), "linestyle": "none"},
                )
        plain(axes, grid="both")
        known = [point[0] for point in points if point is not None]
        if min(known) > 0 and max(known) > 20 * min(known):
            axes.set_xscale("log")
        else:
            axes.set_xlim(0, 1.15 * max(known))
        axes.set_xlabel(labels[what])
    figure.axes[0].set_ylabel("balanced accuracy, %")
    _legend(figure)


def _draw_recalls(axes: Any, name: str, style: Style, recalls: Sequence[float | None]) -> None:
    window = neighbourhood(len(recalls))
    ranks = range(len(recalls))
    lone = window == 1
    if not lone:
        axes.plot(ranks, _gaps(recalls), markersize=3, alpha=0.45, **{**_line(style), "linestyle": "none"})
    every = None if lone else max(1, len(recalls) // 8)
    axes.plot(ranks, _gaps(moving_mean(recalls, window)), label=name, markersize=5, markevery=every, **_line(style))


def _line(style: Style) -> dict[str, Any]:
    look: dict[str, Any] = {
        "color": style.light,
        "linewidth": 1.6,
        "marker": style.marker,
        "markerfacecolor": style.light if style.filled else "white",
        "markeredgecolor": style.light,
    }
    return {**look, "linestyle": (0, style.dash)} if style.dash else look


def _bar(style: Style) -> dict[str, Any]:
    # Two runs of one colour differ by their filling, as their marks do.
    return {"color": style.light if style.filled else "white", "edgecolor": style.light, "linewidth": 1}


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _group_label(name: str, size: int) -> str:
    return f"{name}\n{size} class{'es' if size != 1 else ''}"


def _legend(figure: Any, columns: int = 5) -> None:
    figure.legend(loc="outside upper left", ncols=columns, frameon=False, handlelength=3.2)


def _shade_thirds(axes: Any, class_counts: Sequence[int]) -> None:
    start = 0
    for name, members in thirds(class_counts).items():
        if members:
            axes.text(start + len(members) / 2 - 0.5, 103, name, ha="center", va="bottom", fontsize=8, color=SOFT)
            if name == "medium":
                axes.axvspan(start - 0.5, start + len(members) - 0.5, color="#1b1f23", alpha=0.04, linewidth=0)
        start += len(members)


def _rows(
    runs: Callable[[ReportView], Styled], rows: float, bars: float
) -> Callable[[ReportView], tuple[float, float]]:
    """As many inches high as the models need."""
    return lambda view: (6.4, rows + bars * max(1, len(runs(view))))


FIGURES: dict[str, tuple[Callable[[ReportView], tuple[float, float]], Callable[[ReportView], Any], Draw]] = {
    "recall": (lambda view: (6.4, 3.6), _with_recall, _recall),
    "groups": (_rows(_measured, 1.3, 0.48), _measured, _groups),
    "error-flow": (_rows(_with_flow, 1.2, 0.34), _with_flow, _flow),
    "reliability": (lambda view: (4.2, 4.4), _with_bins, _reliability),
    "cost": (lambda view: (6.4, 3.2), _costs, _cost),
}
