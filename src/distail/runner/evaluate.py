"""The metrics of a finished run again, from its stored predictions: as they are, and adjusted by any tau."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from torch import Tensor

from distail.config.schema import Experiment
from distail.config.section import AUTO
from distail.config.tau import Tau
from distail.errors import ConfigError, DistailError
from distail.evaluation.adjustment import (
    TAU,
    Adjustment,
    chosen_on_few,
    corrects_twice,
    describe_adjustment,
    evaluate_adjusted,
    settle,
    tau_of,
)
from distail.evaluation.metrics import MetricValues
from distail.evaluation.predictions import Predictions, load_predictions
from distail.evaluation.run_files import RunResult
from distail.json_values import as_text, value_at
from distail.models.weights import read_metadata
from distail.runner.posterior import student_posterior, teacher_posterior
from distail.runner.run_folder import RunFolder

STAGES = ("teacher", "student")


class AdjustedTest(Adjustment):
    """The metrics of adjusted logits, and how they were adjusted."""

    test: MetricValues


@dataclass(frozen=True)
class Evaluation:
    """Metrics of the test set by stage; None for a teacher that there was not.

    Attributes:
        metrics: what `result.json` should hold as `test`.
        adjusted: of logits that were adjusted as asked, whatever `method.adjust` says; None where an image may have
            several classes, whose average precisions adjusting would not change.
        notes: how they were adjusted, and whether that corrects twice.
    """

    result: RunResult
    metrics: Mapping[str, MetricValues | None]
    adjusted: Mapping[str, AdjustedTest | None]
    notes: list[str]


def evaluate_run(run: RunFolder, adjust: Tau = TAU) -> Evaluation:
    """Every metric of the protocol, computed again.

    Args:
        run: the folder of a finished run.
        adjust: how far logits are adjusted; `auto` chooses on the validation split, for each network by itself.

    Raises:
        ConfigError: not the folder of a finished run, or `auto` without predictions of a validation split.
        CheckpointError: its files cannot be read.
    """
    result = run.stored_result()
    if result is None:
        raise ConfigError(
            f"{str(run.path)!r} is not the folder of a finished run: it has no result.json. "
            "Create or finish one with `distail run CONFIG`."
        )
    stored, counts = load_predictions(run.predictions), result["class_counts"]
    if adjust == AUTO and stored.validation is None and stored.target.ndim == 1:
        raise ConfigError(_no_validation(result))
    metrics: dict[str, MetricValues | None] = {}
    adjusted: dict[str, AdjustedTest | None] = {}
    notes: list[str] = []
    for stage in STAGES:
        metrics[stage], adjusted[stage] = None, None
        logits_NC = _logits(stored, stage)
        if logits_NC is None:
            continue
        test = (logits_NC, stored.target, counts)
        held_out = None
        if stored.validation is not None and (validation_NC := _logits(stored.validation, stage)) is not None:
            held_out = (validation_NC, stored.validation.target)
        metrics[stage] = evaluate_adjusted(*test, tau=tau_of(result, stage))
        if stored.target.ndim == 2:
            notes = ["logit adjustment does not change average precision: there is no such row"]
            continue
        if adjust == AUTO and held_out is None:
            notes.append(f"the {stage} has no stored predictions of the validation split: it is not adjusted")
            continue
        found = settle(adjust, held_out, counts)
        adjusted[stage] = {**found, "test": evaluate_adjusted(*test, tau=found["tau"])}
        posterior = as_text(value_at(result, f"posterior.{stage}")) or _posterior(run, stage)
        notes.append(describe_adjustment(f"the {stage}", found))
        if adjust == AUTO and held_out is not None:
            notes += [note for note in chosen_on_few(held_out[1], counts) if note not in notes]
        if found["tau"]:
            notes += corrects_twice(f"the {stage}", posterior, counts)
    return Evaluation(result, metrics, adjusted, notes)


def _logits(stored: Predictions, stage: str) -> Tensor | None:
    return stored.logits if stage == "student" else stored.teacher_logits


def _no_validation(result: RunResult) -> str:
    held_out = value_at(result, "config.data.validation")
    why = (
        "this run has none (data.validation is 0)"
        if held_out == 0
        else "an earlier version finished this run, and stored no predictions of it"
    )
    return (
        f"--adjust {AUTO} chooses tau on the validation split, never on the test set: {why}. Expected a "
        "number, such as --adjust 1"
    )


def _posterior(run: RunFolder, stage: str) -> str | None:
    """Of a run of an earlier version, whose result does not say; None where its files do not either."""
    with suppress(DistailError):
        experiment = Experiment.from_yaml(run.config)
        if stage == "student":
            return student_posterior(experiment)
        return teacher_posterior(experiment, read_metadata(run.weights(stage))) if experiment.teacher else None
    return None
