"""A run's folder as a `ReportView`; what is missing or damaged is named on the page instead of raised."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distail.errors import ConfigError, DistailError
from distail.evaluation.calibration import ReliabilityBin, reliability_bins
from distail.evaluation.checks import checked_predictions
from distail.evaluation.predictions import load_predictions, load_teacher_logits
from distail.evaluation.teacher_bias import flow_of_predictions, tail_errors, teacher_bias
from distail.report.json_values import clean_metrics, items, mapping, number, usable_counts, whole
from distail.report.samples import Samples, load_samples
from distail.report.views import ReportView, Role, RunView

RECONSTRUCTIONS = {
    "krdistill": "KRDistill's equations are not public: its results here come from a reconstruction, not from the "
    "authors' method.",
    "balanced_prototypes": "KRDistill's equations are not public: balanced prototypes are a reconstruction.",
}


def is_run(folder: Path) -> bool:
    """Whether anything in the folder is what a run writes."""
    return any((folder / name).is_file() for name in ("result.json", "metrics.jsonl", "config.yaml"))


def run_view_from_folder(folder: str | Path) -> ReportView:
    """Read `result.json`, `metrics.jsonl`, `predictions.safetensors` and `config.yaml` of a run.

    An unfinished or damaged run gives a view whose `problems` say what could not be read.

    Raises:
        ConfigError: the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {str(folder)!r}; expected the folder that `distail run` left.")
    problems: list[str] = []
    stored = _result(folder, problems)
    result = stored or {}
    history = _history(folder, problems)
    names, counts = ([], []) if stored is None else _classes(stored, problems)
    figures = {stage: _figures(result, stage, len(counts), problems) for stage in ("teacher", "student")}
    predictions = _from_predictions(folder, counts, problems) if counts else _Predictions()
    method = result.get("method")
    labels = {"teacher": "teacher", "student": method if isinstance(method, str) else "student"}

    def view(stage: Role) -> RunView:
        best = mapping(mapping(result.get("student")).get("best_on_validation")) if stage == "student" else {}
        return RunView(
            name=labels[stage],
            role=stage,
            figures=figures[stage],
            seconds=number(mapping(mapping(result.get("timing")).get(stage)).get("seconds")),
            parameters=whole(mapping(result.get("parameters")).get(stage)),
            macs=whole(mapping(result.get("macs")).get(stage)),
            history=[row for row in history if row.get("stage") == stage],
            reliability=predictions.reliability.get(stage, ()),
            predicted=predictions.predicted.get(stage, ()),
            error_flow=predictions.error_flow.get(stage),
            tail_errors=predictions.tail_errors.get(stage, ()),
            class_counts=counts,
            best_on_validation=_best(best, len(counts)),
        )

    runs = [view("teacher"), view("student")]
    if runs[0].figures is None and not runs[0].history:
        runs = runs[1:]
    config = _config_text(folder)
    asked = json.dumps([method, mapping(result.get("config")).get("method")])
    return ReportView(
        title=str(result.get("name") or folder.resolve().name),
        runs=runs,
        class_names=names,
        class_counts=counts,
        bias=predictions.bias,
        config=config,
        versions={str(name): str(value) for name, value in mapping(result.get("versions")).items()},
        subset_sha256=result.get("subset_sha256") if isinstance(result.get("subset_sha256"), str) else None,
        notes=[
            *(str(note) for note in items(result.get("notes"))),
            *[note for name, note in RECONSTRUCTIONS.items() if name in asked or f" {name}" in config][:1],
        ],
        problems=problems,
        test_labels=predictions.labels,
        samples=_samples(folder, result, problems),
    )


def _result(folder: Path, problems: list[str]) -> Mapping[str, Any] | None:
    path = folder / "result.json"
    if not path.is_file():
        problems.append("This run is not finished: it has no result.json, so there are no test figures yet.")
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"result.json cannot be read ({error}): there are no test figures.")
        return None
    if not isinstance(content, Mapping):
        problems.append("result.json holds no mapping: there are no test figures.")
        return None
    return content


