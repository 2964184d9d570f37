"""`distail search`: check everything, try what the budget allows, choose, and say what the choice is worth."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from distail import files
from distail.compare.arguments import read_seeds, replaced_overrides, unused_overrides
from distail.compare.compare import (
    Comparison,
    refuse_other_data,
    run_comparison,
    try_waiting_students,
    without_free,
)
from distail.compare.engine_config import EngineConfig
from distail.compare.engines import ENGINES, option_problems
from distail.compare.plan import Plan, remove_shared_views
from distail.compare.progress import ComparisonReporter
from distail.compare.scheduler import Schedule
from distail.config.data import Folds
from distail.config.reading import dump_plain_yaml, read_yaml
from distail.config.schema import SAME, Experiment, Model, Teacher
from distail.data.prepare import prepare_data
from distail.errors import ConfigError, Problems, problems_in, unknown_name
from distail.json_values import as_mapping, as_number, read_json
from distail.outputs import MULTI_LABEL, SINGLE_LABEL
from distail.runner.run_folder import RunFolder, differences, other_kind
from distail.search.budget import Budget
from distail.search.content import SCHEMA_VERSION, SearchContent, TrialContent, ranked
from distail.search.finals import METHODS, best_yaml, choose, comparison_of
from distail.search.goal import Goal, metrics_for
from distail.search.page import write_search_page
from distail.search.progress import SearchReporter, default_reporter
from distail.search.slots import REFERENCE
from distail.search.space import Proposal, reference_proposal, space_of
from distail.search.statements import statements
from distail.search.study import importances, open_study, require_optuna
from distail.search.trials import TrialRuns, Trials
from distail.search.validation import few_to_choose_on
from distail.training.signals import stop_requests

DEFAULT_MINUTES = 60.0
DEFAULT_TOP1_LOSS = 5.0
_HOW_METHODS = "a search chooses the method, and distail compare trains those of its --methods"


@dataclass(frozen=True)
class SearchConfig:
    """What a search is to be, read but not yet checked as a whole.

    Attributes:
        seeds: of the comparison that says what the choice is worth: others than the one that was searched with.
        minutes, trials: None where only the other counts.
    """

    base: Experiment
    goal: Goal
    seeds: Sequence[int]
    minutes: float | None
    trials: int | None
    folder: Path
    engine: str
    parallel: int | None


@dataclass(frozen=True)
class Search:
    """A finished search: its folder, what its `search.json` holds, and the comparison of what was chosen."""

    folder: Path
    content: SearchContent
    comparison: Comparison


def search(
    config: str | Path,
    overrides: Sequence[str] = (),
    *,
    metric: str | None = None,
    top1_loss: float | None = None,
    minutes: float | None = None,
    trials: int | None = None,
    seeds: str | None = None,
    engine: str = "local",
    parallel: int | None = None,
    output: Path | None = None,
    reporter: SearchReporter | None = None,
    comparison_reporter: ComparisonReporter | None = None,
) -> Search:
    """Search for the repair of one experiment, or go on with a search that was stopped; the words are the verb's.

    Raises:
        DistailError: whatever cannot be done, all of it listed, before any work.
        TrainingError: plain distillation itself failed, or runs of the comparison did.
        Interrupted: a signal came; every run wrote a checkpoint.
    """
    problems = Problems()
    problems.attempt(require_optuna)
    base = problems.attempt(lambda: Experiment.from_yaml(config, overrides))
    goal = _goal(metric, top1_loss, base.data.targets if base else SINGLE_LABEL, problems)
    if minutes is not None and not 0 < minutes < float("inf"):
        problems.add(f"--minutes: {minutes:g}; expected a number above 0, such as 60")
    if trials is not None and trials < 1:
        problems.add(f"--trials: {trials} is too small; expected at least 1, such as 40")
    problems.add(*option_problems(engine, parallel, output), *unused_overrides(overrides, _HOW_METHODS))
    chosen_seeds = problems.attempt(lambda: read_seeds(seeds), "--seeds") if seeds is not None else ()
    if base is None or chosen_seeds is None:
        raise ConfigError(problems_in(f"the search {config}", problems.found), problems.found)
    problems.add(*_experiment_problems(base))
    if base.seed in chosen_seeds:
        problems.add(
            f"--seeds: {base.seed} is the seed that is searched with; expected others, such as "
            f"{base.seed + 1},{base.seed + 2}: on its own seed the choice is judged too optimistically"
        )
    if base.teacher is None:  # said already; the rest is checked as with one
        base = base.model_copy(update={"teacher": Teacher(model=Model(name=SAME))})
    settings = SearchConfig(
        base,
        goal,
        chosen_seeds or tuple(base.seed + 1 + i for i in range(3)),
        DEFAULT_MINUTES if minutes is None and trials is None else minutes,
        trials,
        output or Path("searches") / base.name,
        engine,
        parallel,
    )
    runs = TrialRuns(base, settings.folder)
    reference = problems.attempt(lambda: runs.plan(REFERENCE, reference_proposal(base)))
    problems.add(*_stored_problems(settings))
    if problems.found or reference is None:
        raise ConfigError(problems_in(f"the search {base.name}", problems.found), problems.found)
    for note in replaced_overrides(base, overrides, {"output": "use --output", "method": _HOW_METHODS}):
        (reporter or default_reporter()).message(note)
    with RunFolder(settings.folder).locked():
        content = _try_trials(settings, runs, reference, reporter or default_reporter())
        finished = _finish(settings, runs, content, comparison_reporter)
        remove_shared_views(settings.folder)
        return finished


def _goal(metric: str | None, top1_loss: float | None, targets: str, problems: Problems) -> Goal:
    """By what trials are compared, with the defaults of these labels."""
    valid = metrics_for(targets)
    if metric is not None and metric not in valid:
        problems.add(f"--metric: {unknown_name('metric', metric, valid)}")
    if targets == MULTI_LABEL:
        if top1_loss is not None:
            problems.add(
                f"--top1-loss: {top1_loss:g}, but with data.targets: {MULTI_LABEL} there is no top-1 to lose; leave it "
                "out, or choose by --metric worst_third"
            )
        return Goal(metric if metric in valid else valid[0], None)
    bound = DEFAULT_TOP1_LOSS if top1_loss is None else top1_loss
    if not 0 <= bound <= 100:
        problems.add(f"--top1-loss: {bound:g}; expected points from 0 to 100, such as 2")
    return Goal(metric if metric in valid else valid[0], bound)


def _finish(
    settings: SearchConfig, runs: TrialRuns, content: SearchContent, reporter: ComparisonReporter | None
) -> Search:
    """Choose among the best trials by what other seeds say of them too, and say what the choice is worth."""
    folder, seeds = settings.folder, settings.seeds
    compared = comparison_of(settings.base, content, seeds, folder / "comparison")
    comparison = run_comparison(compared, settings.engine, settings.parallel, reporter)
    content["comparison"] = comparison.folder.relative_to(folder).as_posix()
    content["finalists"] = choose(runs, settings.goal, content, seeds, comparison.folder)
    if content["finalists"]:
        content["best"] = content["finalists"][0]["number"]
        best = next(one for one in content["trials"] if one["number"] == content["best"])
        plan = runs.plan(best["number"], Proposal(best["method"], best["recipe"], best["words"]))
        teacher = next(iter(plan.runs.values())).experiment.teacher
        files.write_text(folder / "best.yaml", best_yaml(settings.base, best, teacher))
    else:
        (folder / "best.yaml").unlink(missing_ok=True)  # what was chosen of fewer trials or seeds
    content["statements"] = [*statements(content, comparison.content), *comparison.content["statements"]]
    _write(settings, content)
    write_search_page(folder, content)
    return Search(folder, content, comparison)


def _experiment_problems(base: Experiment) -> list[str]:
    problems = Problems()
    if not base.data.validation:
        problems.add(
            "a search chooses on a validation split, but data.validation is 0, and the test set must not be used for "
            "this; give one, such as data.validation=0.2"
        )
    if base.teacher is None or base.teacher.is_previous_epoch:
        problems.add("a search needs a teacher; expected one, such as teacher: resnet56")
    return problems.found


def _try_trials(settings: SearchConfig, runs: TrialRuns, reference: Plan, reporter: SearchReporter) -> SearchContent:
    base, folder = settings.base, settings.folder
    refuse_other_data(reference, more_to_come=True)
    try_waiting_students(reference, [job.name for job in reference.jobs if not job.folder.result.is_file()])
    data = next(iter(reference.runs.values())).experiment.data  # of one fold, where there are folds
    prepared = prepare_data(data, seed=base.seed)
    space = space_of(base, prepared.train)
    for sentence in few_to_choose_on(base, prepared):
        reporter.message(sentence)
    live = base.teacher is not None and base.teacher.has_network and base.teacher.views == 0
    if live and not (base.training.mix and base.training.mix.share):  # whose images no stored view could be
        reporter.message(
            "teacher.views: 0, so each trial runs the teacher at every step; teacher.views=all runs it once for all"
        )
    files.write_text(folder / "search.yaml", dump_plain_yaml(_own_settings(settings)))
    study = open_study(folder / "study.journal", base.training.epochs, space)
    budget = _budget(settings)
    schedule = Schedule([], folder)
    engine = ENGINES[settings.engine](
        EngineConfig(settings.trials or _MANY, settings.parallel, base.trainer.device),
    )
    compared = (len(settings.seeds), METHODS)
    trials = Trials(
        study, space, runs, settings.goal, budget, schedule, compared, engine.parallel, changed=lambda: write()
    )

    def write() -> SearchContent:
        content = _content(settings, trials.content(), budget)
        _write(settings, content)
        reporter.update(content)
        return content

    with stop_requests() as request, ExitStack() as ends:
        ends.callback(write)
        ends.callback(engine.close)
        ends.callback(reporter.finish)
        schedule.run_jobs(engine, reporter, request, write, trials)
        if not (folder / "comparison").exists():
            trials.check_minutes()
    content = _content(settings, trials.content(), budget)
    figures = {one["number"]: one["figure"] for one in content["trials"] if one["figure"] is not None}
    content["importances"] = importances(study, figures)
    return content


_MANY = 10_000  # runs, where minutes decide how many there are: as many at once as there are places


def _content(settings: SearchConfig, trials: list[TrialContent], budget: Budget) -> SearchContent:
    best = next(iter(ranked(trials)), None)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": settings.base.name,
        "seed": settings.base.seed,
        "metric": settings.goal.metric,
        "top1_loss": settings.goal.top1_loss,
        "rule": settings.goal.rule(folds=isinstance(settings.base.data.validation, Folds)),
        "epochs": settings.base.training.epochs,
        "seconds": round(budget.seconds, 1),
        "budget": {"minutes": budget.minutes, "trials": budget.trials, "used_up": budget.used_up},
        "trials": trials,
        "finalists": [],
        "best": best["number"] if best else None,
        "importances": {},
        "comparison": None,
        "statements": [],
    }


def _write(settings: SearchConfig, content: SearchContent) -> None:
    files.write_json(settings.folder / "search.json", content)


def _own_settings(settings: SearchConfig) -> dict[str, object]:
    """What must stay as it is while a search goes on; minutes, trials and seeds may grow."""
    return {
        "metric": settings.goal.metric,
        "top1_loss": settings.goal.top1_loss,
        "seed": settings.base.seed,
        "experiment": without_free(settings.base.model_dump(mode="json")),
    }


def _stored_problems(settings: SearchConfig) -> list[str]:
    path = settings.folder / "search.yaml"
    if not path.is_file():
        return other_kind(settings.folder, path.name)
    stored = read_yaml(path)
    there = {**stored, "experiment": without_free(stored.get("experiment"))}
    where = f"{str(settings.folder)!r} contains another search; choose another --output"
    return [f"{where}. It differs in {one}" for one in differences(there, _own_settings(settings))]


def _budget(settings: SearchConfig) -> Budget:
    """What is left of it: the same one again is not opened again, a larger one is."""
    path = settings.folder / "search.json"
    stored = read_json(path) if path.is_file() else {}
    before = as_mapping(stored.get("budget"))
    same = (before.get("minutes"), before.get("trials")) == (settings.minutes, settings.trials)
    spent = as_number(stored.get("seconds")) or 0.0
    return Budget(settings.minutes, settings.trials, spent, used_up=same and before.get("used_up") is True)
