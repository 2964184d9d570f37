"""Results as a table: which columns there are, what each cell says, and what the numbers are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from distail.errors import ConfigError, unknown_name
from distail.evaluation.adjustment import adjusted_name, is_adjusted_name
from distail.evaluation.groups import THIRDS_RULE
from distail.evaluation.headline import MAP_RULE, MEAN_AVERAGE_PRECISION
from distail.evaluation.metrics import METRICS, Metric, MetricValues, metric_at
from distail.report.numbers import format_cost
from distail.report.table import Table
from distail.report.views import NOT_MEASURED, RunView, Spread, missing_reason, words_of

if TYPE_CHECKING:
    from rich.console import Console

PROTOCOL = "Percent on the test set, last epoch unless a name says otherwise"
ADJUSTED = (
    "adjusted: logits - tau * log(class prior), after training (prior: class share of the training data), with tau 1 "
    "unless a name says otherwise"
)
MODELS_AS_COLUMNS_UP_TO = 5


@dataclass(frozen=True)
class Row:
    """One line of a table: a run's last epoch, the same adjusted, or its best epoch on validation, named so."""

    name: str
    role: str
    metrics: MetricValues | None
    seconds: float | None = None
    parameters: int | None = None
    macs: int | None = None
    size: int | None = None
    latency: float | None = None
    spreads: Mapping[str, Spread] = field(default_factory=dict)
    class_counts: Sequence[int] = ()
    not_in_every_fold: Collection[str] = ()


@dataclass(frozen=True)
class Column:
    """A title, where the value is found, how it is written, the rule of its grouping, the path of a metric."""

    title: str
    value: Callable[[Row], float | int | None]
    digits: int = 1
    rule: str | None = None
    path: str | None = None


def _metric(metric: Metric) -> Column:
    return Column(metric.title, lambda row: metric_at(row.metrics, metric.path), rule=metric.rule, path=metric.path)


def _divided(value: float | None, by: float) -> float | None:
    return None if value is None else value / by


COLUMNS: dict[str, Column] = {
    **{metric.name: _metric(metric) for metric in METRICS.values()},
    "size": Column("Size, MiB", lambda row: _divided(row.size, 2**20), digits=2),
    "latency": Column("Latency, ms", lambda row: row.latency, digits=2),
    "seconds": Column("Seconds", lambda row: row.seconds, digits=0),
    "parameters": Column("Parameters, millions", lambda row: _divided(row.parameters, 1e6), digits=2),
    "macs": Column("MACs, millions", lambda row: _divided(row.macs, 1e6)),
}
DEFAULT_COLUMNS = tuple(COLUMNS)
_FIRST = ("top1", "mean_average_precision", "balanced_accuracy", "head", "medium", "tail", "size", "latency")
PAGE_COLUMNS = (*_FIRST, *(name for name in COLUMNS if name not in (*_FIRST, "seconds")))
"""Cost beside accuracy; without the seconds of training, which tell above all how busy the machine was."""


def chosen_columns(columns: Sequence[str], runs: Sequence[RunView] = ()) -> list[Column]:
    """The columns of these names, without metrics of other labels than those of the runs.

    Raises:
        ConfigError: a name that is no column.
    """
    for name in columns:
        if name not in COLUMNS:
            raise ConfigError(unknown_name("column", name, COLUMNS))
    multi_label = words_of(runs).multi_label
    chosen = [COLUMNS[name] for name in columns]
    return [one for one in chosen if one.path is None or METRICS[one.path].multi_label in (None, multi_label)]


def table_rows(runs: Sequence[RunView]) -> list[Row]:
    """A row for each run, followed by it adjusted, and by its best epoch on validation, where there are these."""
    rows: list[Row] = []
    for run in runs:
        cost = (run.seconds, run.parameters, run.macs, run.size, run.latency)
        own = f" (tau {', '.join(f'{tau:g}' for tau in run.taus)})" if run.taus else ""
        groups = (run.class_counts, run.not_in_every_fold)
        rows.append(Row(run.name + own, run.role, run.metrics, *cost, run.spreads, *groups))
        if run.adjusted is not None:
            name = adjusted_name(run.name, run.adjusted.tau)
            rows.append(Row(name, run.role, run.adjusted.metrics, *cost, run.adjusted.spreads, *groups))
        best = run.best_on_validation
        if best is not None:
            said = [] if best.epoch is None else [f"epoch {best.epoch + 1}"]
            said += [] if best.tau is None else [f"tau {best.tau:g}"]
            name = f"{run.name}, best on validation" + (f" ({', '.join(said)})" if said else "")
            rows.append(Row(name, run.role, best.metrics, *cost, class_counts=run.class_counts))
    return rows


