"""A comparison's folder as a `ReportView`: every method is the mean of its seeds; what is missing is named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distail.errors import CheckpointError, ConfigError
from distail.evaluation.adjustment import adjusted_name
from distail.evaluation.headline import MEAN_AVERAGE_PRECISION, by_class, is_multi_label
from distail.evaluation.metrics import METRICS, MetricValues, metric_at, metric_values
from distail.evaluation.run_files import FAILED, FINISHED, usable_counts
from distail.evaluation.significance import OVER_SEEDS, VERDICTS, Difference, verdict_of
from distail.json_values import as_items, as_mapping, as_mappings, as_number, as_pair, as_text, as_whole, read_json
from distail.report.aggregate import pooled_run, pooled_with_spreads
from distail.report.gallery import joined_samples
from distail.report.read_run import run_view_from_folder
from distail.report.views import Adjusted, ComparisonView, ReportView, RunView, Spread

COMPARISON = "comparison.json"


@dataclass(frozen=True)
class SeedRun:
    """One run of one method, with what its folder holds."""

    method: str
    seed: int
    view: ReportView
    fold: int = 0


def is_comparison(folder: Path) -> bool:
    """Whether the folder holds what `distail compare` writes."""
    return (folder / COMPARISON).is_file() or (folder / "comparison.yaml").is_file()


def comparison_view_from_folder(folder: str | Path) -> ReportView:
    """Read `comparison.json` and the runs that it names.

    Metrics, deviations and intervals are those of `comparison.json`; what it does not hold (recall by class, curves,
    calibration, predictions) comes from the runs' own folders. Failed, missing and damaged runs are named in the view.

    Raises:
        ConfigError: the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {str(folder)!r}; expected a folder written by `distail compare`.")
    problems: list[str] = []
    content = _read_content(folder, problems)
    class_counts, class_names = _read_classes(content, problems)
    runs = _read_runs(folder, content, len(class_counts), problems)
    first = runs[0].view if runs else None
    models = _read_teachers(folder, content, runs)
    for label in as_items(content.get("methods")):
        if isinstance(label, str):
            models.append(_read_method(label, [run for run in runs if run.method == label], content))
    biases = [run.view.bias for run in runs if run.view.bias is not None]
    one_run = len(as_items(content.get("seeds"))) == 1 and not as_whole(content.get("folds"))
    notes: list[str] = []
    for run in runs:
        for note in run.view.notes:
            said = note if all(note in each.view.notes for each in runs) else f"{run.method}: {note}"
            notes += [said] if said not in notes else []
    return ReportView(
        title=as_text(content.get("name")) or folder.resolve().name,
        runs=models,
        class_names=class_names,
        class_counts=class_counts,
        config=_read_config(folder, first),
        versions=first.versions if first else {},
        subset_sha256=_one_hash(content),
        # Of several teachers no sentence can speak.
        bias=biases[0] if biases and one_run and content.get("teachers") == "shared" else None,
        notes=notes,
        problems=problems,
        comparison=_read_comparison(content),
        test_labels=first.test_labels if first else (),
        samples=joined_samples([run.view for run in runs]),
    )


def _read_content(folder: Path, problems: list[str]) -> Mapping[str, object]:
    path = folder / COMPARISON
    if not path.is_file():
        problems.append(f"This comparison has no finished run yet: there is no {COMPARISON}.")
        return {}
    try:
        return read_json(path)
    except CheckpointError as error:
        problems.append(f"{error}: there is nothing to compare.")
        return {}


def _read_classes(content: Mapping[str, object], problems: list[str]) -> tuple[list[int], list[str]]:
    """The training images and the name of each class; none where they are not known."""
    counts = as_items(content.get("class_counts")) if usable_counts(content.get("class_counts")) else []
    if content and not counts:
        problems.append(f"{COMPARISON} names no usable class_counts: nothing can be shown by class.")
    names = as_items(content.get("class_names"))
    if len(names) != len(counts):
        names = [f"class {c}" for c in range(len(counts))]
    return counts, [str(name) for name in names]


