"""Figures for papers and READMEs, as PNG, SVG or PDF: the charts of the page, drawn on white paper."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from distail import files
from distail.errors import ConfigError, unknown_name
from distail.report.chart_data import chart_data, recall_data
from distail.report.charts import charts_of
from distail.report.class_charts import recall_chart
from distail.report.style import css_variables
from distail.report.vega import CONFIG, PAPER, WIDTH, Chart, Spec
from distail.report.views import ReportView, RunView

FORMATS = ("png", "svg", "pdf")
FIGURES: Mapping[str, tuple[int, tuple[str, ...]]] = {
    "recall": (WIDTH, ("recall",)),
    "groups": (WIDTH, ("thirds",)),
    "error-flow": (WIDTH, ("flow",)),
    "reliability": (430, ("reliability",)),
    "cost": (WIDTH, ("cost-parameters", "cost-latency")),
}
"""The name of each file, its width, and the charts that stand in it side by side."""
# vl-convert brings Liberation Sans, so that a file looks the same wherever it was made.
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
PIXELS_PER_UNIT = 2


def recall_figure(
    path: str | Path, runs: Sequence[RunView], class_counts: Sequence[int], *, title: str | None = None
) -> Path:
    """Draw recall by class, classes from most to fewest training images, and return the path.

    Marks are classes, lines the mean over neighboring ones (`distail.report.chart_data.neighborhood`). Colors,
    symbols and dashes are told apart with any color vision and without color. PNG and SVG are the same bytes for the
    same input.

    Args:
        path: the file to write; its ending (png, svg, pdf) decides the format.
        runs: the models; those without recall by class are left out.
        class_counts: (C,) training images of each class.
        title: printed above the figure.

    Raises:
        ConfigError: another ending, or no model with recall by class.
    """
    path = Path(path)
    ending = path.suffix.removeprefix(".")
    if ending not in FORMATS:
        raise ConfigError(f"{path}: {unknown_name('figure format', ending, FORMATS)}")
    data = recall_data(runs, [""] * len(class_counts), class_counts)
    if data is None:
        raise ConfigError(f"{path}: none of the {len(runs)} models has test metrics, so there is nothing to plot.")
    spec = recall_chart(runs, data).spec(runs)
    return _save(path, _svg({**spec, "title": title} if title else spec, runs))


def write_figures(folder: str | Path, view: ReportView) -> list[Path]:
    """Every figure that the view has numbers for, as PNG and SVG; returns the files written.

    ``recall``, ``groups`` (head, medium and tail third, with the deviation over seeds), ``error-flow`` (where images of
    tail classes end), ``reliability`` and ``cost`` (balanced accuracy against parameters and latency).
    """
    written = []
    charts = charts_of(view, chart_data(view))
    for name in FIGURES:
        svg = figure_svg(name, view, charts)
        if svg is not None:
            written += [_save(Path(folder) / f"{name}.{ending}", svg) for ending in ("png", "svg")]
    return written


def figure_svg(name: str, view: ReportView, charts: Mapping[str, Chart] | None = None) -> str | None:
    """One of `FIGURES` as SVG; None where the view has no numbers for it.

    Args:
        name: of the figure.
        view: what to draw.
        charts: those of the view, where they are known.
    """
    width, parts = FIGURES[name]
    if charts is None:
        charts = charts_of(view, chart_data(view))
    specs = [charts[part].spec(view.runs, width) for part in parts if part in charts]
    return _svg(_side_by_side(specs), view.runs) if specs else None


def _side_by_side(specs: Sequence[Spec]) -> Spec:
    if len(specs) == 1:
        return specs[0]
    plots = [{name: spec[name] for name in ("layer", "height")} for spec in specs]
    return {
        "description": " ".join(str(spec["description"]) for spec in specs),
        "params": specs[0]["params"],
        "hconcat": [{**plot, "width": WIDTH // len(specs) - 70} for plot in plots],
    }


def _svg(spec: Spec, runs: Sequence[RunView]) -> str:
    import vl_convert

    colors = {f"var(--{name})": color for name, color in css_variables(runs).items()} | {PAPER: "#ffffff"}
    look = {"config": {**CONFIG, "font": FONT}, "background": PAPER, "padding": 8}
    svg: str = vl_convert.vegalite_to_svg(json.dumps(_colored({**spec, **look}, colors), allow_nan=False))
    label = html.escape(str(spec["description"]))
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def _smaller(png: bytes) -> bytes:
    """The same picture in a third fewer bytes: nothing in it is transparent."""
    from PIL import Image

    content = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").save(content, "PNG")
    return content.getvalue()


def _colored(part: object, colors: Mapping[str, str]) -> object:
    if isinstance(part, Mapping):
        return {name: _colored(value, colors) for name, value in part.items()}
    if isinstance(part, list | tuple):
        return [_colored(value, colors) for value in part]
    return colors.get(part, part) if isinstance(part, str) else part


def _save(path: Path, svg: str) -> Path:
    import vl_convert

    match path.suffix:
        case ".png":
            content = _smaller(vl_convert.svg_to_png(svg, scale=PIXELS_PER_UNIT))
        case ".pdf":
            content = vl_convert.svg_to_pdf(svg)
        case _:
            content = svg.encode()
    files.write_bytes(path, content)
    return path
