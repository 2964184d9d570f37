"""What a run shows of itself in a notebook: the table and the picture of its page, as one piece of HTML."""

from __future__ import annotations

from pathlib import Path

from distail.evaluation.teacher_bias import describe_bias
from distail.report.build import report_view
from distail.report.figures import figure_svg
from distail.report.results_table import fitting_table
from distail.report.table import escape_html


def run_html(folder: Path) -> str:
    """A finished run's results, recall by class, and where its page lies; all text is escaped.

    Raises:
        ConfigError: not the folder of a run.
    """
    view = report_view([folder])
    bias = [] if view.bias is None else [f"<p>{escape_html(describe_bias(view.bias))}</p>"]
    parts = [
        f"<p><b>{escape_html(view.title)}</b></p>",
        *bias,
        fitting_table(view.runs).to_html(),
        figure_svg("recall", view) or "",
        f"<p><code>{escape_html(str(folder / 'report.html'))}</code> shows it per class.</p>",
    ]
    return f"<div>{''.join(parts)}</div>"
