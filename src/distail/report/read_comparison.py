"""A comparison's folder as a `ReportView`: every method is the mean of its seeds; what is missing is named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import stdev
from typing import Any, TypeVar, cast

from distail.errors import CheckpointError, ConfigError
from distail.evaluation.calibration import ReliabilityBin
from distail.evaluation.metrics import METRICS, metric_at, metric_values
from distail.evaluation.run_files import FAILED, FINISHED, EpochRow, usable_counts
from distail.evaluation.significance import Difference
from distail.json_values import as_items, as_mapping, as_mappings, as_number, as_pair, as_text, as_whole, read_json
from distail.report.gallery import joined_samples
from distail.report.read_run import run_view_from_folder
from distail.report.views import ComparisonView, ReportView, Role, RunView, Spread

COMPARISON = "comparison.json"
T = TypeVar("T")


def pooled_run(name: str, role: Role, seeds: Sequence[int], runs: Sequence[RunView]) -> RunView:
    """One view of several seeds of one model; figures, times and curves are means, bins hold all seeds' images."""
    measured = [run for run in runs if run.figures is not None]
    seconds = [run.seconds for run in measured if run.seconds is not None]
    first = measured[0] if measured else RunView(name, role)
    return RunView(
        name=name,
        role=role,
        figures=mean_tree([run.figures for run in measured]),
        seconds=math.fsum(seconds) / len(seconds) if seconds else None,
        parameters=first.parameters,
        macs=first.macs,
        history=mean_history([run.history for run in runs]),
        reliability=pooled_bins([run.reliability for run in measured if run.reliability]),
        seeds=tuple(seeds),
        predicted=first.predicted,
        error_flow=mean_tree([run.error_flow for run in measured]),
        tail_errors=mean_tree([run.tail_errors for run in measured if run.tail_errors]) or (),
        class_counts=first.class_counts,
    )


def pooled_with_spreads(name: str, role: Role, seeds: Sequence[int], runs: Sequence[RunView]) -> RunView:
    """`pooled_run`, with the deviation over the seeds of every figure that a table shows."""
    spreads = {path: spread_of([metric_at(run.figures, path) for run in runs]) for path in METRICS}
    return replace(pooled_run(name, role, seeds, runs), spreads=spreads)


def mean_tree(trees: Sequence[T | None]) -> T | None:
    """The mean of equally built nested numbers: mappings by key, lists by position, numbers over what is known.

    >>> mean_tree([{"top1": 40.0, "by_class": [10.0, None]}, {"top1": 42.0, "by_class": [20.0, None]}])
    {'top1': 41.0, 'by_class': [15.0, None]}
    """
    return cast(T | None, _mean_tree(trees))


def _mean_tree(trees: Sequence[Any]) -> Any:
    known = [tree for tree in trees if tree is not None]
    if not known:
        return None
    if all(isinstance(tree, Mapping) for tree in known):
        return {key: _mean_tree([tree.get(key) for tree in known]) for key in known[0]}
    if all(isinstance(tree, list | tuple) for tree in known):
        return [_mean_tree(values) for values in zip(*known, strict=False)]
    numbers = [tree for tree in known if isinstance(tree, int | float) and not isinstance(tree, bool)]
    return math.fsum(numbers) / len(numbers) if len(numbers) == len(known) else known[0]


def mean_history(histories: Sequence[Sequence[EpochRow]]) -> list[EpochRow]:
    """Epoch by epoch the mean over the runs that reached it."""
    rows: dict[int, list[EpochRow]] = {}
    for history in histories:
        for row in history:
            rows.setdefault(row["epoch"], []).append(row)
    return [cast(EpochRow, {**_mean_tree(rows[epoch]), "epoch": epoch}) for epoch in sorted(rows)]


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


@dataclass(frozen=True)
class _Seed:
    """One run of one method, with what its folder holds."""

    method: str
    seed: int
    folder: str
    view: ReportView


def is_comparison(folder: Path) -> bool:
    """Whether the folder holds what `distail compare` writes."""
    return (folder / COMPARISON).is_file() or (folder / "comparison.yaml").is_file()


