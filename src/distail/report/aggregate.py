"""Several seeds of one model as one: means of what was measured, and how far it spreads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median, stdev
from typing import TypeVar, cast

from distail.evaluation.calibration import ReliabilityBin
from distail.evaluation.metrics import METRICS, metric_at
from distail.evaluation.run_files import EpochRow
from distail.json_values import as_mapping
from distail.report.views import Adjusted, Role, RunView, Spread

T = TypeVar("T")


def pooled_run(name: str, role: Role, seeds: Sequence[int], runs: Sequence[RunView]) -> RunView:
    """One view of several seeds of one model; metrics and curves are means, bins hold all seeds' images."""
    measured = [run for run in runs if run.metrics is not None]
    seconds = [run.seconds for run in measured if run.seconds is not None]
    latencies = [run.latency for run in measured if run.latency is not None]
    first = measured[0] if measured else RunView(name, role)
    return RunView(
        name=name,
        role=role,
        metrics=mean_tree([run.metrics for run in measured]),
        seconds=math.fsum(seconds) / len(seconds) if seconds else None,
        parameters=first.parameters,
        macs=first.macs,
        size=first.size,
        latency=median(latencies) if latencies else None,
        processor=" or ".join(dict.fromkeys(run.processor for run in measured if run.processor)) or None,
        history=mean_history([run.history for run in runs]),
        reliability=pooled_bins([run.reliability for run in measured if run.reliability]),
        seeds=tuple(seeds),
        predicted=first.predicted,
        error_flow=mean_tree([run.error_flow for run in measured]),
        tail_errors=mean_tree([run.tail_errors for run in measured if run.tail_errors]) or (),
        class_counts=first.class_counts,
        adjusted=pooled_adjusted([run.adjusted for run in measured if run.adjusted is not None]),
    )


def pooled_adjusted(runs: Sequence[Adjusted]) -> Adjusted | None:
    """The same of the seeds' adjusted logits; None where no seed has them, or where they differ in tau."""
    metrics = mean_tree([run.metrics for run in runs])
    if metrics is None or len({run.tau for run in runs}) > 1:
        return None
    spreads = {path: spread_of([metric_at(run.metrics, path) for run in runs]) for path in METRICS}
    return Adjusted(metrics, spreads, runs[0].tau)


def pooled_with_spreads(name: str, role: Role, seeds: Sequence[int], runs: Sequence[RunView]) -> RunView:
    """`pooled_run`, with how far every metric spreads over the seeds."""
    spreads = {path: spread_of([metric_at(run.metrics, path) for run in runs]) for path in METRICS}
    return replace(pooled_run(name, role, seeds, runs), spreads=spreads)


def mean_tree(trees: Sequence[T | None]) -> T | None:
    """The mean of equally built nested numbers: mappings by key, lists by position, numbers over what is known.

    >>> mean_tree([{"top1": 40.0, "by_class": [10.0, None]}, {"top1": 42.0, "by_class": [20.0, None]}])
    {'top1': 41.0, 'by_class': [15.0, None]}
    """
    return cast(T | None, _mean_tree(trees))


def _mean_tree(trees: Sequence[object]) -> object:
    known = [tree for tree in trees if tree is not None]
    if not known:
        return None
    mappings = [tree for tree in known if isinstance(tree, Mapping)]
    if len(mappings) == len(known):
        return {key: _mean_tree([tree.get(key) for tree in mappings]) for key in mappings[0]}
    lists = [tree for tree in known if isinstance(tree, list | tuple)]
    if len(lists) == len(known):
        return [_mean_tree(values) for values in zip(*lists, strict=False)]
    numbers = [tree for tree in known if isinstance(tree, int | float) and not isinstance(tree, bool)]
    return math.fsum(numbers) / len(numbers) if len(numbers) == len(known) else known[0]


def mean_history(histories: Sequence[Sequence[EpochRow]]) -> list[EpochRow]:
    """Epoch by epoch the mean over the runs that reached it."""
    rows: dict[int, list[EpochRow]] = {}
    for history in histories:
        for row in history:
            rows.setdefault(row["epoch"], []).append(row)
    return [cast(EpochRow, {**as_mapping(_mean_tree(rows[epoch])), "epoch": epoch}) for epoch in sorted(rows)]


def pooled_bins(reliabilities: Sequence[Sequence[ReliabilityBin]]) -> tuple[ReliabilityBin, ...]:
    """Bins of equal edges with the images of all seeds."""
    return tuple(_pooled_bin(bins) for bins in zip(*reliabilities, strict=False))


def _pooled_bin(bins: Sequence[ReliabilityBin]) -> ReliabilityBin:
    total = sum(item.count for item in bins)

    def mean(values: Sequence[float | None]) -> float | None:
        weighted = [item.count * value for item, value in zip(bins, values, strict=True) if value is not None]
        return math.fsum(weighted) / total if total else None

    return ReliabilityBin(
        lower=bins[0].lower,
        upper=bins[0].upper,
        count=total,
        confidence=mean([item.confidence for item in bins]),
        accuracy=mean([item.accuracy for item in bins]),
    )


def spread_of(values: Sequence[float | None]) -> Spread:
    """The sample standard deviation of one metric over seeds; with one seed there is none."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Spread()
    return Spread(stdev(known))