def _read_runs(folder: Path, content: Mapping[str, object], classes: int, problems: list[str]) -> list[SeedRun]:
    """The finished runs that can be shown by class, in the order of their seeds."""
    runs: list[SeedRun] = []
    for entry in as_mappings(content.get("runs")):
        method, seed = as_text(entry.get("method")), as_whole(entry.get("seed")) or 0
        if method is None or entry.get("state") != FINISHED:
            continue
        name, where = f"{method}, {_draw(entry)}", as_text(entry.get("folder")) or ""
        if not where or not (folder / where).is_dir():
            problems.append(
                f"{name}: its folder {where!r} is not there; its metrics come from {COMPARISON}, and "
                "classes, curves and predictions are left out."
            )
            continue
        view = run_view_from_folder(folder / where)
        problems += [f"{name}: {problem}" for problem in view.problems]
        # Runs of other classes cannot be averaged with the rest.
        if view.class_counts and len(view.class_counts) != classes:
            problems.append(
                f"{name}: its run has {len(view.class_counts)} classes, the comparison {classes}; it is left out by "
                "class."
            )
        elif view.class_counts:
            runs.append(SeedRun(method, seed, view, as_whole(entry.get("fold")) or 0))
    return sorted(runs, key=lambda run: (run.seed, run.fold))


def _read_method(label: str, runs: Sequence[SeedRun], content: Mapping[str, object]) -> RunView:
    """The mean of a method's runs; metrics, spreads and seeds are those of the comparison where it has them."""
    students = [student for run in runs for student in run.view.runs if student.role == "student"]
    pooled = pooled_run(label, "student", [run.seed for run in runs], students)
    metrics, spreads = _compared_metrics(content, label, pooled.metrics)
    seeds = set(pooled.seeds)
    for metric in as_mapping(as_mapping(content.get("figures")).get(label)).values():
        seeds |= {int(seed) for seed in as_mapping(as_mapping(metric).get("values")) if str(seed).isdigit()}
    taus = as_mapping(as_mapping(content.get("taus")).get(label)).values()
    pooled = replace(
        pooled,
        metrics=metrics,
        spreads=spreads,
        seeds=tuple(sorted(seeds)),
        taus=sorted({tau for tau in map(as_number, taus) if tau is not None}),
        not_in_every_fold=_not_in_every_fold(content, label),
    )
    return _with_adjusted(pooled, content)


def _with_adjusted(run: RunView, content: Mapping[str, object]) -> RunView:
    """With the row that the comparison has of it adjusted; without one, as its runs have it."""
    own = run.adjusted
    metrics, spreads = _compared_metrics(content, adjusted_name(run.name), own.metrics if own else None)
    return run if metrics is None else replace(run, adjusted=Adjusted(metrics, spreads or (own.spreads if own else {})))


def _compared_metrics(
    content: Mapping[str, object], label: str, own: MetricValues | None
) -> tuple[MetricValues | None, dict[str, Spread]]:
    """A row's metrics and spreads as the comparison has them; the metrics that it lacks are a run's own."""
    compared = as_mapping(as_mapping(content.get("figures")).get(label))
    lacking = _not_in_every_fold(content, label)
    by_path = {path: None if path in lacking else metric_at(own, path) for path in METRICS}
    spreads: dict[str, Spread] = {}
    for path in METRICS:
        metric = as_mapping(compared.get(path))
        mean = as_number(metric.get("mean"))
        if mean is not None:
            by_path[path] = mean
            spreads[path] = Spread(as_number(metric.get("deviation")), as_pair(metric.get("interval")))
    measured = any(value is not None for value in by_path.values())
    multi_label = MEAN_AVERAGE_PRECISION in compared or (own is not None and is_multi_label(own))
    per_class = by_class(own) if own is not None else None
    return (metric_values(by_path, per_class, multi_label=multi_label) if measured else None), spreads


def _not_in_every_fold(content: Mapping[str, object], label: str) -> frozenset[str]:
    compared = as_mapping(as_mapping(content.get("figures")).get(label))
    return frozenset(path for path, metric in compared.items() if as_mapping(metric).get("not_in_every_fold"))


