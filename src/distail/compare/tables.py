"""A comparison as tables: on the terminal, as Markdown and LaTeX for people, as CSV for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from distail import files
from distail.compare.content import ComparisonContent, DifferenceContent, PointContent
from distail.compare.metrics import decides, metrics_of, of_multi_label
from distail.compare.summary import (
    METRIC_TITLES,
    RULES,
    adjusted_references,
    differences_against,
    differences_of,
    verdict,
)
from distail.evaluation.adjustment import adjusted_name
from distail.evaluation.groups import THIRD_PATHS
from distail.evaluation.headline import BALANCED_ACCURACY, MAP_RULE, MEAN_AVERAGE_PRECISION
from distail.evaluation.run_files import FAILED, FINISHED
from distail.evaluation.significance import OVER_IMAGES, OVER_SEEDS
from distail.report.numbers import format_metric, format_signed
from distail.report.results_table import ADJUSTED, PROTOCOL
from distail.report.table import Table, escape_markdown, latex_comment
from distail.report.views import NOT_MEASURED, missing_reason

if TYPE_CHECKING:
    from rich.console import Console

ON_A_TERMINAL = ("top1", BALANCED_ACCURACY, MEAN_AVERAGE_PRECISION, *THIRD_PATHS)
CAPTION = (
    f"{PROTOCOL}; mean ± standard deviation over seeds; intervals are 95 %, over seeds by Student's t, over test "
    "images by paired bootstrap, and not corrected: only p and verdicts are corrected for the number of differences"
)
CSV_COLUMNS = (
    "method",
    "figure",
    "seeds",
    "mean",
    "deviation",
    "interval_low",
    "interval_high",
    "paired_seeds",
    "difference",
    "seeds_low",
    "seeds_high",
    "seeds_p",
    "seeds_p_corrected",
    "images_low",
    "images_high",
    "images_p",
    "images_p_corrected",
    "verdict",
)


def paths_of(content: ComparisonContent) -> tuple[str, ...]:
    """The metrics of a comparison, in the order in which they are shown."""
    return metrics_of(of_multi_label(content))


def write_tables(folder: Path, content: ComparisonContent) -> list[Path]:
    """Write `comparison.md`, `.csv` and `.tex`, and where there is something to say `beyond-adjusting.csv`."""
    texts = {
        "comparison.md": to_markdown(content),
        "comparison.csv": csv_table(content).to_csv(),
        "comparison.tex": to_latex(content),
    }
    if content["beyond_adjusting"]:
        texts["beyond-adjusting.csv"] = beyond_csv_table(content).to_csv()
    else:
        (folder / "beyond-adjusting.csv").unlink(missing_ok=True)  # of an earlier call
    for name, text in texts.items():
        files.write_text(folder / name, text)
    return [folder / name for name in texts]


def print_tables(content: ComparisonContent, console: Console) -> None:
    """The main metrics and the sentences; the files have the rest."""
    table = metric_table(content, [path for path in ON_A_TERMINAL if path in paths_of(content)])
    replace(table, title=content["name"], caption=_caption(content, RULES[:1])).print(console)
    for sentence in content["statements"]:
        console.print(f"- {sentence}", highlight=False, markup=False)


def to_markdown(content: ComparisonContent) -> str:
    """All tables with the sentences below them."""
    parts = [f"# {escape_markdown(content['name'])}", *(table.to_markdown() for table in all_tables(content))]
    parts.append("\n".join(f"- {escape_markdown(sentence)}" for sentence in content["statements"]))
    return "\n\n".join(parts) + "\n"


def to_latex(content: ComparisonContent) -> str:
    """All tables as `tabular`, with the sentences as comments above them."""
    comments = [latex_comment(sentence) for sentence in content["statements"]]
    return "\n\n".join(["\n".join(comments), *(table.to_latex() for table in all_tables(content))]) + "\n"


def all_tables(content: ComparisonContent) -> list[Table]:
    """The tables that have something to say, the first with the caption of all."""
    metrics = metric_table(content, paths_of(content))
    beyond = [difference_table(content, paths_of(content), row) for row in adjusted_references(content)]
    others = (difference_table(content, paths_of(content)), *beyond, interval_table(content), grid_table(content))
    return [replace(metrics, caption=_caption(content, RULES)), *(table for table in others if table.rows)]


def _caption(content: ComparisonContent, rules: Sequence[str]) -> str:
    shown = [*[ADJUSTED][: bool(content["taus"])], *[MAP_RULE][: of_multi_label(content)], *rules]
    return "; ".join([CAPTION, *shown]) + "."


def metric_table(content: ComparisonContent, metrics: Sequence[str]) -> Table:
    """A row for each teacher and method, and for each of these adjusted: mean ± deviation."""
    rows = []
    for label in content["figures"]:
        finished = _finished_seeds(content, label)
        taus = sorted(set(content["taus"].get(label, {}).values())) if label in content["methods"] else []
        name = f"{label} (tau {', '.join(f'{tau:g}' for tau in taus)})" if taus else label
        rows.append([name, str(finished), *(_metric_cell(content, label, path) for path in metrics)])
    return Table(["Method", "Seeds", *(METRIC_TITLES[path] for path in metrics)], rows)


def difference_table(content: ComparisonContent, metrics: Sequence[str], against: str | None = None) -> Table:
    """A row for each method and metric: the seeds paired, the difference, intervals, p values, verdict.

    Args:
        against: the row that is subtracted; by default the baseline.
    """
    columns = ["Method", "Metric", "Seeds", "Difference", "Over test images", "p", "Over seeds", "p", "Verdict"]
    rows = []
    for method in content["figures"]:
        for path in metrics:
            found = differences_of(content, method, path, against)
            if not found:
                continue
            by_way = {one["over"]: one for one in found}
            rows.append(
                [
                    method,
                    METRIC_TITLES[path],
                    str(found[0]["seeds"]),
                    format_signed(found[0]["difference"]),
                    *_interval_and_p(by_way.get(OVER_IMAGES)),
                    *_interval_and_p(by_way.get(OVER_SEEDS)),
                    verdict(found),
                ]
            )
    caption = f"Points more or less than {against or content['baseline']}."
    return Table(columns, rows, caption=caption, text_columns=frozenset({0, 1, len(columns) - 1}))


def interval_table(content: ComparisonContent) -> Table:
    """A row for each method and metric: mean, deviation, interval."""
    rows = []
    for method, metrics in content["figures"].items():
        for path in paths_of(content):
            metric = metrics[path]
            if metric["mean"] is None:
                continue
            deviation, interval = metric["deviation"], metric["interval"]
            rows.append(
                [
                    method,
                    METRIC_TITLES[path],
                    str(len(metric["values"])),
                    format_metric(metric["mean"]),
                    "" if deviation is None else format_metric(deviation),
                    "" if interval is None else f"{format_metric(interval[0])} to {format_metric(interval[1])}",
                ]
            )
    columns = ["Method", "Metric", "Seeds", "Mean", "Deviation", "95 % interval"]
    return Table(columns, rows, text_columns=frozenset({0, 1}))


def grid_table(content: ComparisonContent) -> Table:
    """Every grid point with its validation metric and the seeds behind it: only the chosen ones have test metrics."""
    rows = []
    for point in content["grid"]["points"] if content["grid"] else []:
        rows.append([point["label"], _seeds_behind(point), _validation(point), "yes" if point["chosen"] else ""])
    of_validation = METRIC_TITLES[decides(content)] if of_multi_label(content) else "balanced accuracy"
    columns = ["Point", "Seeds", f"Validation, {of_validation}", "Chosen"]
    return Table(columns, rows, text_columns=frozenset({0, 3}))


def csv_table(content: ComparisonContent) -> Table:
    """One row for each method and metric, numbers unrounded, empty where there is none."""
    rows = []
    for method, metrics in content["figures"].items():
        for path, metric in metrics.items():
            cells: list[object] = [
                method,
                path,
                len(metric["values"]),
                metric["mean"],
                metric["deviation"],
                *(metric["interval"] or (None, None)),
                *_csv_difference(content, method, path, content["baseline"]),
            ]
            rows.append(["" if cell is None else str(cell) for cell in cells])
    return Table(CSV_COLUMNS, rows)


def beyond_csv_table(content: ComparisonContent) -> Table:
    """One row for each row that was only adjusted, each student's row and metric: their difference."""
    rows = []
    for against in adjusted_references(content):
        differences = differences_against(content, against)
        for method, path in dict.fromkeys((one["method"], one["figure"]) for one in differences):
            cells = [against, method, path, *_csv_difference(content, method, path, against)]
            rows.append(["" if cell is None else str(cell) for cell in cells])
    return Table(["against", "method", "figure", *CSV_COLUMNS[CSV_COLUMNS.index("paired_seeds") :]], rows)