def comparison_view_from_folder(folder: str | Path) -> ReportView:
    """Read `comparison.json` and the runs that it names.

    Figures, deviations and intervals are those of `comparison.json`; what it does not hold (recall by class, curves,
    calibration, predictions) comes from the runs' own folders. Failed, missing and damaged runs are named in the view.

    Raises:
        ConfigError: the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {str(folder)!r}; expected the folder that `distail compare` left.")
    problems: list[str] = []
    stored = _stored(folder, problems)
    counts = as_items(stored.get("class_counts")) if usable_counts(stored.get("class_counts")) else []
    if stored and not counts:
        problems.append(f"{COMPARISON} names no usable class_counts: nothing can be shown by class.")
    names = stored.get("class_names")
    if not isinstance(names, list) or len(names) != len(counts):
        names = [f"class {c}" for c in range(len(counts))]
    entries = [run for run in as_mappings(stored.get("runs")) if as_text(run.get("method")) is not None]
    seeds = [_read_seed(folder, run, problems) for run in entries if run.get("state") == FINISHED]
    read = [seed for seed in seeds if _fits(seed, counts, problems)]
    labels = [label for label in as_items(stored.get("methods")) if isinstance(label, str)]
    read.sort(key=lambda seed: seed.seed)
    methods = [_method(label, [seed for seed in read if seed.method == label], stored) for label in labels]
    first = read[0].view if read else None
    return ReportView(
        title=as_text(stored.get("name")) or folder.resolve().name,
        runs=[*_teachers(folder, stored, read), *methods],
        class_names=[str(name) for name in names],
        class_counts=counts,
        config=_config(folder, first),
        versions=first.versions if first else {},
        subset_sha256=_hash(stored),
        bias=next((seed.view.bias for seed in read if seed.view.bias), None) if _one_teacher(stored) else None,
        notes=list(dict.fromkeys(note for seed in read for note in seed.view.notes)),
        problems=problems,
        comparison=_comparison(stored, entries),
        test_labels=first.test_labels if first else (),
        samples=joined_samples([seed.view for seed in read]),
    )


def _stored(folder: Path, problems: list[str]) -> Mapping[str, Any]:
    path = folder / COMPARISON
    if not path.is_file():
        problems.append(f"This comparison has no finished run yet: there is no {COMPARISON}.")
        return {}
    try:
        return read_json(path)
    except CheckpointError as error:
        problems.append(f"{error}: there is nothing to compare.")
        return {}


def _read_seed(folder: Path, run: Mapping[str, Any], problems: list[str]) -> _Seed:
    method, seed, where = str(run["method"]), as_whole(run.get("seed")) or 0, as_text(run.get("folder")) or ""
    path = folder / where
    if not where or not path.is_dir():
        problems.append(
            f"{method}, seed {seed}: its folder {where!r} is not there; its figures come from {COMPARISON}, and "
            "classes, curves and predictions are left out."
        )
        return _Seed(method, seed, where, ReportView(title=method))
    view = run_view_from_folder(path)
    problems += [f"{method}, seed {seed}: {problem}" for problem in view.problems]
    return _Seed(method, seed, where, view)


def _fits(seed: _Seed, counts: Sequence[int], problems: list[str]) -> bool:
    """Whether a run has the comparison's classes; one of other classes cannot be averaged with the rest."""
    if not seed.view.class_counts:
        return False
    if len(seed.view.class_counts) == len(counts):
        return True
    problems.append(
        f"{seed.method}, seed {seed.seed}: its run has {len(seed.view.class_counts)} classes, the comparison "
        f"{len(counts)}; it is left out by class."
    )
    return False


