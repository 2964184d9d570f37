"""What a comparison trains each method on: a seed, and where validation goes by folds each of its folds.

A fold has no figure of its own: figures are of a seed, over all of its folds.

Shapes: N validation examples of all folds, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, NotRequired, TypedDict, TypeVar

import torch

from distail.config.data import Folds
from distail.config.schema import Experiment
from distail.errors import CheckpointError
from distail.evaluation.adjustment import tau_of
from distail.evaluation.average_precision import average_precisions_of_parts
from distail.evaluation.headline import headline_path
from distail.evaluation.metrics import MetricValues, evaluate_predictions, metric_at, multi_label_metrics
from distail.evaluation.predictions import load_predictions
from distail.evaluation.run_files import read_epochs
from distail.functional import remove_prior
from distail.json_values import as_items
from distail.runner.run_folder import RunFolder

Value = TypeVar("Value")


class DrawContent(TypedDict):
    """A draw as it stands in `comparison.json`."""

    seed: int
    fold: NotRequired[int]


class Draw(NamedTuple):
    """One run of a method: its seed, and the fold that it holds out; None without folds.

    >>> Draw(3).name, Draw(3, 1).name, Draw(3, 1).words
    ('seed3', 'seed3-fold1', 'seed 3, fold 1')
    """

    seed: int
    fold: int | None = None

    @property
    def name(self) -> str:
        """As it stands in the name of a folder."""
        return f"seed{self.seed}" if self.fold is None else f"seed{self.seed}-fold{self.fold}"

    @property
    def words(self) -> str:
        return f"seed {self.seed}" if self.fold is None else f"seed {self.seed}, fold {self.fold}"

    @property
    def key(self) -> str:
        """As it stands in `comparison.json` where a value is of one run."""
        return str(self.seed) if self.fold is None else f"{self.seed}-fold{self.fold}"

    @property
    def content(self) -> DrawContent:
        """What `comparison.json` says of it."""
        return {"seed": self.seed} if self.fold is None else {"seed": self.seed, "fold": self.fold}


def folds_of(experiment: Experiment) -> int | None:
    """Into how many folds the training examples go; None where a share of them is held out."""
    validation = experiment.data.validation
    return validation.folds if isinstance(validation, Folds) else None


def draws_of(experiment: Experiment, seeds: Iterable[int]) -> tuple[Draw, ...]:
    """Each seed, once for each fold.

    >>> base = {"name": "x", "student": "resnet8", "method": "ce"}
    >>> folded = Experiment.from_mapping({**base, "data": {"name": "digits", "validation": {"folds": 2}}})
    >>> [draw.name for draw in draws_of(folded, [0, 1])]
    ['seed0-fold0', 'seed0-fold1', 'seed1-fold0', 'seed1-fold1']
    """
    folds = folds_of(experiment)
    return tuple(Draw(seed, fold) for seed in seeds for fold in (range(folds) if folds else (None,)))


def with_draw(raw: Mapping[str, object], draw: Draw) -> dict[str, object]:
    """A configuration as the run of a draw has it."""
    changed = {**raw, "seed": draw.seed}
    data = raw["data"]
    if draw.fold is not None and isinstance(data, Mapping):
        changed["data"] = {**data, "validation": {**data["validation"], "fold": draw.fold}}
    return changed


def by_seed(values: Mapping[Draw, Value], draws: Iterable[Draw]) -> dict[int, list[Value]]:
    """The values of each seed's folds; none of a seed that lacks one, whose mean would be another mean.

    >>> by_seed({Draw(0, 0): 3.0, Draw(0, 1): 5.0, Draw(1, 0): 4.0}, [Draw(0, 0), Draw(0, 1), Draw(1, 0), Draw(1, 1)])
    {0: [3.0, 5.0]}
    """
    wanted: dict[int, list[Draw]] = {}
    for draw in draws:
        wanted.setdefault(draw.seed, []).append(draw)
    return {seed: [values[draw] for draw in own] for seed, own in wanted.items() if all(draw in values for draw in own)}


def validation_of_run(folder: RunFolder, epochs: int) -> dict[int, MetricValues]:
    """Epochs done to the metrics of the validation split, as far as a student has come; its last epoch is `epochs`.

    Raises:
        CheckpointError: the run is finished, but its last epoch is lost.
    """
    finished = folder.result.is_file()  # asked first: a run writes its result after its epochs
    found = {}
    for row in read_epochs(folder.metrics)[0]:
        validation = row["validation"] if row["stage"] == "student" else None
        if validation is not None and metric_at(validation, headline_path(validation)) is not None:
            found[row["epoch"] + 1] = validation
    if finished and epochs not in found:
        raise CheckpointError(
            f"{folder.metrics} lacks the last epoch; remove {folder.result.name} next to it, and the run is finished "
            "again from its checkpoint"
        )
    return found


def out_of_fold(folders: Sequence[RunFolder]) -> MetricValues:
    """Metrics of all training examples, each judged by the student that did not see it, adjusted as its run says.

    Of several classes per example the average precisions are means over folds: rankings of one student each.

    Args:
        folders: the finished runs of one seed, one for each fold.

    Raises:
        CheckpointError: what a run predicted is lost or damaged.
    """
    logits, targets = [], []
    counts: list[int] = []
    for folder in folders:
        validation = load_predictions(folder.predictions).validation
        result = folder.stored_result()
        if validation is None or result is None:
            raise CheckpointError(
                f"{folder.predictions} has no predictions for its fold; remove {folder.result.name} next to it, and "
                "the run is finished again from its checkpoint"
            )
        tau, own_counts = tau_of(result, "student"), list(as_items(result["class_counts"]))
        logits.append(remove_prior(validation.logits, own_counts, tau) if tau else validation.logits)
        targets.append(validation.target)
        counts = counts or own_counts
    if targets[0].ndim == 2:
        parts = list(zip(logits, targets, strict=True))
        return multi_label_metrics(average_precisions_of_parts(parts), counts)
    return evaluate_predictions(torch.cat(logits), torch.cat(targets), counts)
