"""The trials of a search: begun, watched epoch by epoch, and called off where others are better."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from distail.compare.plan import ComparisonConfig, Job, Plan, make_plan
from distail.compare.scheduler import Schedule
from distail.config.schema import Experiment
from distail.errors import ConfigError, TrainingError, counted, problems_in
from distail.evaluation import run_files
from distail.evaluation.metrics import MetricValues, metric_at
from distail.runner.run_folder import RunFolder
from distail.search import content
from distail.search.budget import Budget, Cost
from distail.search.content import TrialContent
from distail.search.goal import Goal
from distail.search.slots import REFERENCE
from distail.search.space import Proposal, Recipe, Space, proposal_of, reference_proposal
from distail.search.study import PROBLEM, next_trial, sampler, state_of
from distail.search.validation import seconds_before_training, students_of, validation_by_epoch

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

_MOST_EXCEEDED = 1.5  # of the minutes, by a search that a comparison of measured cost still follows
_FEW_TRIALS = 8  # without which nothing was searched
_SUGGESTIONS = 10  # that may repeat earlier trials, before one is drawn at random
_REPEATED = "repeated"


@dataclass(frozen=True)
class TrialRuns:
    """From proposals to runs: all from one teacher, all of one seed, one for each fold where there are folds.

    Attributes:
        base: the experiment that is searched for.
        folder: the search's.
    """

    base: Experiment
    folder: Path

    def plan(self, number: int, proposal: Proposal) -> Plan:
        """The runs of one trial: its students', and those of the teachers, which are the same for all.

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
        return validation_by_epoch(self.students(number), self.base.training.epochs)

    def students(self, number: int) -> list[RunFolder]:
        """Where a trial's students are, one for each fold."""
        return students_of(self.base, self.folder, f"trial-{number:03d}", self.base.seed)