def _method(label: str, seeds: Sequence[_Seed], stored: Mapping[str, Any]) -> RunView:
    runs = [run for seed in seeds for run in seed.view.runs if run.role == "student"]
    pooled = pooled_run(label, "student", [seed.seed for seed in seeds], runs)
    known = as_mapping(as_mapping(stored.get("figures")).get(label))
    by_path = {path: metric_at(pooled.figures, path) for path in METRICS}
    spreads: dict[str, Spread] = {}
    for path in METRICS:
        summary = as_mapping(known.get(path))
        mean = as_number(summary.get("mean"))
        if mean is not None:
            by_path[path] = mean
            spreads[path] = Spread(as_number(summary.get("deviation")), as_pair(summary.get("interval")))
    recalls = None if pooled.figures is None else pooled.figures.get("per_class_recall")
    told = {whole_seed for summary in known.values() for whole_seed in as_mapping(as_mapping(summary).get("values"))}
    return replace(
        pooled,
        figures=metric_values(by_path, recalls) if any(value is not None for value in by_path.values()) else None,
        spreads=spreads,
        seeds=tuple(sorted({*pooled.seeds, *(int(seed) for seed in told if str(seed).isdigit())})),
    )


def _teachers(folder: Path, stored: Mapping[str, Any], read: Sequence[_Seed]) -> list[RunView]:
    """Each kind of teacher once: from its own run where it was trained, else as the students' runs measured it."""
    kinds: dict[str, list[tuple[int, RunView]]] = {}
    for entry in as_mappings(stored.get("teacher_runs")):
        where, seed = as_text(entry.get("folder")), as_whole(entry.get("seed")) or 0
        if where and (folder / where).is_dir():
            own = [run for run in run_view_from_folder(folder / where).runs if run.role == "student"]
            kinds.setdefault(str(entry.get("supervised")), []).extend((seed, run) for run in own if run.figures)
    if not any(kinds.values()):
        seen: dict[int, RunView] = {}
        for one in read:
            for run in one.view.runs:
                if run.role == "teacher" and run.figures is not None:
                    seen.setdefault(one.seed, run)
        kinds = {"": sorted(seen.items())}
    found = {kind: _distinct(pairs) for kind, pairs in kinds.items() if pairs}
    names = {kind: "teacher" if len(found) == 1 else f"teacher ({kind})" for kind in found}
    return [
        pooled_with_spreads(names[kind], "teacher", [seed for seed, _ in pairs], [run for _, run in pairs])
        for kind, pairs in found.items()
    ]


def _distinct(pairs: Sequence[tuple[int, RunView]]) -> Sequence[tuple[int, RunView]]:
    """One loaded teacher serves every seed: shown once, without a deviation that it cannot have."""
    return pairs[:1] if all(run.figures == pairs[0][1].figures for _, run in pairs) else pairs


def _comparison(stored: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> ComparisonView:
    return ComparisonView(
        baseline=as_text(stored.get("baseline")) or "",
        seeds=tuple(seed for seed in as_items(stored.get("seeds")) if as_whole(seed) is not None),
        teachers=as_text(stored.get("teachers")) or "shared",
        differences=[found for entry in as_mappings(stored.get("differences")) if (found := _difference(entry))],
        statements=[line for line in as_items(stored.get("statements")) if isinstance(line, str)],
        missing=[
            f"{entry['method']}, seed {entry.get('seed')}: "
            + (
                f"failed ({entry.get('problem') or 'no reason was kept'})"
                if entry.get("state") == FAILED
                else "not run"
            )
            for entry in entries
            if entry.get("state") != FINISHED
        ],
    )


def _difference(entry: Mapping[str, Any]) -> Difference | None:
    method, name, value = as_text(entry.get("method")), as_text(entry.get("figure")), as_number(entry.get("difference"))
    if method is None or name is None or value is None:
        return None
    return Difference(
        method=method,
        metric=name,
        difference=value,
        interval=as_pair(entry.get("interval")),
        p=as_number(entry.get("p")),
        p_corrected=as_number(entry.get("p_corrected")),
        over=as_text(entry.get("over")) or "seeds",
        inside_noise=bool(entry.get("inside_noise")),
    )


def _config(folder: Path, first: ReportView | None) -> str:
    try:
        return (folder / "comparison.yaml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return first.config if first else ""


def _hash(stored: Mapping[str, Any]) -> str | None:
    hashes = {value for value in as_mapping(stored.get("subset_sha256")).values() if isinstance(value, str)}
    return hashes.pop() if len(hashes) == 1 else None


def _one_teacher(stored: Mapping[str, Any]) -> bool:
    return stored.get("teachers") == "shared" and len(as_items(stored.get("seeds"))) == 1
