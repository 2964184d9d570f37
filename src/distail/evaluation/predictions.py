"""Stored test predictions: with them any metric can be computed again, without the model or the images.

Shapes: C classes, N samples.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from distail import files
from distail.errors import CheckpointError, DataError
from distail.evaluation.calibration import top_confidence

THRESHOLD = 0.5
"""From which probability on a class is an answer, where an image may have several."""
VALIDATION = "validation_"  # before the names of what belongs to the validation split


@dataclass(frozen=True)
class Predictions:
    """What a run predicted for the test images.

    Attributes:
        logits: the student's, (N, C) float32, as the network gives them, whatever `method.adjust` makes of them.
        target: labels, (N,) int64; (N, C) bool where a sample has several classes.
        teacher_logits: (N, C) float32 in the same order; None where none were stored.
        validation: the same of the validation split; None where there is none, or an earlier version stored none.
    """

    logits: Tensor
    target: Tensor
    teacher_logits: Tensor | None
    validation: Predictions | None = None


def save_predictions(
    path: str | Path,
    logits_NC: Tensor,
    target_N: Tensor,
    teacher_logits_NC: Tensor | None = None,
    validation: Predictions | None = None,
) -> None:
    """Write ``logits`` (N, C) as float32 and ``target`` (N,) as int64 into one safetensors file.

    The teacher's logits (N, C), where given, are stored as ``teacher_logits``, what belongs to the validation split
    under the same names after ``validation_``. The file appears complete or not at all.

    Raises:
        DataError: shapes other than (N, C) and (N,), or a teacher with another number of rows.
    """
    tensors = _checked_for_writing(logits_NC, target_N, teacher_logits_NC)
    if validation is not None:
        held_out = _checked_for_writing(validation.logits, validation.target, validation.teacher_logits)
        tensors |= {f"{VALIDATION}{name}": tensor for name, tensor in held_out.items()}
    files.write_tensors(Path(path), tensors)


def _checked_for_writing(logits_NC: Tensor, target_N: Tensor, teacher_logits_NC: Tensor | None) -> dict[str, Tensor]:
    multi_label = target_N.ndim == 2 and target_N.shape == logits_NC.shape
    if logits_NC.ndim != 2 or not (target_N.ndim == 1 or multi_label) or len(logits_NC) != len(target_N):
        raise DataError(
            f"got logits of shape {tuple(logits_NC.shape)} and labels of shape {tuple(target_N.shape)}; "
            "expected (samples, classes) and (samples,)."
        )
    if teacher_logits_NC is not None and (teacher_logits_NC.ndim != 2 or len(teacher_logits_NC) != len(logits_NC)):
        raise DataError(
            f"got teacher logits of shape {tuple(teacher_logits_NC.shape)}; expected ({len(logits_NC)}, classes), "
            "a row for each of the student's."
        )
    tensors = {"logits": logits_NC.float(), "target": target_N if multi_label else target_N.long()}
    if teacher_logits_NC is not None:
        tensors["teacher_logits"] = teacher_logits_NC.float()
    return tensors


def save_predictions_table(
    path: Path, image_names: Sequence[str], logits_NC: Tensor, target_N: Tensor, class_names: Sequence[str]
) -> None:
    """Write CSV with the columns path, label, answer and probability, a line for each of N images.

    Where an image has several classes, labels (N, C) bool, all stand in its line with `|` between them: those that it
    has, those whose probability is at least a half, and the probabilities of these.
    """
    table = StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["path", "label", "answer", "probability"])
    if target_N.ndim == 2:
        writer.writerows(_multi_label_rows(image_names, logits_NC.double().sigmoid(), target_N, class_names))
        files.write_text(path, table.getvalue())
        return
    answers, probabilities = logits_NC.argmax(1).tolist(), top_confidence(logits_NC).tolist()
    rows = zip(image_names, target_N.tolist(), answers, probabilities, strict=True)
    writer.writerows([name, class_names[label], class_names[answer], f"{p:.6f}"] for name, label, answer, p in rows)
    files.write_text(path, table.getvalue())


def _multi_label_rows(
    image_names: Sequence[str], probability_NC: Tensor, target_NC: Tensor, class_names: Sequence[str]
) -> Iterator[list[str]]:
    for name, probabilities, has in zip(image_names, probability_NC.tolist(), target_NC.tolist(), strict=True):
        labels = [class_name for class_name, yes in zip(class_names, has, strict=True) if yes]
        answers = [(c, p) for c, p in zip(class_names, probabilities, strict=True) if p >= THRESHOLD]
        yield [name, "|".join(labels), "|".join(c for c, _ in answers), "|".join(f"{p:.6f}" for _, p in answers)]


def load_predictions(path: str | Path) -> Predictions:
    """What `save_predictions` wrote.

    Raises:
        CheckpointError: no such file, a damaged one, or one that holds something else.
    """
    path = Path(path)
    tensors = _read(path)
    held_out = {name.removeprefix(VALIDATION): own for name, own in tensors.items() if name.startswith(VALIDATION)}
    test = {name: own for name, own in tensors.items() if not name.startswith(VALIDATION)}
    return replace(_predictions(path, test), validation=_predictions(path, held_out) if held_out else None)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"there are no predictions at {path}; a finished run writes predictions.safetensors.")
    try:
        return files.read_tensors(path)[0]
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}); evaluate the run again.") from error


def _predictions(path: Path, tensors: Mapping[str, Tensor]) -> Predictions:
    if missing := {"logits", "target"} - tensors.keys():
        raise CheckpointError(
            f"{path} lacks {', '.join(sorted(missing))}; expected the tensors logits and target, "
            f"found {', '.join(sorted(tensors)) or 'none'}."
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    samples = shapes["logits"][:1]
    if (
        len(shapes["logits"]) != 2
        or shapes["target"] not in (samples, shapes["logits"])
        or shapes.get("teacher_logits", samples)[:1] != samples
    ):
        raise CheckpointError(
            f"{path} holds {', '.join(f'{name} of shape {shape}' for name, shape in sorted(shapes.items()))}; "
            "expected logits (samples, classes) and target (samples,)."
        )
    teacher_NC = tensors.get("teacher_logits")
    target = tensors["target"]
    return Predictions(
        tensors["logits"].float(),
        target.bool() if target.ndim == 2 else target.long(),
        None if teacher_NC is None else teacher_NC.float(),
    )
