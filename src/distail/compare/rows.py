"""The lines of a comparison: each network of its runs as it is, and adjusted after training where it holds the prior.

Shapes: B resampled test sets, N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch import Tensor

from distail.compare.plan import Job, Plan
from distail.errors import CheckpointError, DistailError
from distail.evaluation.adjustment import TAU, adjusted_name, holds_prior, tau_of
from distail.evaluation.bootstrap import Array, ImageFacts, bootstrap_metrics, image_facts
from distail.evaluation.metrics import MetricValues, evaluate_predictions, metric_at
from distail.evaluation.predictions import Predictions, load_predictions
from distail.evaluation.run_files import RunResult
from distail.functional import remove_prior
from distail.json_values import as_text, value_at
from distail.runner.posterior import student_posterior, teacher_posterior

Stage = Literal["teacher", "student"]
FinishedRun = tuple[Job, RunResult]
Resampled = Mapping[str, Mapping[str, Mapping[int, Array]]]
"""Metric to label to seed to its values (B,) on B resampled test sets."""


@dataclass(frozen=True)
class Row:
    """One network of a method over the seeds.

    Attributes:
        label: the method's, `teacher`, or one of these adjusted.
        runs: by seed the finished runs that tested it.
        adjusted: whether `TAU` of the prior is removed from its logits.
    """

    label: str
    stage: Stage
    runs: Mapping[int, FinishedRun]
    adjusted: bool = False

    def values(self, metric: str) -> dict[int, float]:
        """A metric by seed, where it was measured."""
        measured = {seed: metric_at(test, metric) for seed, test in self._tests.items()}
        return {seed: value for seed, value in measured.items() if value is not None}

    def tau(self, seed: int) -> float:
        """How much of the prior is removed from its logits."""
        return TAU if self.adjusted else tau_of(self.runs[seed][1], self.stage)

    def logits(self, seed: int, stored: Predictions) -> Tensor | None:
        """The logits (N, C) that its metrics are of; None where they were not stored."""
        logits_NC = stored.logits if self.stage == "student" else stored.teacher_logits
        tau = self.tau(seed)
        if logits_NC is None or not tau:
            return logits_NC
        return remove_prior(logits_NC, self.runs[seed][1]["class_counts"], tau)

    @cached_property
    def _tests(self) -> dict[int, MetricValues | None]:
        return {seed: self._test(seed, *run) for seed, run in self.runs.items()}

    def _test(self, seed: int, job: Job, result: RunResult) -> MetricValues | None:
        network = result[self.stage]
        if network is None or not self.adjusted:
            return network and network["test"]
        if "test_adjusted" in network:
            return network["test_adjusted"]
        try:  # of a run of an earlier version, which stored the logits alone
            stored = load_predictions(job.folder.predictions)
            logits_NC, counts = self.logits(seed, stored), result["class_counts"]
            return None if logits_NC is None else evaluate_predictions(logits_NC, stored.target, counts)
        except DistailError:
            return None  # what is wrong with the file is told where the test images are drawn again


def method_rows(label: str, jobs: Mapping[int, Job], results: Mapping[int, RunResult]) -> list[Row]:
    """A method, and where its student learned the natural posterior, and was not adjusted already, it adjusted.

    Args:
        jobs: its runs by seed, at least one.
        results: of those that are finished.
    """
    plain = Row(label, "student", {seed: (jobs[seed], result) for seed, result in results.items()})
    experiment = next(iter(jobs.values())).experiment
    return _with_adjusted(plain, None if experiment.adjust is not None else student_posterior(experiment))


def teacher_rows(plan: Plan, rows: Sequence[Row]) -> list[Row]:
    """Each kind of teacher as the students' runs measured it, and adjusted where it learned the natural posterior."""
    trained = {teacher.job.name: teacher for teacher in plan.teachers}
    kinds: dict[str, dict[int, FinishedRun]] = {}
    posteriors: dict[str, str | None] = {}
    for row in rows:
        for seed, (job, result) in row.runs.items():
            if result["teacher"] is None:
                continue
            own = trained.get(job.after or "")
            kind = own.supervised if own else ""
            kinds.setdefault(kind, {}).setdefault(seed, (job, result))
            known = as_text(value_at(result, "posterior.teacher")) or teacher_posterior(job.experiment)
            posteriors.setdefault(kind, student_posterior(own.job.experiment) if own else known)
    found: list[Row] = []
    for kind, runs in kinds.items():
        label = "teacher" if len(kinds) == 1 else f"teacher ({kind})"
        found += _with_adjusted(Row(label, "teacher", runs), posteriors[kind])
    return found


def _with_adjusted(plain: Row, posterior: str | None) -> list[Row]:
    counts = next((result["class_counts"] for _, result in plain.runs.values()), None)
    if not holds_prior(posterior, counts or (2, 1)):  # without a result nobody knows that they are all equal
        return [plain]
    return [plain, Row(adjusted_name(plain.label), plain.stage, plain.runs, adjusted=True)]


def resample(rows: Sequence[Row], notes: list[str]) -> Resampled:
    """Every row's metrics on resampled test sets; why a run has none is noted."""
    by_run: dict[str, list[tuple[Row, int]]] = {}  # of which one file at a time is in memory
    for row in rows:
        for seed, (job, _) in row.runs.items():
            by_run.setdefault(job.name, []).append((row, seed))
    facts: dict[tuple[str, int], ImageFacts] = {}
    target = class_counts = None
    for of_run in by_run.values():
        first, seed = of_run[0]
        job, result = first.runs[seed]
        class_counts = class_counts or result["class_counts"]
        try:
            stored = load_predictions(job.folder.predictions)
            if target is not None and not stored.target.equal(target):
                raise CheckpointError("the labels of its test images are not those of the other runs.")
            for row, _ in of_run:
                if (logits_NC := row.logits(seed, stored)) is not None:
                    facts[row.label, seed] = image_facts(logits_NC, stored.target, class_counts)
            target = stored.target
        except DistailError as error:
            notes.append(f"{first.label}, seed {seed}, is left out of what other test images would say: {error}")
    if target is None or class_counts is None:
        return {}
    values = bootstrap_metrics(target.numpy(), class_counts, list(facts.values()))
    resampled: dict[str, dict[str, dict[int, Array]]] = {}
    for path, values_BR in values.items():
        by_label = resampled.setdefault(path, {})
        for (label, seed), values_B in zip(facts, values_BR.T, strict=True):
            by_label.setdefault(label, {})[seed] = values_B
    return resampled
