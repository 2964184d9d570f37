"""From what was asked to the runs it takes: every teacher once a seed, every student after its teacher."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from distail.compare.arguments import folder_name
from distail.config.reading import apply_overrides
from distail.config.schema import Experiment
from distail.errors import DistailError
from distail.methods.composition import TERM_WEIGHTS
from distail.methods.method import Method, Terms
from distail.outputs import Outputs
from distail.runner.checks import build_method, needs_teacher, problems_of, teacher_model
from distail.runner.run_folder import RunFolder

# Every method takes these settings; without the term that each is for, it does not use them.
TERM_OF = {
    "method.temperature": "distillation",
    **{f"method.{weight}": weight.removesuffix("_weight") for weight in TERM_WEIGHTS},
}
Teachers = Literal["shared", "own"]
DEFAULT_BASELINE = "kd"


@dataclass(frozen=True)
class Point:
    """One method with one choice of settings.

    Attributes:
        label: the method's label, followed by the settings: "kd temperature=2".
        raw: the experiment's mapping, but for name, seed and output.
    """

    method: str
    label: str
    settings: Mapping[str, Any]
    raw: Mapping[str, Any]


def points_of(
    base: Experiment, methods: Mapping[str, Mapping[str, Any]], axes: Mapping[str, Sequence[Any]]
) -> tuple[dict[str, list[Point]], list[str]]:
    """The points of each method, and what is wrong with the grid.

    A method spans only the axes that it takes, as it is given, without the others: `ce` has no temperature, so it runs
    once. An axis that no method takes is a problem.
    """
    taken = {label: _taken_axes(base, method, axes) for label, method in methods.items()}
    problems = [
        f"--grid: no method takes {key}={', '.join(map(str, values))}: {_why_not(base, methods, key, values)}"
        for key, values in axes.items()
        if not any(key in own for own in taken.values())
    ]
    points = {}
    for label, method in methods.items():
        own = taken[label]
        points[label] = [
            _point(base, label, method, dict(zip(own, choice, strict=True)))
            for choice in itertools.product(*(axes[key] for key in own))
        ]
    return points, problems


def _point(base: Experiment, label: str, method: Mapping[str, Any], settings: Mapping[str, Any]) -> Point:
    words = [f"{key.partition('.')[2]}={_shown(value)}" for key, value in settings.items()]
    return Point(label, " ".join([label, *words]), settings, _raw(base, method, settings))


def _raw(base: Experiment, method: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    raw = {**base.model_dump(mode="json"), "method": dict(method)}
    return apply_overrides(raw, [f"{key}={json.dumps(value)}" for key, value in settings.items()])


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace('"', "")


def _taken_axes(base: Experiment, method: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> list[str]:
    return [key for key, values in axes.items() if any(_takes(base, method, key, value) is None for value in values)]


def _why_not(base: Experiment, methods: Mapping[str, Mapping[str, Any]], key: str, values: Sequence[Any]) -> str:
    reasons = (_takes(base, method, key, value) for method in methods.values() for value in values)
    return next(reason for reason in reasons if reason is not None)


def _takes(base: Experiment, method: Mapping[str, Any], key: str, value: Any) -> str | None:
    """None where the method takes this value, else why not; what is not the method's is taken by every one."""
    if not key.startswith("method."):
        return None
    try:
        experiment = base.model_copy(update={"method": _raw(base, method, {key: value})["method"]})
        built = build_method(experiment, [2, 1], 8, 8)
        unused = key in TERM_OF and TERM_OF[key] not in _terms(built)
    except DistailError as error:
        return str(error)
    return f"{built.name} has no {TERM_OF[key]} term" if unused else None


def _terms(method: Method) -> Terms:
    """What the method answers for two images: only its entries know which terms they bring."""
    outputs, label_B = Outputs(torch.zeros(2, 2), torch.eye(2, 8)), torch.arange(2)
    method.prepare([(outputs, label_B)])
    terms: Terms = method.eval()(outputs, outputs, label_B, index=label_B)
    return terms


@dataclass(frozen=True)
class ComparisonConfig:
    """What a comparison was asked for, read but not yet checked."""

    base: Experiment
    methods: Mapping[str, Mapping[str, Any]]
    seeds: Sequence[int]
    teachers: Teachers = "shared"
    baseline: str | None = None
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    output: Path | None = None

    @property
    def folder(self) -> Path:
        """By default one folder for shared teachers and one for own ones: the two are reported separately."""
        suffix = "" if self.teachers == "shared" else "-own-teachers"
        return self.output or Path("comparisons") / f"{self.base.name}{suffix}"


@dataclass(frozen=True)
class Job:
    """One run: its name, also that of its log, and what it waits for."""

    name: str
    experiment: Experiment
    after: str | None = None

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.experiment.output)


@dataclass(frozen=True)
class TeacherRun:
    """A teacher of one seed."""

    supervised: str
    seed: int
    job: Job


@dataclass(frozen=True)
class Plan:
    """All runs of a comparison.

    Attributes:
        points: label of a method to its grid points; one without a grid.
        teachers: each trained once; empty where a checkpoint is given or no method listens to a teacher.
        runs: (point's label, seed) to the student's run.
    """

    asked: ComparisonConfig
    baseline: str
    points: Mapping[str, Sequence[Point]]
    teachers: Sequence[TeacherRun]
    runs: Mapping[tuple[str, int], Job]

    @property
    def folder(self) -> Path:
        return self.asked.folder

    @property
    def jobs(self) -> list[Job]:
        """Teachers first: most other runs wait for them."""
        return [*(teacher.job for teacher in self.teachers), *self.runs.values()]


