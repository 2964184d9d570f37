"""From a comparison's configuration to its runs: every teacher once per seed, every student after its teacher."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from distail.compare.arguments import folder_name
from distail.compare.draws import Draw, draws_of, with_draw
from distail.config.precision import Precisions, read_precision
from distail.config.reading import apply_overrides
from distail.config.schema import Experiment
from distail.errors import DistailError
from distail.methods.entries import TERM_WEIGHTS
from distail.methods.presets import check_method, read_composition
from distail.runner.checks import problems_of, teacher_model
from distail.runner.compositions import method_composition, needs_teacher, without_unread_targets
from distail.runner.posterior import as_entry
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
    settings: Mapping[str, object]
    raw: Mapping[str, object]


def points_of(
    base: Experiment,
    methods: Mapping[str, Mapping[str, object]],
    axes: Mapping[str, Sequence[object]],
    recipes: Mapping[str, Mapping[str, object]],
) -> tuple[dict[str, list[Point]], list[str]]:
    """The points of each method, and what is wrong with the grid.

    A method spans only the axes that it takes, as it is given, without the others: `ce` has no temperature, so it runs
    once. An axis that no method takes is a problem.
    """
    points: dict[str, list[Point]] = {}
    refusals: dict[str, list[str]] = {key: [] for key in axes}
    spanned: set[str] = set()
    for label, method in methods.items():
        own_axes = []
        for key, values in axes.items():
            reasons = [_why_not_taken(base, method, key, value) for value in values]
            if None in reasons:
                own_axes.append(key)
            refusals[key] += [reason for reason in reasons if reason is not None]
        spanned.update(own_axes)
        points[label] = []
        for choice in itertools.product(*(axes[key] for key in own_axes)):
            settings = dict(zip(own_axes, choice, strict=True))
            points[label].append(_point(base, label, method, settings, recipes.get(label, {})))
    problems = []
    for key, values in axes.items():
        if key not in spanned:
            problems.append(f"--grid: no method takes {key}={', '.join(map(str, values))}: {refusals[key][0]}")
    return points, problems


def _point(
    base: Experiment,
    label: str,
    method: Mapping[str, object],
    settings: Mapping[str, object],
    recipe: Mapping[str, object],
) -> Point:
    words = [f"{key.partition('.')[2]}={_format_value(value)}" for key, value in settings.items()]
    return Point(label, " ".join([label, *words]), settings, _raw(base, method, {**recipe, **settings}))


def _raw(base: Experiment, method: Mapping[str, object], settings: Mapping[str, object]) -> dict[str, object]:
    raw = {**base.model_dump(mode="json"), "method": dict(method)}
    return apply_overrides(raw, [f"{key}={json.dumps(value)}" for key, value in settings.items()])


def _format_value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace('"', "")


def _why_not_taken(base: Experiment, method: Mapping[str, object], key: str, value: object) -> str | None:
    """None where the method takes this value; what is not the method's is taken by every one."""
    if not key.startswith("method."):
        return None
    try:
        experiment = base.model_copy(update={"method": _raw(base, method, {key: value})["method"]})
        composition = method_composition(experiment)
        check_method(composition)
        unused = key in TERM_OF and TERM_OF[key] not in read_composition(composition).terms
    except DistailError as error:
        return str(error)
    return f"{experiment.method_name} has no {TERM_OF[key]} term" if unused else None