def cell(row: Row, column: Column) -> str:
    """The text of one cell; a group without classes, or without test images, says so and is never 0."""
    value = column.value(row)
    if value is None:
        group = column.path if column.rule and row.metrics is not None else None
        return missing_reason(group, row.class_counts, row.not_in_every_fold) if group else NOT_MEASURED
    if column.path is None:
        return format_cost(value, column.digits)
    spread = row.spreads.get(column.path)
    std = "" if spread is None or spread.std is None else f" ± {spread.std:.{column.digits}f}"
    return f"{value:,.{column.digits}f}{std}"


def caption(columns: Sequence[str] = DEFAULT_COLUMNS, seeds: int = 0, *, runs: Sequence[RunView] = ()) -> str:
    """What the numbers are and by which rules classes were grouped.

    Args:
        columns: names in `COLUMNS`.
        seeds: how many seeds the numbers are means over, 0 for single runs.
        runs: which are shown, so that the caption says what an adjusted row is, and how latency was measured.
    """
    rules = dict.fromkeys(column.rule for column in chosen_columns(columns, runs) if column.rule)
    means = {0: [], 1: ["one seed, so no standard deviation"]}.get(
        seeds, [f"mean ± sample standard deviation over {seeds} seeds"]
    )
    timed = [_how_timed(runs)] if "latency" in columns and any(run.latency is not None for run in runs) else []
    defined = [MAP_RULE] if MEAN_AVERAGE_PRECISION in columns and words_of(runs).multi_label else []
    adjusted = any(run.adjusted or run.taus or is_adjusted_name(run.name) for run in runs)
    equal = THIRDS_RULE in rules and any(len({*run.class_counts}) == 1 for run in runs)
    by_number = ["all classes have the same number of training images, so that thirds go by the order of the classes"]
    return "; ".join([PROTOCOL, *means, *[ADJUSTED][:adjusted], *defined, *rules, *by_number[:equal], *timed]) + "."


def _how_timed(runs: Sequence[RunView]) -> str:
    known = dict.fromkeys(run.processor or "an unknown processor" for run in runs if run.latency is not None)
    return (
        f"latency: processor time of one image in PyTorch on one thread of {' or '.join(known)}, the median of some "
        "calls when the run ended: equal networks differ by noise alone"
    )


def results_table(
    runs: Sequence[RunView],
    columns: Sequence[str] = DEFAULT_COLUMNS,
    title: str = "",
    *,
    models_as_columns: bool = False,
) -> Table:
    """The results as a table with a row for each model.

    Args:
        runs: the models, in the order they are shown.
        columns: names in `COLUMNS`.
        title: shown above it on the terminal.
        models_as_columns: a column for each model and a row for each metric, which fits a narrow terminal.

    Raises:
        ConfigError: a name that is no column.

    >>> print(results_table([RunView("kd", "student", seconds=12.3)], ["top1", "seconds"]).to_markdown())
    | Model | Role | Top-1 | Seconds |
    |---|---|---:|---:|
    | kd | student | not measured | 12 |
    <BLANKLINE>
    Percent on the test set, last epoch unless a name says otherwise.
    """
    chosen, rows = chosen_columns(columns, runs), table_rows(runs)
    said = caption(columns, runs=runs)
    if models_as_columns:
        models = [row.name if row.name.partition(",")[0] == row.role else f"{row.name} ({row.role})" for row in rows]
        metrics = [[column.title, *(cell(row, column) for row in rows)] for column in chosen]
        return Table(["Metric", *models], metrics, title, said)
    titles = ["Model", "Role", *(column.title for column in chosen)]
    lines = [[row.name, row.role, *(cell(row, column) for column in chosen)] for row in rows]
    return Table(titles, lines, title, said, text_columns=frozenset({0, 1}))


def fitting_table(runs: Sequence[RunView], title: str = "") -> Table:
    """The results as people read them: up to five rows beside each other, more below each other."""
    few = len(table_rows(runs)) <= MODELS_AS_COLUMNS_UP_TO
    return results_table(runs, title=title, models_as_columns=few)


def print_results(runs: Sequence[RunView], title: str, console: Console) -> None:
    """The results on the terminal."""
    fitting_table(runs, title).print(console)