@dataclass
class UnderWay:
    """A trial whose runs are not finished, and up to which epoch Optuna knows it."""

    trial: Trial
    proposal: Proposal
    jobs: list[Job]
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
        self._proposals: dict[int, Proposal] = {}
        self._ready = list(self._resumed())
        self._to_stop: list[str] = []
        self._teacher_seconds: float | None = None
        self._student_seconds: dict[int, float] = {}

    def more(self, free: int) -> Iterable[Job]:
        """Take up what the runs have come to, then begin as many trials as there is room for."""
        news = self._look()
        jobs, self._ready = self._ready, []
        while len(jobs) < free and self.budget.has_room(len(self._begun), self.cost, self._reserve):
            jobs += self._begin(*self._new_trial())
        if news or jobs:
            self._changed()
        return jobs

    def called_off(self) -> Iterable[str]:
        """Trials that did too badly up to here."""
        names, self._to_stop = self._to_stop, []
        return names

    @property
    def cost(self) -> Cost | None:
        """What runs take: students on average over trials that went to their end; None before the first has."""
        for trial in self._begun:
            if trial.state.name == "COMPLETE" and trial.number not in self._student_seconds:
                students = self.runs.students(trial.number)
                self._student_seconds[trial.number] = sum(self._seconds(one.path.name, one) for one in students)
        if REFERENCE not in self._student_seconds:
            return None
        if self._teacher_seconds is None:
            plan = self.runs.plan(REFERENCE, reference_proposal(self.runs.base))
            # What a teacher says of stored views is asked by the first of its students, for all of them.
            stores = self.runs.base.teacher is not None and self.runs.base.teacher.views
            asked = sum(seconds_before_training(job.folder) for job in plan.runs.values()) if stores else 0.0
            teachers = [teacher.job for teacher in plan.teachers]
            self._teacher_seconds = sum(self._seconds(job.name, job.folder) for job in teachers) + asked
            self._student_seconds[REFERENCE] = max(0.0, self._student_seconds[REFERENCE] - asked)
        return Cost(self._teacher_seconds, fmean(self._student_seconds.values()))

    def _seconds(self, name: str, folder: RunFolder) -> float:
        """What a run took; of one that an earlier start trained, its training alone is known."""
        result = folder.stored_result()
        trained = result["timing"]["student"]["seconds"] if result else 0.0
        return self._schedule.seconds.get(name, trained)

    def check_minutes(self) -> None:
        """Let pass minutes in which something could be tried, and which the comparison will not exceed by half.

        Raises:
            ConfigError: they were too few; what was trained stays.
        """
        if self.budget.minutes is None or self.cost is None:
            return
        needed = self.budget.seconds + self._reserve
        only_kd = len(self._begun) == 1 and self.budget.trials != 1
        if not only_kd and needed <= _MOST_EXCEEDED * 60 * self.budget.minutes:
            return
        least = math.ceil((needed + _FEW_TRIALS * self.cost.student / self._parallel) / 60)
        seeds, methods = self._comparison_runs
        raise ConfigError(
            f"--minutes {self.budget.minutes:g} are too few: a trial takes {self.cost.student / 60:.1f} minutes here, "
            f"the teacher {self.cost.teacher / 60:.1f}, and to compare {methods} methods over "
            f"{counted(seeds, 'other seed')} at the end takes about {self._reserve / 60:.0f}. Expected at least "
            f"{least}, or fewer --seeds; what is trained is kept; run the same command with more minutes to continue"
        )

    @property
    def _reserve(self) -> float:
        cost = self.cost
        return cost.comparison(*self._comparison_runs, self._parallel) if cost else 0.0

    @property
    def _begun(self) -> list[FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state.name != "WAITING" and _REPEATED not in trial.user_attrs]

    @property
    def _teacher_is_busy(self) -> bool:
        """Whether trials wait for a teacher that is still trained."""
        teachers = {job.after for one in self._under_way.values() for job in one.jobs if job.after is not None}
        states = [self._schedule.states.get(name) for name in teachers]
        return any(state is None or state.state != run_files.FINISHED for state in states)

    def _new_trial(self) -> tuple[Trial, Proposal]:
        """The next trial that differs from all before, since the same one again would train the same bits."""
        import optuna

        known = [self._proposal(trial) for trial in self._begun]
        for attempt in itertools.count():
            at_random = attempt >= _SUGGESTIONS
            trial = next_trial(
                self.study,
                self.runs.base.seed,
                self.space,
                at_random=at_random,
                teacher_is_busy=self._teacher_is_busy,
            )
            proposal = self.space.propose(trial)
            if proposal not in known:
                break
            trial.set_user_attr(_REPEATED, True)
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return trial, proposal

    def _proposal(self, trial: FrozenTrial) -> Proposal:
        # Kept, since what may be adjusted depends on the teacher's files, and every trial is asked for at every change.
        if trial.number not in self._proposals:
            with suppress(ValueError):  # killed while it was filled in
                self._proposals[trial.number] = proposal_of(self.space, trial.params)
        return self._proposals.get(trial.number, Proposal({}, {}, ""))

    def _resumed(self) -> Iterator[Job]:
        """What an earlier call left: trials under way, starts that failed, and runs whose result was removed since."""
        import optuna

        for frozen in self._begun:
            students = self.runs.students(frozen.number)
            if frozen.state.name == "COMPLETE" and not all(one.result.is_file() for one in students):
                yield from self.runs.plan(frozen.number, self._proposal(frozen)).jobs
            if frozen.state == optuna.trial.TrialState.RUNNING:
                self.study.sampler = sampler(self.runs.base.seed, frozen.number, self.space.starts)
                trial = optuna.trial.Trial(self.study, frozen._trial_id)
                if PROBLEM in frozen.user_attrs:
                    trial.set_user_attr(PROBLEM, None)
                yield from self._begin(trial, self.space.propose(trial), frozen.last_step or 0)

    def _begin(self, trial: Trial, proposal: Proposal, reported: int = 0) -> list[Job]:
        try:
            plan = self.runs.plan(trial.number, proposal)
        except ConfigError as error:  # such as a parameter of the classifier stage that this method does not have
            self._fail(trial, str(error))
            return []
        self._under_way[trial.number] = UnderWay(trial, proposal, list(plan.runs.values()), reported)
        return plan.jobs

    def _look(self) -> bool:
        """Take up what there is to know of trials under way; returns whether there was anything."""
        news, reference = False, self.runs.validation(REFERENCE)
        for number, one in list(self._under_way.items()):
            before = one.reported
            self._report(one, reference)
            self._end(one)
            ended = state_of(self.study.get_trials(deepcopy=False)[number]) != "RUNNING"
            news = news or ended or one.reported > before
            if ended:
                del self._under_way[number]
        return news

    def _report(self, one: UnderWay, reference: Mapping[int, MetricValues]) -> None:
        """Tell Optuna of new epochs, until it says that the trial should not go on."""
        import optuna

        last = self.runs.base.training.epochs
        for epoch, validation in sorted(self.runs.validation(one.trial.number).items()):
            if epoch <= one.reported:
                continue
            if epoch not in reference:  # kd has not come so far: nothing to hold it against yet
                return
            one.trial.report(self.goal.value(validation, reference[epoch]), epoch)
            one.reported = epoch
            # Asked of the starts too, so that they count among those that others must beat.
            worse = one.trial.should_prune() if epoch < last else False
            if worse and not self._goes_to_its_end(one):
                self.study.tell(one.trial, state=optuna.trial.TrialState.PRUNED)
                self._to_stop += [job.name for job in one.jobs]
                return

    def _goes_to_its_end(self, one: UnderWay) -> bool:
        """A start; and what costs nothing, whatever its recipe, so that a gain of the recipe is known as such."""
        return one.trial.number < self.space.starts or self.space.is_free(one.proposal)

    def _end(self, one: UnderWay) -> None:
        """Tell Optuna of a trial whose runs ended."""
        frozen = self.study.get_trials(deepcopy=False)[one.trial.number]
        states = [self._schedule.states.get(job.name) for job in one.jobs]
        if frozen.state.is_finished():
            return
        failed = next((state for state in states if state and state.state == run_files.FAILED), None)
        if failed is not None:
            if one.trial.number == REFERENCE:
                raise TrainingError(
                    f"kd, the reference of all trials, failed: {failed.problem}; run the same command again to retry it"
                )
            self._fail(one.trial, failed.problem)
            self._to_stop += [job.name for job in one.jobs]  # its other folds
        elif one.reported == self.runs.base.training.epochs and all(
            state and state.state == run_files.FINISHED for state in states
        ):
            self.study.tell(one.trial, frozen.intermediate_values[one.reported])

    def _fail(self, trial: Trial, problem: str | None) -> None:
        import optuna

        trial.set_user_attr(PROBLEM, problem)
        if trial.number >= self.space.starts:  # a start is tried again by the next call
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)

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
            proposal = self._proposal(frozen)
            epoch = frozen.last_step or 0
            validation = self.runs.validation(frozen.number).get(epoch)
            kd = reference.get(epoch)
            loss = self.goal.loss(validation, kd) if validation and kd else None
            found.append(
                {
                    "number": frozen.number,
                    "state": states[state_of(frozen)],
                    "problem": frozen.user_attrs.get(PROBLEM),
                    "words": proposal.words,
                    "parameters": dict(frozen.params),
                    "method": dict(proposal.method),
                    "recipe": dict(proposal.recipe),
                    "epochs": epoch,
                    "figure": self.goal.figure(validation) if validation else None,
                    "top1": metric_at(validation, "top1"),
                    "top1_loss": loss,
                    "within_bound": validation is not None and kd is not None and self.goal.allows(loss),
                    "folder": f"runs/{self.runs.students(frozen.number)[0].path.name}",
                }
            )
        return found
