"""Stored test predictions: with them any metric can be computed again, without the model or the images."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from distail import files
from distail.errors import CheckpointError, DataError


def save_predictions(
    path: str | Path, logits_NC: Tensor, target_N: Tensor, teacher_logits_NC: Tensor | None = None
) -> None:
    """Write ``logits`` (N, C) as float32 and ``target`` (N,) as int64 into one safetensors file.

    The teacher's logits (N, C), where given, are stored as ``teacher_logits``. The file appears complete or not at all.

    Raises:
        DataError: shapes other than (N, C) and (N,).
    """
    if logits_NC.ndim != 2 or target_N.ndim != 1 or len(logits_NC) != len(target_N):
        raise DataError(
            f"got logits of shape {tuple(logits_NC.shape)} and labels of shape {tuple(target_N.shape)}; "
            "expected (samples, classes) and (samples,)."
        )
    tensors = {"logits": logits_NC.float(), "target": target_N.long()}
    if teacher_logits_NC is not None:
        tensors["teacher_logits"] = teacher_logits_NC.float()
    files.write_tensors(Path(path), tensors)


def load_predictions(path: str | Path) -> tuple[Tensor, Tensor]:
    """The stored logits (N, C) float32 and target (N,) int64.

    Raises:
        CheckpointError: no such file, a damaged one, or one that holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there are no predictions at {path}; a finished run leaves predictions.safetensors.")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}); evaluate the run again.") from error
    if missing := {"logits", "target"} - tensors.keys():
        raise CheckpointError(
            f"{path} lacks {', '.join(sorted(missing))}; expected the tensors logits and target, "
            f"found {', '.join(sorted(tensors)) or 'none'}."
        )
    logits_NC, target_N = tensors["logits"], tensors["target"]
    if logits_NC.ndim != 2 or target_N.shape != logits_NC.shape[:1]:
        raise CheckpointError(
            f"{path} holds logits of shape {tuple(logits_NC.shape)} and target of shape {tuple(target_N.shape)}; "
            "expected (samples, classes) and (samples,)."
        )
    return logits_NC.float(), target_N.long()
