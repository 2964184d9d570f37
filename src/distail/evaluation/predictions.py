"""Stored test predictions: with them any metric can be computed again, without the model or the images.

Shapes: C classes, N samples.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from distail import files
from distail.errors import CheckpointError, DataError


def save_predictions(
    path: str | Path, logits_NC: Tensor, target_N: Tensor, teacher_logits_NC: Tensor | None = None
) -> None:
    """Write ``logits`` (N, C) as float32 and ``target`` (N,) as int64 into one safetensors file.

    The teacher's logits (N, C), where given, are stored as ``teacher_logits``. The file appears complete or not at all.

    Raises:
        DataError: shapes other than (N, C) and (N,), or a teacher with another number of rows.
    """
    if logits_NC.ndim != 2 or target_N.ndim != 1 or len(logits_NC) != len(target_N):
        raise DataError(
            f"got logits of shape {tuple(logits_NC.shape)} and labels of shape {tuple(target_N.shape)}; "
            "expected (samples, classes) and (samples,)."
        )
    if teacher_logits_NC is not None and (teacher_logits_NC.ndim != 2 or len(teacher_logits_NC) != len(logits_NC)):
        raise DataError(
            f"got teacher logits of shape {tuple(teacher_logits_NC.shape)}; expected ({len(logits_NC)}, classes), "
            "a row for each of the student's."
        )
    tensors = {"logits": logits_NC.float(), "target": target_N.long()}
    if teacher_logits_NC is not None:
        tensors["teacher_logits"] = teacher_logits_NC.float()
    files.write_tensors(Path(path), tensors)


def save_predictions_table(
    path: Path, image_names: Sequence[str], logits_NC: Tensor, target_N: Tensor, class_names: Sequence[str]
) -> None:
    """Write CSV with the columns path, label, answer and probability, a line for each of N images."""
    table = StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["path", "label", "answer", "probability"])
    probability_N, answer_N = logits_NC.double().softmax(1).max(1)
    rows = zip(image_names, target_N.tolist(), answer_N.tolist(), probability_N.tolist(), strict=True)
    writer.writerows([name, class_names[label], class_names[answer], f"{p:.6f}"] for name, label, answer, p in rows)
    files.write_text(path, table.getvalue())


@dataclass(frozen=True)
class Predictions:
    """What a run predicted for the test images.

    Attributes:
        logits: the student's, (N, C) float32.
        target: labels, (N,) int64.
        teacher_logits: (N, C) float32 in the same order; None where none were stored.
    """

    logits: Tensor
    target: Tensor
    teacher_logits: Tensor | None


def load_predictions(path: str | Path) -> Predictions:
    """What `save_predictions` wrote.

    Raises:
        CheckpointError: no such file, a damaged one, or one that holds something else.
    """
    tensors = _checked_tensors(Path(path))
    return Predictions(tensors["logits"], tensors["target"], tensors.get("teacher_logits"))


def _checked_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"there are no predictions at {path}; a finished run leaves predictions.safetensors.")
    try:
        tensors, _ = files.read_tensors(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}); evaluate the run again.") from error
    if missing := {"logits", "target"} - tensors.keys():
        raise CheckpointError(
            f"{path} lacks {', '.join(sorted(missing))}; expected the tensors logits and target, "
            f"found {', '.join(sorted(tensors)) or 'none'}."
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    samples = shapes["logits"][:1]
    if (
        len(shapes["logits"]) != 2
        or shapes["target"] != samples
        or shapes.get("teacher_logits", samples)[:1] != samples
    ):
        raise CheckpointError(
            f"{path} holds {', '.join(f'{name} of shape {shape}' for name, shape in sorted(shapes.items()))}; "
            "expected logits (samples, classes) and target (samples,)."
        )
    return {name: tensor.long() if name == "target" else tensor.float() for name, tensor in tensors.items()}