def _read_teachers(folder: Path, content: Mapping[str, object], runs: Sequence[SeedRun]) -> list[RunView]:
    """Each kind of teacher once: from its own run where it was trained, else as the students' runs measured it."""
    by_kind: dict[str, dict[tuple[int, int], RunView]] = {}
    for entry in as_mappings(content.get("teacher_runs")):
        where, draw = as_text(entry.get("folder")), (as_whole(entry.get("seed")) or 0, as_whole(entry.get("fold")) or 0)
        if where and (folder / where).is_dir():
            for run in run_view_from_folder(folder / where).runs:
                if run.role == "student" and run.metrics is not None:
                    by_kind.setdefault(str(entry.get("supervised")), {})[draw] = run
    if not by_kind:
        for seed_run in runs:
            for run in seed_run.view.runs:
                if run.role == "teacher" and run.metrics is not None:
                    by_kind.setdefault("", {}).setdefault((seed_run.seed, seed_run.fold), run)
    teachers = []
    for kind, by_draw in by_kind.items():
        seeds, views = [seed for seed, _ in by_draw], list(by_draw.values())
        # One loaded teacher serves every seed: shown once, without a deviation that it cannot have.
        if not as_items(content.get("teacher_runs")):
            seeds, views = seeds[:1], views[:1]
        name = "teacher" if len(by_kind) == 1 else f"teacher ({kind})"
        pooled = pooled_with_spreads(name, "teacher", seeds, views)
        if as_whole(content.get("folds")):  # a figure is of a seed, not of each of its folds
            metrics, spreads = _compared_metrics(content, name, pooled.metrics)
            pooled = replace(
                pooled,
                metrics=metrics,
                spreads=spreads,
                seeds=tuple(sorted(set(seeds))),
                not_in_every_fold=_not_in_every_fold(content, name),
            )
        teachers.append(_with_adjusted(pooled, content))
    return teachers


def _read_comparison(content: Mapping[str, object]) -> ComparisonView:
    seeds = tuple(seed for seed in as_items(content.get("seeds")) if as_whole(seed) is not None)
    beyond: dict[str, list[Mapping[str, object]]] = {}
    for entry in as_mappings(content.get("beyond_adjusting")):
        if (against := as_text(entry.get("against"))) is not None:
            beyond.setdefault(against, []).append(entry)
    families = {against: _read_differences(entries, len(seeds)) for against, entries in beyond.items()}
    missing = []
    for entry in as_mappings(content.get("runs")):
        if as_text(entry.get("method")) is None or entry.get("state") == FINISHED:
            continue
        failed = f"failed ({entry.get('problem') or 'no reason was recorded'})"
        state = failed if entry.get("state") == FAILED else "not run"
        missing.append(f"{entry['method']}, {_draw(entry)}: {state}")
    return ComparisonView(
        baseline=as_text(content.get("baseline")) or "",
        seeds=seeds,
        teachers=as_text(content.get("teachers")) or "shared",
        differences=_read_differences(as_mappings(content.get("differences")), len(seeds)),
        beyond_adjusting={against: family for against, family in families.items() if family},
        statements=[line for line in as_items(content.get("statements")) if isinstance(line, str)],
        missing=missing,
    )


def _draw(entry: Mapping[str, object]) -> str:
    fold = as_whole(entry.get("fold"))
    return f"seed {entry.get('seed')}" + ("" if fold is None else f", fold {fold}")


def _read_differences(entries: Iterable[Mapping[str, object]], seeds: int) -> list[Difference]:
    """Those that are corrected together; the verdicts of a file of an earlier version follow from the rest of it."""
    found = [one for entry in entries if (one := _read_difference(entry, seeds)) is not None]
    tests = sum(one.over == OVER_SEEDS and one.p_corrected is not None for one in found)
    return [one if one.verdict in VERDICTS else replace(one, verdict=verdict_of(one, tests)) for one in found]


def _read_difference(entry: Mapping[str, object], seeds: int) -> Difference | None:
    method, metric = as_text(entry.get("method")), as_text(entry.get("figure"))
    difference = as_number(entry.get("difference"))
    if method is None or metric is None or difference is None:
        return None
    return Difference(
        method=method,
        metric=metric,
        difference=difference,
        interval=as_pair(entry.get("interval")),
        p=as_number(entry.get("p")),
        p_corrected=as_number(entry.get("p_corrected")),
        over=as_text(entry.get("over")) or "seeds",
        inside_noise=bool(entry.get("inside_noise")),
        seeds=as_whole(entry.get("seeds")) or seeds,
        verdict=as_text(entry.get("verdict")) or "",
    )


def _read_config(folder: Path, first: ReportView | None) -> str:
    try:
        return (folder / "comparison.yaml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return first.config if first else ""


def _one_hash(content: Mapping[str, object]) -> str | None:
    """The hash of the training images where all seeds share it."""
    hashes = {value for value in as_mapping(content.get("subset_sha256")).values() if isinstance(value, str)}
    return hashes.pop() if len(hashes) == 1 else None
