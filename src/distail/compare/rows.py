"""The lines of a comparison: each network of its runs as it is, and adjusted after training where it holds the prior.

Shapes: B resampled test sets, N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Literal

import numpy as np
from torch import Tensor

from distail.compare.draws import Draw, by_seed
from distail.compare.plan import Job, Plan
from distail.errors import CheckpointError, DistailError
from distail.evaluation.adjustment import TAU, adjusted_name, holds_prior, tau_of
from distail.evaluation.bootstrap import Array, ImageFacts, bootstrap_metrics, image_facts
from distail.evaluation.groups import classes_by_group
from distail.evaluation.metrics import MetricValues, evaluate_predictions, metric_at
from distail.evaluation.predictions import Predictions, load_predictions
from distail.evaluation.run_files import RunResult
from distail.functional import remove_prior
from distail.json_values import as_text, value_at
from distail.outputs import MULTI_LABEL
from distail.runner.posterior import student_posterior, teacher_posterior

Stage = Literal["teacher", "student"]
FinishedRun = tuple[Job, RunResult]
Resampled = Mapping[str, Mapping[str, Mapping[int, Array]]]
"""Metric to label to seed to its values (B,) on B resampled test sets, the mean over folds where there are some."""


@dataclass(frozen=True)
class Row:
    """One network of a method over the seeds.

    Attributes:
        label: the method's, `teacher`, or one of these adjusted.
        runs: by draw the finished runs that tested it.
        draws: all that there are to be.
        adjusted: whether `TAU` of the prior is removed from its logits.
    """

    label: str
    stage: Stage
    runs: Mapping[Draw, FinishedRun]
    draws: Sequence[Draw]
    adjusted: bool = False

    def values(self, metric: str) -> dict[int, float]:
        """A metric by seed, where it was measured: the mean over its folds."""
        measured = {draw: metric_at(test, metric) for draw, test in self._tests.items()}
        known = {draw: value for draw, value in measured.items() if value is not None}
        return {seed: fmean(own) for seed, own in by_seed(known, self.draws).items()}

    def lacks_folds(self, metric: str) -> bool:
        """Whether of seeds that are finished some folds have a metric and others not: a group has no class in these."""
        tested = {draw: test for draw, test in self._tests.items() if test is not None}
        of_seeds = [metric_at(test, metric) for own in by_seed(tested, self.draws).values() for test in own]
        return any(value is not None for value in of_seeds) and not self.values(metric)

    def taus(self) -> dict[int, float]:
        """How far it is adjusted, by seed: the mean over its folds."""
        return {
            seed: fmean(own) for seed, own in by_seed({draw: self.tau(draw) for draw in self.runs}, self.draws).items()
        }

    def tau(self, draw: Draw) -> float:
        """How much of the prior is removed from its logits."""
        return TAU if self.adjusted else tau_of(self.runs[draw][1], self.stage)

    def logits(self, draw: Draw, stored: Predictions) -> Tensor | None:
        """The logits (N, C) that its metrics are of; None where they were not stored."""
        logits_NC = stored.logits if self.stage == "student" else stored.teacher_logits
        tau = self.tau(draw)
        if logits_NC is None or not tau:
            return logits_NC
        return remove_prior(logits_NC, self.runs[draw][1]["class_counts"], tau)

    @cached_property
    def _tests(self) -> dict[Draw, MetricValues | None]:
        return {draw: self._test(draw, *run) for draw, run in self.runs.items()}

    def _test(self, draw: Draw, job: Job, result: RunResult) -> MetricValues | None:
        network = result[self.stage]
        if network is None or not self.adjusted:
            return network and network["test"]
        if "test_adjusted" in network:
            return network["test_adjusted"]
        try:  # of a run of an earlier version, which stored the logits alone
            stored = load_predictions(job.folder.predictions)
            logits_NC, counts = self.logits(draw, stored), result["class_counts"]
            return None if logits_NC is None else evaluate_predictions(logits_NC, stored.target, counts)
        except DistailError:
            return None  # what is wrong with the file is told where the test images are drawn again


def method_rows(label: str, jobs: Mapping[Draw, Job], results: Mapping[Draw, RunResult]) -> list[Row]:
    """A method, and where its student learned the natural posterior, and was not adjusted already, it adjusted.

    Args:
        jobs: its runs by draw, at least one.
        results: of those that are finished.
    """
    plain = Row(label, "student", {draw: (jobs[draw], result) for draw, result in results.items()}, tuple(jobs))
    experiment = next(iter(jobs.values())).experiment
    settled = experiment.adjust is not None or experiment.data.targets == MULTI_LABEL
    # As the runs themselves say: a teacher that was yet to be trained is known to them.
    said = {as_text(value_at(result, "posterior.student")) for result in results.values()}
    learned = said.pop() if len(said) == 1 else None
    return _with_adjusted(plain, None if settled else learned or student_posterior(experiment))


def teacher_rows(plan: Plan, rows: Sequence[Row]) -> list[Row]:
    """Each kind of teacher as the students' runs measured it, and adjusted where it learned the natural posterior."""
    trained = {teacher.job.name: teacher for teacher in plan.teachers}
    kinds: dict[str, dict[Draw, FinishedRun]] = {}
    posteriors: dict[str, str | None] = {}
    for row in rows:
        for draw, (job, result) in row.runs.items():
            if result["teacher"] is None:
                continue
            own = trained.get(job.after or "")
            kind = own.supervised if own else ""
            kinds.setdefault(kind, {}).setdefault(draw, (job, result))
            learned = as_text(value_at(result, "posterior.teacher"))
            learned = learned or (student_posterior(own.job.experiment) if own else teacher_posterior(job.experiment))
            # Of several classes adjusting changes no average precision.
            posteriors.setdefault(kind, None if job.experiment.data.targets == MULTI_LABEL else learned)
    found: list[Row] = []
    for kind, runs in kinds.items():
        label = "teacher" if len(kinds) == 1 else f"teacher ({kind})"
        found += _with_adjusted(Row(label, "teacher", runs, plan.config.draws), posteriors[kind])
    return found


