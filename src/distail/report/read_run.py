"""A run's folder as a `ReportView`; what is missing or damaged is named on the page instead of raised."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distail.errors import CheckpointError, ConfigError, DistailError
from distail.evaluation.adjustment import adjusted_name, holds_prior, tau_of
from distail.evaluation.calibration import ReliabilityBin, reliability_bins
from distail.evaluation.checks import checked_predictions
from distail.evaluation.headline import is_multi_label
from distail.evaluation.metrics import MetricValues
from distail.evaluation.predictions import load_predictions
from distail.evaluation.run_files import EpochRow, RunFiles, clean_metrics, read_epochs, usable_counts
from distail.evaluation.teacher_bias import Flow, TeacherBias, error_flow, tail_errors, teacher_bias
from distail.functional import remove_prior
from distail.json_values import as_items, as_mapping, as_number, as_text, as_whole, read_json, value_at
from distail.methods.preset_table import reconstruction_notes
from distail.report.export_tables import read_export
from distail.report.mistakes import Mistakes, read_mistakes
from distail.report.samples import Samples, load_samples
from distail.report.views import Adjusted, BestEpoch, ReportView, Role, RunView


def is_run(folder: Path) -> bool:
    """Whether anything in the folder is what a run writes."""
    files = RunFiles(folder)
    return any(path.is_file() for path in (files.result, files.metrics, files.config))


def run_view_from_folder(folder: str | Path) -> ReportView:
    """Read `result.json`, `metrics.jsonl`, `predictions.safetensors` and `config.yaml` of a run.

    An unfinished or damaged run gives a view whose `problems` say what could not be read.

    Raises:
        ConfigError: the folder does not exist.
    """
    folder, files = Path(folder), RunFiles(Path(folder))
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {str(folder)!r}; expected a folder written by `distail run`.")
    problems: list[str] = []
    stored = _result(files.result, problems)
    result = stored or {}
    history = _history(files.metrics, problems)
    names, counts = ([], []) if stored is None else _classes(stored, problems)
    metrics = {stage: _metrics(result, stage, len(counts), problems) for stage in ("teacher", "student")}
    tau = tau_of(result, "student")
    predictions = _from_predictions(files.predictions, counts, tau, problems) if counts else _Predictions()
    method = result.get("method")
    student = method if isinstance(method, str) else "student"
    student = adjusted_name(student, tau) if tau else student
    labels = {"teacher": "teacher", "student": student}

    def view(stage: Role) -> RunView:
        return RunView(
            name=labels[stage],
            role=stage,
            metrics=metrics[stage],
            seconds=as_number(value_at(result, f"timing.{stage}.seconds")),
            parameters=as_whole(value_at(result, f"parameters.{stage}")),
            macs=as_whole(value_at(result, f"macs.{stage}")),
            size=as_whole(value_at(result, f"deployment.{stage}.bytes")) or _size(files.weights(stage)),
            latency=as_number(value_at(result, f"deployment.{stage}.latency.median_ms")),
            processor=as_text(value_at(result, f"deployment.{stage}.processor")),
            history=[row for row in history if row["stage"] == stage],
            reliability=predictions.reliability.get(stage, ()),
            predicted=predictions.predicted.get(stage, ()),
            error_flow=predictions.error_flow.get(stage),
            tail_errors=predictions.tail_errors.get(stage, ()),
            class_counts=counts,
            adjusted=_adjusted(result, stage, counts),
            best_on_validation=_best(result, len(counts)) if stage == "student" else None,
        )

    runs = [view("teacher"), view("student")]
    if runs[0].metrics is None and not runs[0].history:
        runs = runs[1:]
    multi_label = any(run.metrics is not None and is_multi_label(run.metrics) for run in runs)
    config = _config_text(files.config)
    return ReportView(
        title=str(result.get("name") or folder.resolve().name),
        runs=runs,
        class_names=names,
        class_counts=counts,
        bias=predictions.bias,
        config=config,
        versions={str(name): str(value) for name, value in as_mapping(result.get("versions")).items()},
        subset_sha256=as_text(result.get("subset_sha256")),
        test_sha256=as_text(value_at(result, "identity.test_data")),
        notes=[
            *(str(note) for note in as_items(result.get("notes"))),
            *reconstruction_notes(json.dumps([method, value_at(result, "config.method")]) + config),
        ],
        problems=problems,
        test_labels=predictions.labels,
        samples=_samples(files.samples, result, problems),
        exported=_exported(folder, problems),
        mistakes=None if multi_label else _mistakes(files.predictions_table, problems),
    )


def _result(path: Path, problems: list[str]) -> Mapping[str, object] | None:
    if not path.is_file():
        problems.append(f"This run is not finished: it has no {path.name}, so there are no test metrics yet.")
        return None
    try:
        return read_json(path)
    except CheckpointError as error:
        problems.append(f"{error}: there are no test metrics.")
        return None


def _classes(result: Mapping[str, object], problems: list[str]) -> tuple[list[str], list[int]]:
    counts = result.get("class_counts")
    if not isinstance(counts, list) or not usable_counts(counts):
        problems.append("result.json names no usable class_counts: nothing can be shown by class.")
        return [], []
    names = result.get("class_names")
    if not isinstance(names, list) or len(names) != len(counts):
        problems.append(f"result.json does not name its {len(counts)} classes: they are numbered instead.")
        names = [f"class {c}" for c in range(len(counts))]
    return [str(name) for name in names], counts


def _metrics(result: Mapping[str, object], stage: str, classes: int, problems: list[str]) -> MetricValues | None:
    metrics = value_at(result, f"{stage}.test")
    if metrics is None:
        return None
    clean = clean_metrics(metrics, classes) if classes else None
    if clean is None:
        problems.append(f"result.json holds no complete test metrics of the {stage}.")
    return clean


def _adjusted(result: Mapping[str, object], stage: str, counts: Sequence[int]) -> Adjusted | None:
    """The model with the log class priors subtracted, unless that was done in training or for its own metrics."""
    own = value_at(result, f"{stage}.adjust") is not None  # auto may have chosen 0
    if not counts or own or not holds_prior(value_at(result, f"posterior.{stage}"), counts):
        return None
    metrics = clean_metrics(value_at(result, f"{stage}.test_adjusted"), len(counts))
    return None if metrics is None else Adjusted(metrics)


def _best(result: Mapping[str, object], classes: int) -> BestEpoch | None:
    best = as_mapping(value_at(result, "student.best_on_validation"))
    metrics = clean_metrics(best.get("test"), classes) if classes else None
    tau = as_number(value_at(best, "adjust.tau"))
    return None if metrics is None else BestEpoch(as_whole(best.get("epoch")), metrics, tau)


def _size(weights: Path) -> int | None:
    """Of results of before, which do not tell."""
    try:
        return weights.stat().st_size
    except OSError:
        return None


def _history(path: Path, problems: list[str]) -> list[EpochRow]:
    try:
        rows, damaged = read_epochs(path)
    except OSError as error:
        problems.append(f"{path.name} cannot be read ({error}): there are no training curves.")
        return []
    if damaged:
        problems.append(f"{damaged} of {len(rows) + damaged} lines of {path.name} cannot be read and were left out.")
    return rows


@dataclass(frozen=True)
class _Predictions:
    """What stored test predictions tell, by stage."""

    reliability: Mapping[str, Sequence[ReliabilityBin]] = field(default_factory=dict)
    predicted: Mapping[str, Sequence[int]] = field(default_factory=dict)
    error_flow: Mapping[str, Flow] = field(default_factory=dict)
    tail_errors: Mapping[str, Sequence[int]] = field(default_factory=dict)
    labels: Sequence[int] = ()
    bias: TeacherBias | None = None


def _from_predictions(path: Path, counts: Sequence[int], tau: float, problems: list[str]) -> _Predictions:
    if not path.is_file():
        problems.append(
            f"There is no {path.name}: calibration, the teacher's bias and where tail predictions go are not shown."
        )
        return _Predictions()
    try:
        stored = load_predictions(path)
        if stored.target.ndim == 2:  # no answer is the one, which could be right or confused with another
            return _Predictions()
        teacher_NC = stored.teacher_logits
        logits_NC, target_N, _ = checked_predictions(stored.logits, stored.target, counts)
        logits_NC = remove_prior(logits_NC, counts, tau) if tau else logits_NC
        stages = {"student": logits_NC} if teacher_NC is None else {"student": logits_NC, "teacher": teacher_NC}
        predicted = {stage: logits.argmax(1) for stage, logits in stages.items()}
        flows = {stage: error_flow(named_N, target_N, counts) for stage, named_N in predicted.items()}
        return _Predictions(
            reliability={stage: reliability_bins(logits, target_N) for stage, logits in stages.items()},
            predicted={stage: named_N.tolist() for stage, named_N in predicted.items()},
            error_flow={stage: flow["flow"] for stage, flow in flows.items()},
            tail_errors={stage: tail_errors(named, target_N, counts).tolist() for stage, named in predicted.items()},
            labels=target_N.tolist(),
            bias=None if teacher_NC is None else teacher_bias(teacher_NC, target_N, counts),
        )
    except DistailError as error:
        problems.append(f"{path.name} cannot be used: {error}")
        return _Predictions()


def _samples(path: Path, result: Mapping[str, object], problems: list[str]) -> Samples | None:
    if not result or not path.is_file():
        return None
    try:
        return load_samples(path)
    except DistailError as error:
        problems.append(f"{path.name} cannot be used: {error}.")
        return None


def _exported(folder: Path, problems: list[str]) -> Mapping[str, object] | None:
    try:
        return read_export(folder)
    except DistailError as error:
        problems.append(f"{error}: the exported files are not shown.")
        return None


def _mistakes(path: Path, problems: list[str]) -> Mistakes | None:
    try:
        return read_mistakes(path)
    except DistailError as error:
        problems.append(f"{error}: mistakes are not shown by image.")
        return None


def _config_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        return ""