@dataclass(frozen=True)
class ComparisonConfig:
    """What a comparison is to be, read but not yet checked."""

    base: Experiment
    methods: Mapping[str, Mapping[str, object]]
    seeds: Sequence[int]
    teachers: Teachers = "shared"
    baseline: str | None = None
    axes: Mapping[str, Sequence[object]] = field(default_factory=dict)
    output: Path | None = None
    recipes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Label of a method to what its runs change beside it, such as `{"training.ema_decay": 0.99}`."""
    recommends: bool = True
    """Whether it says which student to use, by the test images; not where a search has chosen by validation."""

    @property
    def draws(self) -> tuple[Draw, ...]:
        """What each method is trained on."""
        return draws_of(self.base, self.seeds)

    @property
    def folder(self) -> Path:
        """By default one folder for shared teachers and one for own ones: the two are reported separately."""
        suffix = "" if self.teachers == "shared" else "-own-teachers"
        return self.output or Path("comparisons") / f"{self.base.name}{suffix}"


def views_folder(folder: Path) -> Path:
    """Where the runs of a comparison share what their teachers say of stored views, until all are finished."""
    return folder / "views"


def remove_shared_views(folder: Path) -> None:
    """Remove what runs shared there, by the names of `distail.runner.views.shared_file`, and nothing of the user's."""
    shared = [*views_folder(folder).glob(f"{'[0-9a-f]' * 24}.safetensors")]
    for path in shared:
        path.unlink(missing_ok=True)
    if shared:
        with suppress(OSError):  # something else is in it
            views_folder(folder).rmdir()


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
    """A teacher of one draw."""

    supervised: str
    draw: Draw
    job: Job


@dataclass(frozen=True)
class Plan:
    """All runs of a comparison.

    Attributes:
        points: label of a method to its grid points; one without a grid.
        teachers: each trained once; empty where a checkpoint is given or no method listens to a teacher.
        runs: (point's label, draw) to the student's run.
    """

    config: ComparisonConfig
    baseline: str
    points: Mapping[str, Sequence[Point]]
    teachers: Sequence[TeacherRun]
    runs: Mapping[tuple[str, Draw], Job]

    @property
    def folder(self) -> Path:
        return self.config.folder

    @property
    def jobs(self) -> list[Job]:
        """Teachers first: most other runs wait for them."""
        return [*(teacher.job for teacher in self.teachers), *self.runs.values()]


def make_plan(config: ComparisonConfig) -> tuple[Plan, list[str]]:
    """The plan, and everything that can be known to be wrong with it before any work."""
    points, problems = points_of(config.base, config.methods, config.axes, config.recipes)
    default = DEFAULT_BASELINE if DEFAULT_BASELINE in config.methods else next(iter(points))
    baseline = config.baseline or default
    problems += _option_problems(config, baseline)
    teachers: dict[tuple[str, Draw], TeacherRun] = {}
    runs: dict[tuple[str, Draw], Job] = {}
    labels_of_problem: dict[str, list[str]] = {}
    all_points = list(itertools.chain(*points.values()))
    for point in all_points:
        try:
            students = [_Student(config, point, draw) for draw in config.draws]
            # Draws differ in nothing that could be wrong.
            found = problems_of(students[0].experiment)
        except DistailError as error:
            students, found = [], list(error.problems)
        for problem in found:
            labels_of_problem.setdefault(problem, []).append(point.label)
        if found:
            continue
        for student in students:
            teacher = student.teacher_run()
            if teacher is not None:
                teacher = teachers.setdefault((teacher.supervised, student.draw), teacher)
            runs[point.label, student.draw] = student.job(teacher)
    for problem, labels in labels_of_problem.items():
        problems.append(problem if len(labels) == len(all_points) else f"{', '.join(labels)}: {problem}")
    plan = Plan(config, baseline, points, list(teachers.values()), runs)
    return plan, problems + _folder_problems(plan.jobs)


def _option_problems(config: ComparisonConfig, baseline: str) -> list[str]:
    problems = []
    if config.axes and not config.base.data.validation:
        problems.append(
            "--grid chooses on a validation split, but data.validation is 0, so there is nothing to choose on; "
            "give one, such as data.validation=0.1"
        )
    if baseline not in config.methods:
        problems.append(f"--baseline: {baseline!r} is not among the methods: {', '.join(config.methods)}")
    if config.teachers == "own" and config.base.teacher is not None and config.base.teacher.files:
        problems.append(
            "--teachers own trains one teacher per method, but teacher.checkpoint gives all of them the same"
        )
    return problems