def _with_adjusted(plain: Row, posterior: str | None) -> list[Row]:
    counts = next((result["class_counts"] for _, result in plain.runs.values()), None)
    if not holds_prior(posterior, counts or (2, 1)):  # without a result nobody knows that they are all equal
        return [plain]
    return [plain, Row(adjusted_name(plain.label), plain.stage, plain.runs, plain.draws, adjusted=True)]


def resample(rows: Sequence[Row], notes: list[str]) -> Resampled:
    """Every row's metrics on resampled test sets; why a run has none is noted."""
    by_run: dict[str, list[tuple[Row, Draw]]] = {}  # of which one file at a time is in memory
    for row in rows:
        for draw, (job, _) in row.runs.items():
            by_run.setdefault(job.name, []).append((row, draw))
    # Seeds and folds may have their classes in other groups. Every family is resampled alike, so that all stay paired.
    families: dict[object, tuple[list[int], dict[tuple[str, Draw], ImageFacts]]] = {}
    target = None
    for of_run in by_run.values():
        first, draw = of_run[0]
        job, result = first.runs[draw]
        counts = result["class_counts"]
        groups = frozenset((path, frozenset(classes)) for path, classes in classes_by_group(counts).items())
        try:
            stored = load_predictions(job.folder.predictions)
            if target is not None and not stored.target.equal(target):
                raise CheckpointError("its test labels differ from those of the other runs.")
            for row, _ in of_run:
                if (logits_NC := row.logits(draw, stored)) is not None:
                    found = image_facts(logits_NC, stored.target, counts)
                    families.setdefault(groups, (counts, {}))[1][row.label, draw] = found
            target = stored.target
        except DistailError as error:
            notes.append(f"{first.label}, {draw.words}, is left out of the bootstrap over test images: {error}")
    if target is None:
        return {}
    by_path: dict[str, dict[str, dict[Draw, Array]]] = {}
    for counts, facts in families.values():
        for path, values_BR in bootstrap_metrics(target.numpy(), counts, list(facts.values())).items():
            for (label, draw), values_B in zip(facts, values_BR.T, strict=True):
                by_path.setdefault(path, {}).setdefault(label, {})[draw] = values_B
    draws = {row.label: row.draws for row in rows}
    return {
        path: {
            label: {seed: _mean_draws(own) for seed, own in by_seed(of_label, draws[label]).items()}
            for label, of_label in by_label.items()
        }
        for path, by_label in by_path.items()
    }


def _mean_draws(values: Sequence[Array]) -> Array:
    """Of folds; without them what there is, bit for bit."""
    return values[0] if len(values) == 1 else np.mean(values, axis=0)
