"""`comparison.json`: what the finished runs say together."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from distail.compare.advice import teacher_behind
from distail.compare.content import (
    SCHEMA_VERSION,
    ComparisonContent,
    FoldsContent,
    GridContent,
    MethodRunContent,
    MetricContent,
    PointContent,
    PointRunContent,
    RunContent,
    TeacherRunContent,
    difference_content,
    metric_content,
)
from distail.compare.draws import Draw, by_seed, folds_of, out_of_fold
from distail.compare.metrics import main_metrics, metrics_of
from distail.compare.plan import Job, Plan, Point
from distail.compare.rows import Resampled, Row, method_rows, resample, teacher_rows
from distail.compare.scheduler import State
from distail.compare.selection import ScoredPoint, best, rule_of, score_points, undecided_methods
from distail.compare.summary import statements
from distail.errors import some_of
from distail.evaluation.groups import thirds
from distail.evaluation.metrics import metric_at
from distail.evaluation.run_files import FINISHED, MISSING, RunResult
from distail.evaluation.significance import Difference, corrected, over_images, over_seeds, summarize
from distail.json_values import as_mapping
from distail.methods.preset_table import reconstruction_notes
from distail.outputs import MULTI_LABEL
from distail.training.identity import PART_TITLES

GRID_UNDER_WAY = State(MISSING, "its grid is not finished")


@dataclass(frozen=True)
class ComparedMethod:
    """One method of the comparison.

    Attributes:
        label: the method's own, followed by the chosen point's settings where there is a grid.
        jobs: by draw; while a grid is under way, those of its first point.
        undecided: whether points of its grid are still to be run, so that none is chosen yet.
        results: the content of `result.json` of the finished runs by draw; empty while it is undecided.
    """

    label: str
    jobs: Mapping[Draw, Job]
    undecided: bool
    results: Mapping[Draw, RunResult]

    @property
    def has_no_teacher(self) -> bool:
        return all(job.experiment.teacher is None for job in self.jobs.values())

    @property
    def is_ce(self) -> bool:
        """Whether it is plain cross-entropy, without a teacher and without anything else."""
        return all(job.experiment.method == {"name": "ce"} for job in self.jobs.values())


def comparison_content(plan: Plan, states: Mapping[str, State], *, bootstrap: bool) -> ComparisonContent:
    """The content of `comparison.json`.

    Args:
        plan: all runs.
        states: how each stands, by its job's name.
        bootstrap: whether to draw the test images again (seconds to a minute); done once, at the end.
    """
    scored = score_points(plan, states)
    undecided = undecided_methods(plan, states)
    chosen = {method: None if method in undecided else best(points) for method, points in scored.items()}
    methods = {method: _compared_method(plan, states, method, chosen[method], method in undecided) for method in chosen}
    baseline = methods[plan.baseline]
    compared = list(methods.values())
    results = [result for method in compared for result in method.results.values()]
    notes: list[str] = []
    by_method = {method.label: method_rows(method.label, method.jobs, method.results) for method in compared}
    students = list(itertools.chain(*by_method.values()))
    teachers = teacher_rows(plan, students)
    free = [row for method in compared if method.is_ce for row in by_method[method.label] if row.adjusted]
    free += [row for row in teachers if row.adjusted]
    resampled = resample([*students, *teachers], notes) if bootstrap else None
    multi_label = plan.config.base.data.targets == MULTI_LABEL
    plain = [rows[0] for rows in by_method.values()]
    content: ComparisonContent = {
        "schema_version": SCHEMA_VERSION,
        "name": plan.config.base.name,
        "class_names": results[0]["class_names"] if results else [],
        "class_counts": results[0]["class_counts"] if results else [],
        "subset_sha256": _subset_hashes(compared),
        "seeds": list(plan.config.seeds),
        "methods": [method.label for method in compared],
        "baseline": baseline.label,
        "teachers": plan.config.teachers,
        "runs": _method_runs(plan, states, compared),
        "teacher_runs": _teacher_runs(plan, states),
        "figures": {
            row.label: _figures(row, multi_label, loaded=row.stage == "teacher" and not plan.teachers)
            for row in (*teachers, *students)
        },
        "taus": {row.label: taus for row in (*teachers, *students) if (taus := _nonzero(row.taus()))},
        "differences": [
            difference_content(difference)
            for difference in _differences(plain, by_method[baseline.label][0], multi_label, resampled)
        ],
        "beyond_adjusting": [
            {**difference_content(difference), "against": row.label}
            for row in free
            for difference in _differences(students, row, multi_label, resampled)
        ],
        "grid": _grid(plan, states, scored, chosen) if plan.config.axes else None,
        **_of_folds(plan, compared),
        "statements": [],
    }
    notes += _warnings(compared)
    notes += reconstruction_notes(json.dumps([dict(method) for method in plan.config.methods.values()]))
    alone = [method.label for method in compared if method.has_no_teacher]
    told = statements(content, recommends=plan.config.recommends)
    content["statements"] = [
        *_mixed(compared),
        *told,
        *other_thirds(compared),
        *teacher_behind(content, alone),
        *notes,
    ]
    return content


def _compared_method(
    plan: Plan, states: Mapping[str, State], method: str, chosen: Point | None, undecided: bool
) -> ComparedMethod:
    point = chosen or plan.points[method][0]
    jobs = {draw: plan.runs[point.label, draw] for draw in plan.config.draws}
    results: dict[Draw, RunResult] = {}
    for draw, job in jobs.items():
        result = job.folder.stored_result() if not undecided and states[job.name].state == FINISHED else None
        if result is not None:
            results[draw] = result
    return ComparedMethod(chosen.label if chosen else method, jobs, undecided, results)


def _figures(row: Row, multi_label: bool, *, loaded: bool) -> dict[str, MetricContent]:
    values = {path: row.values(path) for path in metrics_of(multi_label)}
    if loaded:
        # One network serves every seed, whose data round its metrics differently: it has no deviation.
        values = {path: {min(own): fmean(own.values())} if own else {} for path, own in values.items()}
    figures = {path: metric_content(summarize(own)) for path, own in values.items()}
    for path, metric in figures.items():
        if not metric["values"] and row.lacks_folds(path):
            metric["not_in_every_fold"] = True
    return figures


def _nonzero(taus: Mapping[int, float]) -> dict[int, float]:
    return dict(taus) if any(taus.values()) else {}


def _of_folds(plan: Plan, compared: Sequence[ComparedMethod]) -> FoldsContent:
    """What there is to say of folds, if the training data goes into some."""
    folds = folds_of(plan.config.base)
    if folds is None:
        return {}
    found: dict[str, dict[str, MetricContent]] = {}
    for method in compared:
        folders = by_seed({draw: method.jobs[draw].folder for draw in method.results}, plan.config.draws)
        judged = {seed: out_of_fold(own) for seed, own in folders.items()}
        found[method.label] = {
            path: metric_content(
                summarize({seed: value for seed, own in judged.items() if (value := metric_at(own, path)) is not None})
            )
            for path in metrics_of(plan.config.base.data.targets == MULTI_LABEL)
        }
    return {"folds": folds, "out_of_fold": found}


def _subset_hashes(compared: Sequence[ComparedMethod]) -> dict[str, str]:
    hashes: dict[str, str] = {}
    for method in compared:
        for draw, result in method.results.items():
            hashes[draw.key] = result["subset_sha256"]
    return hashes


def _method_runs(plan: Plan, states: Mapping[str, State], compared: Sequence[ComparedMethod]) -> list[MethodRunContent]:
    runs: list[MethodRunContent] = []
    for method in compared:
        for draw, job in method.jobs.items():
            state = GRID_UNDER_WAY if method.undecided else states[job.name]
            runs.append({"method": method.label, **draw.content, **_run_content(plan, job, state)})
    return runs


def _teacher_runs(plan: Plan, states: Mapping[str, State]) -> list[TeacherRunContent]:
    runs: list[TeacherRunContent] = []
    for teacher in plan.teachers:
        run = _run_content(plan, teacher.job, states[teacher.job.name])
        runs.append({**teacher.draw.content, "supervised": teacher.supervised, **run})
    return runs


def _run_content(plan: Plan, job: Job, state: State) -> RunContent:
    result = job.folder.stored_result() if state.state == FINISHED else None
    return {
        "folder": job.experiment.output.relative_to(plan.folder).as_posix(),
        "state": state.state,
        "problem": state.problem,
        "seconds": result["timing"]["student"]["seconds"] if result else None,
    }


def _grid(
    plan: Plan,
    states: Mapping[str, State],
    scored: Mapping[str, Sequence[ScoredPoint]],
    chosen: Mapping[str, Point | None],
) -> GridContent:
    points: list[PointContent] = []
    for method, scored_points in scored.items():
        for scored_point in scored_points:
            point = scored_point.point
            runs: list[PointRunContent] = []
            for draw in plan.config.draws:
                job = plan.runs[point.label, draw]
                runs.append({**draw.content, **_run_content(plan, job, states[job.name])})
            points.append(
                {
                    "method": method,
                    "label": point.label,
                    "settings": dict(point.settings),
                    "runs": runs,
                    "validation": {str(seed): value for seed, value in scored_point.validation.items()},
                    "mean": scored_point.mean,
                    "chosen": chosen[method] == point,
                }
            )
    axes = {key: list(values) for key, values in plan.config.axes.items()}
    return {"axes": axes, "rule": rule_of(plan), "points": points}


def _differences(rows: Sequence[Row], other: Row, multi_label: bool, resampled: Resampled | None) -> list[Difference]:
    """Each of the rows against another one; what is corrected is corrected for all of them together."""
    found: list[Difference | None] = []
    for row in rows:
        if row.label == other.label:
            continue
        for path in metrics_of(multi_label):
            values, others = row.values(path), other.values(path)
            found.append(over_seeds(row.label, path, values, others))
            if resampled is not None:
                draws = resampled.get(path, {})
                own_draws, other_draws = draws.get(row.label, {}), draws.get(other.label, {})
                found.append(over_images(row.label, path, values, others, own_draws, other_draws))
    return corrected([difference for difference in found if difference is not None], main_metrics(multi_label))


def _mixed(compared: Sequence[ComparedMethod]) -> list[str]:
    """Runs of one draw that had other data than the first of them, or another teacher out of the same files."""
    first: dict[object, tuple[str, object]] = {}
    sentences = []
    for method in compared:
        for draw, result in method.results.items():
            identity = {"training_data": result["subset_sha256"], **as_mapping(result.get("identity"))}
            teacher = method.jobs[draw].experiment.teacher
            for part, title in PART_TITLES.items():
                if identity.get(part) is None:  # a student without a teacher, or a run of an earlier version
                    continue
                files = teacher.files if teacher and part == "teacher" else None
                label, value = first.setdefault((draw, part, files), (method.label, identity[part]))
                if value != identity[part]:
                    sentences.append(
                        f"{method.label}, {draw.words}, had {title} than {label}: what sets them apart is partly due "
                        "to that, whatever intervals and verdicts say. Train them again with another --output."
                    )
    return sentences


def other_thirds(compared: Sequence[ComparedMethod]) -> list[str]:
    """That some classes are not in the same third in every run."""
    results = [result for method in compared for result in method.results.values()]
    places: dict[str, set[str]] = {}
    for result in results:
        for third, classes in thirds(result["class_counts"]).items():
            for c in classes:
                places.setdefault(result["class_names"][c], set()).add(third)
    moved = [name for name, own in places.items() if len(own) > 1]
    if not moved:
        return []
    return [
        f"The thirds are not of the same classes in every run, because training examples differ: {some_of(moved)}. "
        "Means over seeds or folds are of each run's own thirds, and their deviations are partly due to that; what is "
        "shown by class has the thirds of the first run."
    ]


def _warnings(compared: Sequence[ComparedMethod]) -> list[str]:
    """In what of the machine the runs differ."""
    warnings = []
    versions: dict[str, set[str]] = {"precision": set(), "torch": set()}
    for method in compared:
        for result in method.results.values():
            for name, found in versions.items():
                found.add(str(as_mapping(result.get("versions")).get(name)))
    for name, found in versions.items():
        if len(found) > 1:
            warnings.append(f"The runs differ in {name}: their differences are partly due to that.")
    return warnings