class _Student:
    """One student: its experiment as if it trained its teacher itself, its teacher's run, its own."""

    def __init__(self, config: ComparisonConfig, point: Point, draw: Draw) -> None:
        self.config, self.draw = config, draw
        self.name = f"{folder_name(point.label)}-{draw.name}"
        changes: dict[str, object] = {
            "name": f"{config.base.name}-{folder_name(point.label)}",
            "output": str(config.folder / "runs" / self.name),
        }
        experiment = Experiment.from_mapping({**with_draw(point.raw, draw), **changes}, where=point.label)
        experiment = without_unread_targets(experiment)
        teacher = experiment.teacher
        if teacher is not None and not teacher.is_previous_epoch and not _listens(experiment):
            experiment = experiment.model_copy(update={"teacher": None})
        elif teacher is not None and teacher.views and experiment.trainer.views_folder is None:
            shared = {"views_folder": views_folder(config.folder)}
            trainer = experiment.trainer.model_copy(update=shared)
            experiment = experiment.model_copy(update={"trainer": trainer})
        self.experiment = experiment

    def teacher_run(self) -> TeacherRun | None:
        """The run that trains this student's teacher; None where there is nothing to train."""
        teacher = self.experiment.teacher
        if teacher is None or not teacher.trained_here:
            return None
        supervised: dict[str, object] = teacher.supervised or {"name": "ce"}
        if self.config.teachers == "own":
            supervised = {**as_entry(read_composition(method_composition(self.experiment)).teacher_supervised)}
        plain = supervised in ({"name": "ce"}, {"name": "bce"})
        parameters = [f"{key}={value}" for key, value in supervised.items() if key != "name"]
        short = folder_name(" ".join([str(supervised["name"]), *parameters]))
        base = self.config.base
        changes = {
            "name": f"{base.name}-teacher-{short}",
            "output": str(self.config.folder / "teachers" / f"{short}-{self.draw.name}"),
            "role": "teacher",
            "teacher": None,
            "student": {"model": teacher_model(base).model_dump(mode="json"), "classifier": teacher.classifier},
            "method": {"name": "ce", **({} if plain else {"supervised": supervised})},
            "training": base.teacher_training.model_dump(mode="json"),
            "trainer": base.trainer.model_copy(update={"precision": _of_the_teacher(base)}).model_dump(mode="json"),
        }
        raw = with_draw(base.model_dump(mode="json"), self.draw)
        experiment = Experiment.from_mapping({**raw, **changes}, where="the teacher")
        return TeacherRun(short, self.draw, Job(f"teacher-{short}-{self.draw.name}", experiment))

    def job(self, teacher: TeacherRun | None) -> Job:
        if teacher is None:
            return Job(self.name, self.experiment)
        assert self.experiment.teacher is not None
        weights = teacher.job.folder.weights("student")
        changes = {"model": teacher_model(self.config.base), "checkpoint": weights}
        loaded = self.experiment.teacher.model_copy(update=changes)
        return Job(self.name, self.experiment.model_copy(update={"teacher": loaded}), after=teacher.job.name)


def _of_the_teacher(base: Experiment) -> str | Precisions:
    """The number formats of a run that trains the teacher as what `run` calls the student."""
    given = base.trainer.precision
    return given if isinstance(given, str) else read_precision({**given.model_dump(), "student": given.teacher})


def _listens(experiment: Experiment) -> bool:
    try:
        return needs_teacher(experiment)
    except DistailError:
        return True  # what is wrong with the method is said with the other problems of its run


def _folder_problems(jobs: Sequence[Job]) -> list[str]:
    """Runs that would share a name, and folders that hold other runs or damaged results."""
    problems: list[str] = []
    seen: dict[str, Job] = {}
    for job in jobs:
        if (other := seen.get(job.name.lower())) is not None:
            whose = "a teacher's run" if other.experiment.role == "teacher" else "another run"
            problems.append(
                f"{job.name}: {whose} already has this name ({other.experiment.output}); give the method another label"
            )
            continue
        seen[job.name.lower()] = job
        try:
            job.folder.stored_experiment(job.experiment)
            job.folder.stored_result()
        except DistailError as error:
            problems.append(str(error))
    return problems