def make_plan(asked: ComparisonConfig) -> tuple[Plan, list[str]]:
    """The plan, and everything that can be known to be wrong with it before any work."""
    problems: list[str] = []
    points, grid_problems = points_of(asked.base, asked.methods, asked.axes)
    problems += grid_problems
    if asked.axes and not asked.base.data.validation:
        problems.append(
            "--grid chooses on a validation split, but data.validation is 0, and the test set must not choose; "
            "give one, such as data.validation=0.1"
        )
    baseline = asked.baseline or (DEFAULT_BASELINE if DEFAULT_BASELINE in asked.methods else next(iter(points)))
    if baseline not in asked.methods:
        problems.append(f"--baseline: {baseline!r} is not among the methods: {', '.join(asked.methods)}")
    if asked.teachers == "own" and asked.base.teacher is not None and asked.base.teacher.checkpoint is not None:
        problems.append("--teachers own trains a teacher for each method; teacher.checkpoint gives them all one")
    teachers: dict[tuple[str, int], TeacherRun] = {}
    runs: dict[tuple[str, int], Job] = {}
    found: dict[str, list[str]] = {}
    for several in points.values():
        for point in several:
            try:
                own = [_Run(asked, point, seed) for seed in asked.seeds]
                # Seeds differ in nothing that could be wrong.
                wrong = problems_of(own[0].experiment)
            except DistailError as error:
                own, wrong = [], list(error.problems)
            for problem in wrong:
                found.setdefault(problem, []).append(point.label)
            for run in own if not wrong else []:
                teacher = run.teacher()
                if teacher is not None:
                    teacher = teachers.setdefault((teacher.supervised, run.seed), teacher)
                runs[point.label, run.seed] = run.job(teacher)
    everywhere = sum(len(several) for several in points.values())
    for problem, labels in found.items():
        problems.append(problem if len(labels) == everywhere else f"{', '.join(labels)}: {problem}")
    plan = Plan(asked, baseline, points, list(teachers.values()), runs)
    return plan, problems + _folder_problems(plan.jobs)


class _Run:
    """One student: its experiment as if it trained its teacher itself, its teacher's run, its own."""

    def __init__(self, asked: ComparisonConfig, point: Point, seed: int) -> None:
        self.asked, self.seed = asked, seed
        self.name = f"{folder_name(point.label)}-seed{seed}"
        changes: dict[str, Any] = {
            "name": f"{asked.base.name}-{folder_name(point.label)}",
            "seed": seed,
            "output": str(asked.folder / "runs" / self.name),
        }
        experiment = Experiment.from_mapping({**point.raw, **changes}, where=point.label)
        teacher = experiment.teacher
        if teacher is not None and not teacher.is_previous_epoch and _is_sound(experiment):
            teacher = teacher if needs_teacher(experiment) else None
            experiment = experiment.model_copy(update={"teacher": teacher})
        self.experiment = experiment

    def teacher(self) -> TeacherRun | None:
        """The run that trains this student's teacher; None where there is nothing to train."""
        teacher = self.experiment.teacher
        if teacher is None or teacher.is_previous_epoch or teacher.checkpoint is not None:
            return None
        supervised: dict[str, Any] = teacher.supervised or {"name": "ce"}
        if self.asked.teachers == "own":
            supervised = {"name": _example(self.experiment).teacher_supervised}
        plain = supervised == {"name": "ce"}
        parameters = [f"{key}={value}" for key, value in supervised.items() if key != "name"]
        short = folder_name(" ".join([str(supervised["name"]), *parameters]))
        base = self.asked.base
        raw = base.model_dump(mode="json")
        changes = {
            "name": f"{base.name}-teacher-{short}",
            "seed": self.seed,
            "output": str(self.asked.folder / "teachers" / f"{short}-seed{self.seed}"),
            "teacher": None,
            "student": {"model": teacher_model(base).model_dump(mode="json"), "classifier": teacher.classifier},
            "method": {"name": "ce", **({} if plain else {"supervised": supervised})},
            "training": base.teacher_training.model_dump(mode="json"),
        }
        name = f"teacher-{short}-seed{self.seed}"
        return TeacherRun(short, self.seed, Job(name, Experiment.from_mapping({**raw, **changes}, where="the teacher")))

    def job(self, teacher: TeacherRun | None) -> Job:
        if teacher is None:
            return Job(self.name, self.experiment)
        assert self.experiment.teacher is not None
        weights = teacher.job.folder.weights("student")
        changes = {"model": teacher_model(self.asked.base), "checkpoint": weights}
        loaded = self.experiment.teacher.model_copy(update=changes)
        return Job(self.name, self.experiment.model_copy(update={"teacher": loaded}), after=teacher.job.name)


def _example(experiment: Experiment) -> Method:
    return build_method(experiment, [2, 1], 8, 8)


def _is_sound(experiment: Experiment) -> bool:
    try:
        _example(experiment)
    except DistailError:
        return False
    return True


def _folder_problems(jobs: Sequence[Job]) -> list[str]:
    """Runs that would share a folder, and folders that hold other runs or damaged results."""
    problems: list[str] = []
    seen: dict[str, Job] = {}
    for job in jobs:
        if job.name.lower() in seen:
            problems.append(f"{job.name}: two runs would share this folder; give one of them another label")
            continue
        seen[job.name.lower()] = job
        try:
            job.folder.stored_experiment(job.experiment)
            job.folder.stored_result()
        except DistailError as error:
            problems.append(str(error))
    return problems
