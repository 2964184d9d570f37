"""`distail compare`: check everything, train what is not trained yet, say what it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from distail import files
from distail.compare import defaults
from distail.compare.arguments import (
    HOW_METHODS,
    read_grid,
    read_methods,
    read_seeds,
    replaced_overrides,
    unused_overrides,
)
from distail.compare.content import ComparisonContent, RunContent
from distail.compare.engine_config import EngineConfig
from distail.compare.engines import ENGINES, option_problems
from distail.compare.plan import ComparisonConfig, Plan, Teachers, make_plan, remove_shared_views
from distail.compare.progress import ComparisonReporter, default_reporter
from distail.compare.result import comparison_content
from distail.compare.scheduler import Schedule
from distail.compare.tables import write_tables
from distail.config.reading import dump_plain_yaml, read_yaml
from distail.config.schema import Experiment
from distail.errors import (
    CheckpointError,
    ConfigError,
    Problems,
    TrainingError,
    listed,
    problems_in,
    some_of,
    unknown_name,
)
from distail.evaluation.run_files import FAILED
from distail.models.catalog import builder_of
from distail.report.build import write_comparison_report
from distail.runner.identity import changed_data, changed_teacher
from distail.runner.run_folder import CHANGEABLE_DATA_SETTINGS, RunFolder, differences, other_kind
from distail.runner.trial import try_students
from distail.training.identity import DATA_PARTS
from distail.training.signals import stop_requests

# Methods and seeds may be added later, a baseline or a grid chosen anew; the trainer section is the machine's.
_FREE = frozenset({"name", "seed", "output", "method", "trainer"})


def stored_problems(config: ComparisonConfig) -> list[str]:
    """Every setting in which the folder's comparison differs from this one, or that it is no comparison's."""
    path = config.folder / "comparison.yaml"
    if not path.is_file():
        return other_kind(config.folder, path.name)
    stored = read_yaml(path)
    own = _common_settings(config)
    there = {"teachers": stored.get("teachers"), "experiment": without_free(stored.get("experiment"))}
    differing = list(differences(there, own))
    where = f"{str(config.folder)!r} contains another comparison; choose another --output"
    return [f"{where}. It differs in {one}" for one in differing]


def store(plan: Plan) -> Path:
    """Write `comparison.yaml`."""
    config = plan.config
    content = {
        "name": config.base.name,
        "methods": [{label: dict(method)} for label, method in config.methods.items()],
        "seeds": list(config.seeds),
        "baseline": plan.baseline,
        "grid": {key: list(values) for key, values in config.axes.items()},
        **({"recipes": {label: dict(recipe) for label, recipe in config.recipes.items()}} if config.recipes else {}),
        **_common_settings(config),
    }
    path = plan.folder / "comparison.yaml"
    files.write_text(path, dump_plain_yaml(content))
    return path


def _common_settings(config: ComparisonConfig) -> dict[str, object]:
    """What all runs of a folder have in common."""
    return {"teachers": config.teachers, "experiment": without_free(config.base.model_dump(mode="json"))}


def without_free(experiment: object) -> object:
    """An experiment's mapping without the settings that a run may change between starts, nor those of one run."""
    if not isinstance(experiment, Mapping):
        return experiment
    with suppress(ConfigError):  # settings of another version are compared as they are
        # What was stored before a key came into being was made with its default.
        whole = Experiment.from_mapping({"name": "any", "method": "ce", **experiment})
        experiment = whole.model_dump(mode="json")
    settings = {key: value for key, value in experiment.items() if key not in _FREE}
    if isinstance(data := settings.get("data"), Mapping):
        settings["data"] = {key: value for key, value in data.items() if key not in CHANGEABLE_DATA_SETTINGS}
    return settings


@dataclass(frozen=True)
class Comparison:
    """A comparison that was run: its folder and everything in its `comparison.json`."""

    folder: Path
    content: ComparisonContent

    @property
    def failed(self) -> list[str]:
        """The folders of the runs that failed, teachers and every point of a grid included."""
        return [folder for folder, state in self._states.items() if state == FAILED]

    @property
    def left_out(self) -> list[str]:
        """The folders of finished runs that are not of this comparison: its methods and seeds are those of one call."""
        finished = sorted(path.parent for path in self.folder.glob("runs/*/result.json"))
        return [name for path in finished if (name := f"runs/{path.name}") not in self._states]

    @property
    def _states(self) -> dict[str, str]:
        """Folder to state. What a grid says of its runs holds: a method whose grid is under way has no state yet."""
        runs: list[RunContent] = [*self.content["teacher_runs"], *self.content["runs"]]
        for point in self.content["grid"]["points"] if self.content["grid"] else []:
            runs += point["runs"]
        return {run["folder"]: run["state"] for run in runs}

    def raise_if_failed(self) -> None:
        """Raise a `TrainingError` that names the failed runs, if there are any."""
        if self.failed:
            raise TrainingError(
                f"{len(self.failed)} of {len(self._states)} runs failed: {', '.join(self.failed)}; "
                "the tables show the others. Run the same command again to retry them."
            )


_OPTIONS = {"seed": "use --seeds", "output": "use --output", "method": "use --methods"}


