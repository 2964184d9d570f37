"""What the validation split says of a trial, epoch by epoch: of one run, or of one for each fold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distail.compare.draws import draws_of, out_of_fold, validation_of_run
from distail.config.data import Folds
from distail.config.schema import Experiment
from distail.data.prepare import PreparedData
from distail.errors import counted
from distail.evaluation.groups import FEW_IMAGES, images_of_tail
from distail.evaluation.headline import is_multi_label
from distail.evaluation.metrics import METRICS, MetricValues, metric_at, metric_values
from distail.evaluation.run_files import read_epochs
from distail.outputs import MULTI_LABEL
from distail.runner.run_folder import RunFolder


def students_of(base: Experiment, folder: Path, label: str, seed: int) -> list[RunFolder]:
    """Where the students of a trial and a seed are, one for each fold."""
    return [RunFolder(folder / "runs" / f"{label}-{draw.name}") for draw in draws_of(base, [seed])]


def validation_by_epoch(students: Sequence[RunFolder], epochs: int) -> dict[int, MetricValues]:
    """Epochs done to the metrics of the validation split, as far as the students of a seed have come.

    Of folds: while they train the mean over them, since only their metrics are kept by epoch; after the last epoch,
    once all are finished, the metrics of all examples together, each judged by the student that held it out.

    Raises:
        CheckpointError: a student is finished, but what it was judged by is lost.
    """
    found = [validation_of_run(student, epochs) for student in students]
    if len(found) == 1:
        return found[0]
    known = {
        epoch: _mean([each[epoch] for each in found]) for epoch in set.intersection(*map(set, found)) if epoch < epochs
    }
    if all(student.result.is_file() for student in students):
        known[epochs] = out_of_fold(students)
    return dict(sorted(known.items()))


def few_to_choose_on(base: Experiment, data: PreparedData) -> list[str]:
    """A sentence for the user, where one validation split hardly has any image of the rare classes."""
    if data.validation is None or isinstance(base.data.validation, Folds):
        return []
    what = "validation positive" if base.data.targets == MULTI_LABEL else "validation image"
    tail = images_of_tail(data.validation.labels, data.class_counts)
    if tail >= FEW_IMAGES:
        return []
    return [
        f"only {counted(tail, what)} of the tail third, by which trials are compared: the choice is "
        "uncertain; data.validation={folds: 5} judges them by every training image, in five times the time"
    ]


def _mean(folds: Sequence[MetricValues]) -> MetricValues:
    """Metric by metric, over the folds that have it."""
    means = {}
    for path in METRICS:
        values = [value for value in (metric_at(one, path) for one in folds) if value is not None]
        means[path] = sum(values) / len(values) if values else None
    return metric_values(means, None, multi_label=is_multi_label(folds[0]))


def seconds_before_training(folder: RunFolder) -> float:
    """What a finished run spent before its first step."""
    result = folder.stored_result()
    epochs = sum(row["seconds"] for row in read_epochs(folder.metrics)[0] if row["stage"].startswith("student"))
    return max(0.0, result["timing"]["student"]["seconds"] - epochs) if result else 0.0