def _csv_difference(content: ComparisonContent, method: str, path: str, against: str) -> list[object]:
    """The cells from `paired_seeds` on."""
    found = differences_of(content, method, path, against)
    by_way = {one["over"]: one for one in found}
    return [
        found[0]["seeds"] if found else None,
        found[0]["difference"] if found else None,
        *_csv_cells(by_way.get(OVER_SEEDS)),
        *_csv_cells(by_way.get(OVER_IMAGES)),
        verdict(found) if found else None,
    ]


def _csv_cells(difference: DifferenceContent | None) -> list[float | None]:
    if difference is None:
        return [None] * 4
    return [*(difference["interval"] or (None, None)), difference["p"], difference["p_corrected"]]


def _interval_and_p(difference: DifferenceContent | None) -> tuple[str, str]:
    if difference is None or difference["interval"] is None:
        return "not known", ""
    low, high = difference["interval"]
    return f"{format_signed(low)} to {format_signed(high)}", _format_p(difference["p_corrected"])


def _format_p(value: float | None) -> str:
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _states(content: ComparisonContent, label: str) -> list[str]:
    """Of a method's row the states of its runs; of a teacher's one for each seed that was tested."""
    method = next((method for method in content["methods"] if label in (method, adjusted_name(method))), None)
    if method is None:
        return [FINISHED] * max(len(metric["values"]) for metric in content["figures"][label].values())
    return [run["state"] for run in content["runs"] if run["method"] == method]