def compare(
    config: str | Path,
    overrides: Sequence[str] = (),
    *,
    methods: str = defaults.METHODS,
    seeds: str = defaults.SEEDS,
    baseline: str | None = None,
    teachers: str = "shared",
    grid: Sequence[str] = (),
    engine: str = "local",
    parallel: int | None = None,
    output: Path | None = None,
    reporter: ComparisonReporter | None = None,
) -> Comparison:
    """Compare methods on one experiment, or finish a comparison that was stopped; the words are those of the verb.

    Raises:
        DistailError: whatever cannot be done, all of it listed, before any work.
        Interrupted: a signal came; every run wrote a checkpoint.
    """
    problems = Problems()
    base = problems.attempt(lambda: Experiment.from_yaml(config, overrides))
    axes = problems.attempt(lambda: read_grid(grid), "--grid") or {}
    chosen_methods = problems.attempt(lambda: read_methods(methods), "--methods")
    chosen_seeds = problems.attempt(lambda: read_seeds(seeds), "--seeds")
    if teachers not in get_args(Teachers):
        problems.add(f"--teachers: {unknown_name('choice', teachers, get_args(Teachers))}")
    problems.add(
        *option_problems(engine, parallel, output), *unused_overrides(overrides, f"use --methods: {HOW_METHODS}")
    )
    # Without these there are no runs to look at.
    if base is None or chosen_methods is None or teachers not in get_args(Teachers):
        raise _config_error(problems, str(config) if base is None else base.name)
    comparison = ComparisonConfig(
        base, chosen_methods, chosen_seeds or (base.seed,), cast(Teachers, teachers), baseline, axes, output
    )
    reporter = reporter or default_reporter()
    for note in replaced_overrides(base, overrides, _OPTIONS):
        reporter.message(note)
    compared = run_comparison(comparison, engine, parallel, reporter, problems)
    if compared.left_out:
        reporter.message(
            f"not compared, though finished in {compared.folder}: {some_of(compared.left_out)}; --methods and --seeds "
            "(and --grid) name all that is to be compared, not only what is new"
        )
    return compared


def run_comparison(
    config: ComparisonConfig,
    engine: str,
    parallel: int | None,
    reporter: ComparisonReporter | None = None,
    problems: Problems | None = None,
) -> Comparison:
    """The same for a comparison whose words were read; `problems` are those that they had."""
    problems = problems or Problems()
    plan, found = make_plan(config)
    problems.add(*found, *stored_problems(config))
    if problems.found:
        raise _config_error(problems, config.base.name)
    with RunFolder(plan.folder).locked():
        return _run_plan(plan, engine, parallel, reporter or default_reporter())


def _run_plan(plan: Plan, engine_name: str, parallel: int | None, reporter: ComparisonReporter) -> Comparison:
    refuse_other_data(plan)
    schedule = Schedule(plan.jobs, plan.folder)
    try_waiting_students(plan, schedule.left)
    store(plan)

    def write(*, bootstrap: bool = False) -> Comparison:
        content = comparison_content(plan, schedule.states, bootstrap=bootstrap)
        files.write_json(plan.folder / "comparison.json", content)
        return Comparison(plan.folder, content)

    if schedule.left:
        with stop_requests() as request:
            engine = ENGINES[engine_name](EngineConfig(len(schedule.jobs), parallel, plan.config.base.trainer.device))
            with ExitStack() as ends:  # each of them whatever becomes of the others
                ends.callback(write)
                ends.callback(engine.close)
                ends.callback(reporter.finish)
                schedule.run_jobs(engine, reporter, request, write)
    if not schedule.left:
        remove_shared_views(plan.folder)
    comparison = write(bootstrap=True)
    write_tables(plan.folder / "tables", comparison.content)
    write_comparison_report(plan.folder)
    return comparison


def try_waiting_students(plan: Plan, left: Sequence[str]) -> None:
    """A student of the user's own that cannot learn must not wait for its teacher to be told."""
    waiting = [job.experiment for job in plan.jobs if job.name in left and job.after in left]
    try_students(each for each in waiting if builder_of(each.student.model.name) is None)


def refuse_other_data(plan: Plan, *, more_to_come: bool = False) -> None:
    """Let pass what was trained and tested on the data, and taught by the teacher, that the runs to come will have.

    Args:
        more_to_come: whether there are more than those of the plan.

    Raises:
        ConfigError: naming the finished runs that were not, and in what.
    """
    finished: list[tuple[Experiment, Mapping[str, Any]]] = []
    for job in plan.jobs:
        with suppress(CheckpointError):  # a damaged result, which its run makes anew
            result = job.folder.stored_result()
            if result is not None and "identity" in result:
                finished.append((job.experiment, result["identity"]))
    some_left = more_to_come or not all(job.folder.result.is_file() for job in plan.jobs)
    others: list[str] = []
    known: dict[tuple[object, ...], list[str]] = {}  # runs of one seed and of the same data: looked at once
    for experiment, identity in finished:
        data = (experiment.seed, *(identity.get(part) for part in DATA_PARTS))
        if data not in known:
            known[data] = changed_data(experiment, identity, call_functions=some_left)
        taught = (experiment.teacher and experiment.teacher.files, identity.get("teacher"))
        if taught not in known:
            known[taught] = changed_teacher(experiment, identity)
        others += [f"{experiment.output}: {change}" for change in (*known[data], *known[taught])]
    if others:
        headline = "these runs would be others today; restore what has changed, or choose another --output:"
        raise ConfigError(listed(others, headline), others)


def _config_error(problems: Problems, name: str) -> ConfigError:
    return ConfigError(problems_in(f"the comparison {name}", problems.found), problems.found)
