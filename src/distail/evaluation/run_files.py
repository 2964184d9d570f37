"""What a run leaves in its folder: the names of its files, and what `result.json` and `metrics.jsonl` hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NotRequired, TypedDict, TypeVar, cast

from distail.errors import CheckpointError
from distail.evaluation.adjustment import Adjustment
from distail.evaluation.headline import BALANCED_ACCURACY, MEAN_AVERAGE_PRECISION, is_multi_label
from distail.evaluation.metrics import METRICS, MetricValues, metric_values
from distail.json_values import as_items, as_mapping, as_number, as_whole, read_json, value_at
from distail.latency import Latency

SCHEMA_VERSION = 1
RUNNING, FINISHED, FAILED, STOPPED, MISSING = "running", "finished", "failed", "stopped", "missing"
"""How a run stands, in status files and in `comparison.json`."""

T = TypeVar("T")


@dataclass(frozen=True)
class RunFiles:
    """Paths in a run's folder; nothing is created until something is written."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def metrics(self) -> Path:
        """One line an epoch of each stage."""
        return self.path / "metrics.jsonl"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.safetensors"

    @property
    def predictions_table(self) -> Path:
        """The student's answer for each test image: path, label, answer, probability."""
        return self.path / "predictions.csv"

    @property
    def samples(self) -> Path:
        return self.path / "samples.safetensors"

    @property
    def skipped(self) -> Path:
        """Images that could not be read and were left out (`skip_unreadable`), one per line."""
        return self.path / "skipped_images.txt"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def weights(self, stage: str) -> Path:
        """`teacher.safetensors` or `student.safetensors`."""
        return self.path / f"{stage}.safetensors"

    def checkpoints(self, stage: str) -> Path:
        return self.path / "checkpoints" / stage


class EpochRow(TypedDict):
    """A line of `metrics.jsonl`: one epoch of one stage, counted from 0."""

    stage: str
    epoch: int
    loss: float
    terms: dict[str, float]
    statistics: dict[str, float]
    learning_rate: float
    validation: MetricValues | None
    seconds: float
    images_per_second: float


class StageResult(TypedDict):
    """A network after its last epoch: with the weights of its last step, or with their moving average.

    Attributes:
        test: of its logits, of a student with `method.adjust` those adjusted by its `adjust`.
        test_adjusted: of its logits adjusted with tau 1, whatever `test` is of; results of before lack it.
    """

    test: MetricValues
    test_adjusted: NotRequired[MetricValues]
    weights: NotRequired[Literal["last", "averaged"]]


class StoredAnswers(TypedDict):
    """The file that taught in place of a network, and its kind: `logits`, `probabilities` or `top-k`."""

    file: str
    sha256: str
    kind: str
    top_k: int | None
    views: int


class TeacherResult(TypedDict):
    """The teacher, as `StageResult`.

    Attributes:
        test, test_adjusted: None where `stored`, a file of answers, has none for the test images.
    """

    test: MetricValues | None
    test_adjusted: NotRequired[MetricValues | None]
    weights: NotRequired[Literal["last", "averaged"]]
    stored: NotRequired[StoredAnswers]


class BestOnValidation(TypedDict):
    """The student after the epoch that did best on the validation split, counted from 0."""

    epoch: int
    validation: MetricValues
    test: MetricValues
    adjust: NotRequired[Adjustment]


class StudentResult(StageResult):
    """The student; without a validation split there is no best epoch.

    Attributes:
        adjust: with `method.adjust` the adjustment that `test` is of, by a tau that was given or that the validation
            split chose; None without.
    """

    adjust: NotRequired[Adjustment | None]
    best_on_validation: BestOnValidation | None


class Timing(TypedDict):
    """What training took, and its training images per second."""

    seconds: float
    images_per_second: float


class Deployment(TypedDict):
    """What a network costs where it is used.

    Attributes:
        bytes: of its file of weights.
        latency: of one image, in PyTorch on one thread of `processor`, whatever device it was trained on, in
            milliseconds of processor time (of the wall clock where a system does not tell that); None where it could
            not be measured.
    """

    bytes: int
    latency: Latency | None
    processor: str


