"""The trials of a search: begun, watched epoch by epoch, and called off where others are better."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distail.compare.plan import ComparisonConfig, Job, Plan, make_plan
from distail.compare.scheduler import Schedule
from distail.config.schema import Experiment
from distail.errors import ConfigError, TrainingError, problems_in
from distail.evaluation import run_files
from distail.evaluation.metrics import MetricValues
from distail.evaluation.run_files import read_epochs
from distail.runner.run_folder import RunFolder
from distail.search import content
from distail.search.budget import Budget, Cost
from distail.search.content import TrialContent
from distail.search.goal import Goal
from distail.search.space import STARTS, Proposal, Recipe, Space, proposal_of
from distail.search.study import next_trial, sampler

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

REFERENCE = 0  # the trial that is kd


@dataclass(frozen=True)
class TrialRuns:
    """From proposals to runs: all from one teacher, all of one seed.

    Attributes:
        base: the experiment that is searched for.
        folder: the search's.
    """

    base: Experiment
    folder: Path

    def plan(self, number: int, proposal: Proposal) -> Plan:
        """The runs of one trial: its student's, and that of the teacher, which is the same for all.

        Raises:
            ConfigError: it cannot be run.
        """
        label = f"trial-{number:03d}"
        methods: Mapping[str, Mapping[str, object]] = {label: proposal.method}
        recipes: Mapping[str, Recipe] = {label: proposal.recipe}
        plan, problems = make_plan(
            ComparisonConfig(self.base, methods, (self.base.seed,), output=self.folder, recipes=recipes)
        )
        if problems:
            raise ConfigError(problems_in(f"{label} ({proposal.words})", problems), problems)
        return plan

    def validation(self, number: int) -> dict[int, MetricValues]:
        """Epochs done to the metrics of the validation split, as far as a trial has come."""
        return validation_by_epoch(self.run(number).path)

    def run(self, number: int) -> RunFolder:
        """Where a trial's student is."""
        return RunFolder(self.folder / "runs" / f"trial-{number:03d}-seed{self.base.seed}")


def validation_by_epoch(folder: Path) -> dict[int, MetricValues]:
    """Epochs done to the metrics of the validation split, as far as a run's student has come."""
    found = {}
    for row in read_epochs(RunFolder(folder).metrics)[0]:
        if row["stage"] == "student" and row["validation"] is not None:
            found[row["epoch"] + 1] = row["validation"]
    return found


@dataclass
class UnderWay:
    """A trial whose run is not finished, and up to which epoch Optuna knows it."""

    trial: Trial
    proposal: Proposal
    job: Job
    reported: int