def _finished_seeds(content: ComparisonContent, label: str) -> int:
    """Seeds of which all runs, one for each fold, are finished."""
    of_seed: dict[int, set[str]] = {}
    for run in content["runs"]:
        if label in (run["method"], adjusted_name(run["method"])):
            of_seed.setdefault(run["seed"], set()).add(run["state"])
    if not of_seed:
        return len(_states(content, label))
    return sum(states == {FINISHED} for states in of_seed.values())


def _metric_cell(content: ComparisonContent, label: str, path: str) -> str:
    metric = content["figures"][label][path]
    if metric["mean"] is not None:
        deviation = metric["deviation"]
        return format_metric(metric["mean"]) + ("" if deviation is None else f" ± {format_metric(deviation)}")
    states = _states(content, label)
    if path.startswith("groups.") and FINISHED in states:
        not_in_every_fold = [path] * bool(metric.get("not_in_every_fold"))
        return missing_reason(path, content["class_counts"], not_in_every_fold)
    return _why_unknown(states)


def _seeds_behind(point: PointContent) -> str:
    known, seeds = len(point["validation"]), len({run["seed"] for run in point["runs"]})
    return str(seeds) if known == seeds else f"{known} of {seeds}"


def _validation(point: PointContent) -> str:
    if point["mean"] is None:
        return _why_unknown(run["state"] for run in point["runs"])
    return format_metric(point["mean"])


def _why_unknown(states: Iterable[str]) -> str:
    """What stands in place of a metric that no run has."""
    found = set(states)
    if FINISHED in found or not found:  # none: a stored teacher of whose answers on the test images nobody knows
        return NOT_MEASURED
    return FAILED if FAILED in found else "missing"
