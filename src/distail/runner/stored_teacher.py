"""A file of answers as a run's teacher (`teacher: {logits: FILE}`): checked against the data, then looked up.

Shapes: N images, B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distail.config.reading import STORED
from distail.config.schema import Experiment
from distail.data.batches import Batch
from distail.data.dataset import Examples
from distail.data.prepare import PreparedData
from distail.errors import CheckpointError, DataError, Problems, counted
from distail.evaluation.array_file import ArrayFile, open_arrays
from distail.evaluation.other_order import spread_over
from distail.evaluation.run_files import StoredAnswers
from distail.evaluation.stored_logits import (
    LABELS,
    PROBABILITIES,
    StoredLogits,
    columns_of_classes,
    kind_of_answers,
    stored_logits,
)
from distail.files import file_hash
from distail.methods.composition import Composition
from distail.methods.presets import read_composition
from distail.outputs import Outputs
from distail.runner.answer_rows import AnswerRows, match_rows
from distail.runner.compositions import classifier_composition, read_method
from distail.torch_utils import to_device
from distail.training.frozen_teacher import Teacher


@dataclass(frozen=True)
class StoredTeacher:
    """What a file says of a run's images.

    Attributes:
        sha256: of the file.
        facts: texts beside its arrays.
        notes: sentences for the user.
    """

    path: Path
    sha256: str
    answers: StoredLogits
    matched: AnswerRows
    facts: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def views(self) -> int:
        """How many augmented views of each training image it knows; 0 where it knows the image as it is."""
        return self.matched.views

    def teacher(self, device: torch.device) -> Teacher:
        """What the loop asks: the rows of a batch, as new tensors on its device."""

        def answer(batch: Batch) -> Outputs:
            assert batch.row is not None, "batches that train say which rows they are"
            # Looked up on the CPU, where the file and the rows' numbers are: the host waits for no GPU.
            return Outputs(to_device(self.answers.rows(self.matched.train[batch.row]), device))

        return answer

    def logits(self, split: str) -> Tensor | None:
        """(N, C) logits of a split's images as they are, in their order; None where the file has none."""
        rows = {"train": self.matched.plain, "validation": self.matched.validation, "test": self.matched.test}[split]
        return None if rows is None else self.answers.rows(rows)

    def some_of_training(self, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and labels of a few training images, evenly spread."""
        some = spread_over(len(labels_N))
        return self.answers.rows(self.matched.train[some]), labels_N[some]

    def describe(self) -> StoredAnswers:
        """What `result.json` says of it."""
        kind = "top-k" if self.answers.top_k else "probabilities" if self.answers.kind == PROBABILITIES else "logits"
        return {
            "file": str(self.path),
            "sha256": self.sha256,
            "kind": kind,
            "top_k": self.answers.top_k,
            "views": self.views,
        }


def stored_teacher_problems(experiment: Experiment, compositions: Sequence[Composition]) -> list[str]:
    """What can be known to be wrong with `teacher.logits` before images are read.

    Args:
        compositions: of the methods that it is to teach with.
    """
    teacher, problems = experiment.teacher, Problems()
    assert teacher is not None
    assert teacher.logits is not None
    networks = {
        "model": teacher.model.name != STORED,
        "checkpoint": teacher.checkpoint is not None,
        "supervised": teacher.supervised is not None,
        "training": bool(teacher.training),
        "classifier": teacher.classifier != "linear",
    }
    given = [name for name, is_given in networks.items() if is_given]
    if given:
        problems.add(
            f"teacher: {' and '.join(given)} of a network in addition to teacher.logits, a file of predictions "
            f"that replaces the network; expected only teacher: {{logits: {teacher.logits}}}"
        )
    if teacher.stores_views:
        problems.add(f"teacher.views: {teacher.views}, but the file of teacher.logits has its own; leave it out")
    readers = dict.fromkeys(reader for each in compositions for reader in each.readers_of_teacher_features)
    if readers:
        problems.add(
            f"teacher.logits: {' and '.join(readers)} of method {experiment.method_name!r} reads the teacher's "
            "features, and a file of predictions has none; expected a teacher with a network, or "
            "method.representation=null"
        )
    file = problems.attempt(lambda: open_arrays(Path(str(teacher.logits))), "teacher.logits")
    if file is not None:
        problems.attempt(lambda: kind_of_answers(file), "teacher.logits")
    return problems.found


def open_stored_teacher(experiment: Experiment, data: PreparedData) -> StoredTeacher:
    """The file of `teacher.logits`, matched to the images of a run, and every number of it that training will use read.

    Raises:
        DataError: whatever is wrong with it, all of it listed.
    """
    options = experiment.teacher
    assert options is not None
    assert options.logits is not None
    path, problems = options.logits, Problems()
    file = open_arrays(path)
    columns = problems.attempt(lambda: columns_of_classes(file, data.class_names))
    shares = data.class_counts if options.rest == "class_shares" else None
    classes = len(data.class_names)
    answers = problems.attempt(lambda: stored_logits(file, classes, columns=columns, rest_shares=shares))
    matched = None
    if answers is not None:
        augment = experiment.model_dump(mode="json")["data"]["augment"]
        matched = problems.attempt(lambda: _matched(file, len(answers), columns, data, augment))
    if answers is not None and matched is not None:
        problems.add(*answers.problems(matched.used(len(answers))))
        problems.add(*_labels_problems(file, len(answers), columns, matched, data))
    if answers is not None and data.samples is not None and (answers.top_k or answers.kind == PROBABILITIES):
        problems.add(
            "it holds probabilities of one class per image, and here an image may have several; expected logits, the "
            "log odds of each class"
        )
    problems.stop(f"teacher.logits: {str(path)!r} cannot teach", DataError)
    assert answers is not None
    assert matched is not None
    labeled = any(name in file.names for name in LABELS)
    notes = _notes(experiment, answers, matched, data, reordered=columns is not None, labeled=labeled)
    return StoredTeacher(path, file_hash(path), answers, matched, file.facts, notes)


def refuse_another_file(teacher: StoredTeacher, began_with: object) -> None:
    """Let pass the file that a run began with.

    Raises:
        CheckpointError: it is another one.
    """
    if began_with is not None and began_with != teacher.sha256:
        raise CheckpointError(
            f"{str(teacher.path)!r} contains other predictions than this run started with; restore them, or start "
            "again with another output"
        )


def _matched(
    file: ArrayFile, count: int, columns: list[int] | None, data: PreparedData, augment: Sequence[Any]
) -> AnswerRows:
    """The rows of a run's images; where an id may be a row's number or the table's own, as the labels say."""
    matched = match_rows(file, count, data, augment)
    if matched.own_id is False and _labels_problems(file, count, columns, matched, data):
        other = match_rows(file, count, data, augment, own_id=True)
        if not _labels_problems(file, count, columns, other, data):
            return other
    return matched


def _labels_problems(
    file: ArrayFile, count: int, columns: list[int] | None, matched: AnswerRows, data: PreparedData
) -> list[str]:
    """Where the file's labels are not the data's: rows or classes are in another order than it says."""
    name = next((name for name in LABELS if name in file.names), None)
    if name is None:
        return []
    stored_M: Tensor | NDArray[np.bytes_] = file.read(name)
    if isinstance(stored_M, Tensor):
        as_text = stored_M.dtype == torch.uint8 and stored_M.ndim == 2 and data.samples is None
        stored_M = file.texts(name) if as_text else file.numbers(name)
    expected = (count,) if data.samples is None else (count, len(data.class_names))
    if stored_M.shape != expected:
        return [f"its {name} has the shape {tuple(stored_M.shape)}; expected {expected}, of each row"]
    splits: list[tuple[str, Tensor | None, Examples | None]] = [
        ("training", matched.plain if matched.plain is not None else matched.train[: len(data.train)], data.train),
        ("validation", matched.validation, data.validation),
        ("test", matched.test, data.test),
    ]
    problems = []
    for split, rows_N, images in splits:
        if rows_N is None or images is None:
            continue
        own_N = _labels_as_stored(images.labels, columns, data.class_names, isinstance(stored_M, Tensor))
        told_N = stored_M[rows_N.numpy()]
        differs_N = np.asarray(told_N) != np.asarray(own_N)
        wrong = np.flatnonzero(differs_N if differs_N.ndim == 1 else differs_N.any(1))
        if len(wrong):
            at = int(wrong[0])
            problems.append(
                f"its {name} differs from the labels of {len(wrong):,} of {len(own_N):,} {split} {images.noun}s, first "
                f"in row {int(rows_N[at])}: {_label(told_N[at])}, where the data has {_label(own_N[at])}. Are rows or "
                "classes in another order?"
            )
    return problems


def _labels_as_stored(
    labels_N: Tensor, columns: list[int] | None, class_names: Sequence[str], numbers: bool
) -> Tensor | NDArray[np.bytes_]:
    """The data's own labels as a file holds them: class names, or numbers in the file's order of the classes."""
    if not numbers:
        names = np.array([name.encode() for name in class_names])
        own_N: NDArray[np.bytes_] = names[labels_N.numpy()]
        return own_N
    if columns is None:
        return labels_N
    return torch.tensor(columns)[labels_N] if labels_N.ndim == 1 else labels_N[:, torch.tensor(columns).argsort()]


def _label(label: Any) -> str:
    """A label for people: a name, a number, or which of several classes there are."""
    if isinstance(label, bytes):
        return repr(label.decode("utf-8", "replace"))
    return str(int(label)) if label.ndim == 0 else str(torch.nonzero(label).flatten().tolist())


def _notes(
    experiment: Experiment,
    answers: StoredLogits,
    matched: AnswerRows,
    data: PreparedData,
    *,
    reordered: bool,
    labeled: bool,
) -> tuple[str, ...]:
    assert experiment.teacher is not None
    path, noun = experiment.teacher.logits, data.train.noun
    notes = []
    if experiment.data.augment and not matched.views:
        notes.append(
            f"stored predictions ignore augmentation: {path} has predictions for the "
            "unaugmented training images, whatever crop or flip the student sees; `distail teach --views K` stores K "
            "views"
        )
    if answers.top_k is not None and answers.top_k < answers.num_classes:
        spread = "evenly" if experiment.teacher.rest == "uniform" else f"by training {noun}s"
        notes.append(
            f"{path} holds the {answers.top_k} largest of {answers.num_classes} probabilities; the rest is spread "
            f"{spread} over the other classes (teacher.rest: {experiment.teacher.rest})"
        )
        late = read_composition(classifier_composition(experiment))
        removing = dict.fromkeys(read_method(experiment).targets_that_remove_priors + late.targets_that_remove_priors)
        if removing and experiment.teacher.rest == "uniform":
            notes[-1] += (
                f", and has no class priors that targets: {' and '.join(removing)} could remove from it: rare classes "
                "get too much of it; expected teacher.rest: class_shares"
            )
    if reordered:
        notes.append(f"{path} has the classes in another order than the data; they are matched by name")
    if matched.own_id:
        notes.append(f"rows of {path} are matched by the table's own column 'id'")
    elif matched.own_id is False and not labeled:
        notes.append(
            f"id of {path} is taken for the number of the row, from 0, but could be the table's own column 'id', which "
            "has other numbers: an array target in the file, of its labels, decides which"
        )
    if matched.surplus:
        notes.append(f"{counted(matched.surplus, 'row')} of {path} are of no {noun} of this run, and are not used")
    if matched.test is None:
        notes.append(f"{path} has no predictions for the test {noun}s: the teacher has no test metrics")
    if matched.validation is None and data.validation is not None:
        notes.append(f"{path} has no predictions for the validation {noun}s: the teacher has no metrics of them")
    return tuple(notes)