class Trials:
    """Feeds the schedule with trials as long as the budget lasts, and tells Optuna what becomes of each.

    Args:
        study, space, runs, goal, budget: what is asked, what of, where it is trained, and by what and how long.
        schedule: what runs the trials.
        comparison_runs: seeds and methods of the comparison that must still fit into the budget.
        parallel: runs at once.
        changed: called whenever a trial has begun, come further, or ended.
    """

    def __init__(
        self,
        study: Study,
        space: Space,
        runs: TrialRuns,
        goal: Goal,
        budget: Budget,
        schedule: Schedule,
        comparison_runs: tuple[int, int],
        parallel: int,
        changed: Callable[[], object] = lambda: None,
    ) -> None:
        self.study, self.space, self.runs, self.goal, self.budget = study, space, runs, goal, budget
        self._schedule = schedule
        self._comparison_runs, self._parallel, self._changed = comparison_runs, parallel, changed
        self._under_way: dict[int, UnderWay] = {}
        self._ready = list(self._resumed())
        self._to_stop: list[str] = []
        self._cost: Cost | None = None

    def more(self, free: int) -> Iterable[Job]:
        """Take up what the runs have come to, then begin as many trials as there is room for."""
        news = self._look()
        jobs, self._ready = self._ready, []
        while len(jobs) < free and self.budget.has_room(len(self._begun), self.cost, self._reserve):
            jobs += self._begin(next_trial(self.study, self.runs.base.seed))
        if news or jobs:
            self._changed()
        return jobs

    def called_off(self) -> Iterable[str]:
        """Trials that did too badly up to here."""
        names, self._to_stop = self._to_stop, []
        return names

    @property
    def cost(self) -> Cost | None:
        """What runs take, by the first trial; None before it is finished."""
        if self._cost is None and self.runs.run(REFERENCE).result.is_file():
            *teachers, student = self.runs.plan(REFERENCE, proposal_of(self.space, self.space.start(REFERENCE))).jobs
            self._cost = Cost(sum(map(self._seconds, teachers)), self._seconds(student))
        return self._cost

    def _seconds(self, job: Job) -> float:
        """What a run took; of one that an earlier start trained, its training alone is known."""
        result = job.folder.stored_result()
        trained = result["timing"]["student"]["seconds"] if result else 0.0
        return self._schedule.seconds.get(job.name, trained)

    @property
    def _reserve(self) -> float:
        cost = self.cost
        return cost.comparison(*self._comparison_runs, self._parallel) if cost else 0.0

    @property
    def _begun(self) -> list[FrozenTrial]:
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state.name != "WAITING"]

    def _resumed(self) -> Iterator[Job]:
        """The runs of trials that an earlier start left under way."""
        import optuna

        for frozen in self._begun:
            if frozen.state == optuna.trial.TrialState.RUNNING:
                self.study.sampler = sampler(self.runs.base.seed, frozen.number)
                yield from self._begin(optuna.trial.Trial(self.study, frozen._trial_id), frozen.last_step or 0)

    def _begin(self, trial: Trial, reported: int = 0) -> list[Job]:
        proposal = self.space.propose(trial)
        plan = self.runs.plan(trial.number, proposal)
        student = next(iter(plan.runs.values()))
        self._under_way[trial.number] = UnderWay(trial, proposal, student, reported)
        return plan.jobs

    def _look(self) -> bool:
        """Take up what there is to know of trials under way; returns whether there was anything."""
        news, reference = False, self.runs.validation(REFERENCE)
        for number, one in list(self._under_way.items()):
            before = one.reported
            self._report(one, reference)
            self._end(one)
            ended = self.study.get_trials(deepcopy=False)[number].state.is_finished()
            news = news or ended or one.reported > before
            if ended:
                del self._under_way[number]
        return news

    def _report(self, one: UnderWay, reference: Mapping[int, MetricValues]) -> None:
        """Tell Optuna of new epochs, until it says that the trial should not go on."""
        import optuna

        last = one.job.experiment.training.epochs
        for epoch, validation in sorted(self.runs.validation(one.trial.number).items()):
            if epoch <= one.reported:
                continue
            if epoch not in reference:  # kd has not come so far: nothing to hold it against yet
                return
            one.trial.report(self.goal.value(validation, reference[epoch]), epoch)
            one.reported = epoch
            # Asked of the starts too, so that they count among those that others must beat.
            worse = one.trial.should_prune() if epoch < last else False
            if worse and one.trial.number >= len(STARTS):
                self.study.tell(one.trial, state=optuna.trial.TrialState.PRUNED)
                self._to_stop.append(one.job.name)
                return

    def _end(self, one: UnderWay) -> None:
        """Tell Optuna of a run that ended."""
        import optuna

        frozen = self.study.get_trials(deepcopy=False)[one.trial.number]
        state = self._schedule.states.get(one.job.name)
        if frozen.state.is_finished() or state is None:
            return
        if state.state == run_files.FINISHED and one.reported == one.job.experiment.training.epochs:
            self.study.tell(one.trial, frozen.intermediate_values[one.reported])
        elif state.state == run_files.FAILED:
            if one.trial.number == REFERENCE:
                raise TrainingError(
                    f"kd, against which every trial is held, failed: {state.problem}; the same command tries it again"
                )
            self.study.tell(one.trial, state=optuna.trial.TrialState.FAIL)

    def content(self) -> list[TrialContent]:
        """Every trial that has begun, as it stands in `search.json`."""
        states = {
            "RUNNING": content.UNDER_WAY,
            "COMPLETE": content.FINISHED,
            "PRUNED": content.STOPPED_EARLY,
            "FAIL": content.FAILED,
        }
        reference = self.runs.validation(REFERENCE)
        found: list[TrialContent] = []
        for frozen in self._begun:
            proposal = Proposal({}, {}, "")
            with suppress(ValueError):  # killed while it was filled in
                proposal = proposal_of(self.space, frozen.params)
            epoch = frozen.last_step or 0
            validation = self.runs.validation(frozen.number).get(epoch)
            kd = reference.get(epoch)
            loss = kd["top1"] - validation["top1"] if validation and kd else None
            found.append(
                {
                    "number": frozen.number,
                    "state": states[frozen.state.name],
                    "words": proposal.words,
                    "parameters": dict(frozen.params),
                    "method": dict(proposal.method),
                    "recipe": dict(proposal.recipe),
                    "epochs": epoch,
                    "figure": self.goal.figure(validation) if validation else None,
                    "top1": validation["top1"] if validation else None,
                    "top1_loss": loss,
                    "within_bound": loss is not None and loss <= self.goal.top1_loss,
                    "folder": f"runs/{self.runs.run(frozen.number).path.name}",
                }
            )
        return found