def _classes(result: Mapping[str, Any], problems: list[str]) -> tuple[list[str], list[int]]:
    counts = result.get("class_counts")
    if not isinstance(counts, list) or not usable_counts(counts):
        problems.append("result.json names no usable class_counts: nothing can be shown by class.")
        return [], []
    names = result.get("class_names")
    if not isinstance(names, list) or len(names) != len(counts):
        problems.append(f"result.json does not name its {len(counts)} classes: they are numbered instead.")
        names = [f"class {c}" for c in range(len(counts))]
    return [str(name) for name in names], counts


def _figures(result: Mapping[str, Any], stage: str, classes: int, problems: list[str]) -> Mapping[str, Any] | None:
    figures = mapping(result.get(stage)).get("test")
    if figures is None:
        return None
    clean = clean_metrics(figures, classes) if classes else None
    if clean is None:
        problems.append(f"result.json holds no complete test figures of the {stage}.")
    return clean


def _best(best: Mapping[str, Any], classes: int) -> Mapping[str, Any] | None:
    figures = clean_metrics(best.get("test"), classes) if classes else None
    return None if figures is None else {"epoch": whole(best.get("epoch")), "test": figures}


def _history(folder: Path, problems: list[str]) -> list[Mapping[str, Any]]:
    path = folder / "metrics.jsonl"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    except OSError as error:
        problems.append(f"metrics.jsonl cannot be read ({error}): there are no training curves.")
        return []
    rows: list[Mapping[str, Any]] = []
    damaged = 0
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, Mapping) and whole(row.get("epoch")) is not None:
            rows.append(row)
        else:
            damaged += 1
    if damaged:
        problems.append(f"{damaged} of {len(lines)} lines of metrics.jsonl cannot be read and were left out.")
    return rows


@dataclass(frozen=True)
class _Predictions:
    """What stored test predictions tell, by stage."""

    reliability: Mapping[str, Sequence[ReliabilityBin]] = field(default_factory=dict)
    predicted: Mapping[str, Sequence[int]] = field(default_factory=dict)
    error_flow: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tail_errors: Mapping[str, Sequence[int]] = field(default_factory=dict)
    labels: Sequence[int] = ()
    bias: Mapping[str, Any] | None = None


def _from_predictions(folder: Path, counts: Sequence[int], problems: list[str]) -> _Predictions:
    path = folder / "predictions.safetensors"
    if not path.is_file():
        problems.append(
            "There is no predictions.safetensors: calibration, the teacher's bias and where tail predictions go are "
            "not shown."
        )
        return _Predictions()
    try:
        logits_NC, target_N = load_predictions(path)
        teacher_NC = load_teacher_logits(path)
        logits_NC, target_N, _ = checked_predictions(logits_NC, target_N, counts)
        stages = {"student": logits_NC} if teacher_NC is None else {"student": logits_NC, "teacher": teacher_NC}
        predicted = {stage: logits.argmax(1) for stage, logits in stages.items()}
        flows = {stage: flow_of_predictions(named_N, target_N, counts) for stage, named_N in predicted.items()}
        return _Predictions(
            reliability={stage: reliability_bins(logits, target_N) for stage, logits in stages.items()},
            predicted={stage: named_N.tolist() for stage, named_N in predicted.items()},
            error_flow={stage: flow["flow"] for stage, flow in flows.items()},
            tail_errors={stage: tail_errors(named, target_N, counts).tolist() for stage, named in predicted.items()},
            labels=target_N.tolist(),
            bias=None if teacher_NC is None else teacher_bias(teacher_NC, target_N, counts),
        )
    except DistailError as error:
        problems.append(f"predictions.safetensors cannot be used: {error}")
        return _Predictions()


def _samples(folder: Path, result: Mapping[str, Any], problems: list[str]) -> Samples | None:
    path = folder / "samples.safetensors"
    if not result or not path.is_file():
        return None
    try:
        return load_samples(path)
    except DistailError as error:
        problems.append(f"samples.safetensors cannot be used: {error}.")
        return None


def _config_text(folder: Path) -> str:
    path = folder / "config.yaml"
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        return ""
