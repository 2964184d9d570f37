"""What every evaluation accepts: finite logits (N, C) and one label within range for each row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distail.errors import DataError
from distail.evaluation.groups import checked_counts


def checked_predictions(
    logits_NC: Tensor, target_N: Tensor, class_counts: Sequence[int] | Tensor
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """The three as CPU tensors (floating, int64) and a tuple of ints, or an error that says what does not fit.

    Raises:
        DataError: shapes that do not match, nothing to evaluate, logits that are not finite, labels out of range.
    """
    logits = torch.as_tensor(logits_NC).detach().cpu()
    target = torch.as_tensor(target_N).detach().cpu()
    counts = checked_counts(class_counts)
    if logits.ndim != 2 or target.ndim != 1 or len(logits) != len(target):
        raise DataError(
            f"got logits of shape {tuple(logits.shape)} and labels of shape {tuple(target.shape)}; "
            "expected (samples, classes) and (samples,)."
        )
    if not logits.is_floating_point() or target.is_floating_point():
        raise DataError(f"got {logits.dtype} logits and {target.dtype} labels; expected floats and whole numbers.")
    if len(target) == 0:
        raise DataError("there is nothing to evaluate: the logits have no rows. Expected at least one test image.")
    if logits.shape[1] != len(counts):
        raise DataError(f"the logits have {logits.shape[1]} classes, but class_counts names {len(counts)}.")
    bad_row_N = ~torch.isfinite(logits).all(dim=1)
    if bad_row_N.any():
        raise DataError(
            f"{int(bad_row_N.sum())} of {len(target)} rows of logits are not finite (NaN or infinite); "
            f"the first is row {int(bad_row_N.int().argmax())}."
        )
    target = target.long()
    outside_N = (target < 0) | (target >= len(counts))
    if outside_N.any():
        row = int(outside_N.int().argmax())
        raise DataError(
            f"{int(outside_N.sum())} of {len(target)} labels lie outside 0 to {len(counts) - 1}; "
            f"the first is {int(target[row])} in row {row}."
        )
    return logits, target, counts