class ByStage(TypedDict, Generic[T]):
    """One value for each network; None where there is no teacher, or for a time where it was not trained here."""

    teacher: T | None
    student: T


class RunResult(TypedDict):
    """`result.json`: a contract, whose changes raise `SCHEMA_VERSION`.

    Attributes:
        posterior: which class posterior the terms of each network aim at: `natural` (with the prior), `balanced`
            (without it), `mixed`, or None where none is known.
        deployment: results of before lack it.
    """

    schema_version: int
    name: str
    seed: int
    method: str
    class_names: list[str]
    class_counts: list[int]
    subset_sha256: str
    notes: NotRequired[list[str]]
    identity: NotRequired[dict[str, Any]]
    teacher: TeacherResult | None
    student: StudentResult
    timing: ByStage[Timing]
    posterior: NotRequired[ByStage[str | None]]
    parameters: ByStage[int]
    macs: ByStage[int]
    deployment: NotRequired[ByStage[Deployment]]
    versions: dict[str, str]
    config: dict[str, Any]


class OtherVersionError(CheckpointError):
    """A result that another version of this package wrote: not damaged, and not to be written over."""


def read_result(path: Path) -> RunResult:
    """A `result.json` of this version.

    Raises:
        CheckpointError: it cannot be read, or lacks what everyone counts on: class counts, and the test metrics of its
            networks. Other keys are as they stand in the file.
        OtherVersionError: it is another version's.
    """
    try:
        content = read_json(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; remove it to finish the run again") from None
    if content.get("schema_version") != SCHEMA_VERSION:
        raise OtherVersionError(f"{path} is not a result of this version (schema {SCHEMA_VERSION})")
    unusable = _unusable(content)
    if unusable:
        raise CheckpointError(
            f"{path} cannot be read (it holds no usable {' and '.join(unusable)}); remove it to finish the run again"
        )
    return cast(RunResult, content)


def _unusable(content: dict[str, Any]) -> list[str]:
    counts = content.get("class_counts")
    if not usable_counts(counts):
        return ["class_counts"]
    untested = "teacher" in content and (content["teacher"] is None or _has_no_test_answers(content["teacher"]))
    stages = ["student"] if untested else ["student", "teacher"]
    classes = len(as_items(counts))
    return [f"{stage}.test" for stage in stages if clean_metrics(value_at(content, f"{stage}.test"), classes) is None]


def _has_no_test_answers(teacher: object) -> bool:
    found = as_mapping(teacher)
    return bool(as_mapping(found.get("stored"))) and "test" in found and found["test"] is None


def usable_counts(value: object) -> bool:
    """Whether this is a list of training images for at least one class."""
    counts = [as_whole(count) for count in as_items(value)]
    return bool(counts) and all(count is not None and count >= 1 for count in counts)


def clean_metrics(value: object, classes: int) -> MetricValues | None:
    """Metrics of `evaluate_predictions` for that many classes, numbers or None throughout; None where they are not.

    A metric that a result of an earlier version lacks is None.
    """
    found = as_mapping(value)
    multi_label = is_multi_label(found)
    per_class = as_items(found.get("per_class_average_precision" if multi_label else "per_class_recall"))
    by_path = {path: as_number(value_at(found, path)) for path in METRICS}
    needed = (MEAN_AVERAGE_PRECISION,) if multi_label else ("top1", BALANCED_ACCURACY)
    if any(by_path[path] is None for path in needed) or len(per_class) != classes:
        return None
    return metric_values(by_path, [as_number(value) for value in per_class], multi_label=multi_label)


def read_epochs(path: Path) -> tuple[list[EpochRow], int]:
    """The rows of a `metrics.jsonl`, and how many of its lines are none, as one that a kill cut off; no file, no rows.

    Raises:
        OSError: the file cannot be read.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    rows = [row for row in map(_epoch_row, lines) if row is not None]
    return rows, len(lines) - len(rows)


def _epoch_row(line: str) -> EpochRow | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    known = isinstance(row, dict) and isinstance(row.get("stage"), str) and as_whole(row.get("epoch")) is not None
    return cast(EpochRow, row) if known else None
