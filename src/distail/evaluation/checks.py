"""What every evaluation accepts: finite logits (N, C) and one label within range for each row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from distail.errors import DataError, listed
from distail.evaluation.groups import checked_counts

_NUMBERS_AT_ONCE = 1_000_000


def rows_at_once(logits_NC: Tensor) -> int:
    """How many rows hold about a million numbers: what is made of so many stays small, whatever N and C are."""
    return max(1, _NUMBERS_AT_ONCE // max(1, logits_NC.shape[1]))


def by_rows(work: Callable[..., Tensor], first_NC: Tensor, *others: Tensor, dtype: torch.dtype) -> Tensor:
    """One number per row, (N,), of tensors with N rows each, worked on in blocks of rows.

    >>> by_rows(lambda rows, label: rows.sum(1) + label, torch.ones(2, 3), torch.tensor([0, 1]), dtype=torch.float64)
    tensor([3., 4.], dtype=torch.float64)
    """
    # Filled in place: small tensors kept between large ones that come and go would leave holes in memory.
    found_N = torch.empty(len(first_NC), dtype=dtype)
    at_once = rows_at_once(first_NC)
    for first in range(0, len(found_N), at_once):
        block = slice(first, first + at_once)
        found_N[block] = work(*(part[block] for part in (first_NC, *others)))
    return found_N


def checked_predictions(
    logits_NC: Tensor, target_N: Tensor, class_counts: Sequence[int] | Tensor, *, multi_label: bool = False
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """The three as CPU tensors (floating, int64) and a tuple of ints, or an error that says all that does not fit.

    With `multi_label` labels are (N, C) bool: which classes each sample has.

    Raises:
        DataError: shapes that do not match, nothing to evaluate, logits that are not finite, labels out of range,
            counts below 1. Several problems are listed.
    """
    logits = torch.as_tensor(logits_NC).detach().cpu()
    target = torch.as_tensor(target_N).detach().cpu()
    problems = (_matrix_problems if multi_label else _shape_problems)(logits, target)
    if not problems:
        problems = [*_logit_problems(logits), *([] if multi_label else _label_problems(target, logits.shape[1]))]
    counts: tuple[int, ...] = ()
    try:
        counts = checked_counts(class_counts)
    except DataError as error:
        problems.append(str(error))
    if counts and logits.ndim == 2 and logits.shape[1] != len(counts):
        problems.append(f"the logits have {logits.shape[1]} classes, but class_counts names {len(counts)}.")
    if problems:
        raise DataError(problems[0] if len(problems) == 1 else listed(problems, f"{len(problems)} problems:"))
    return logits, target if multi_label else target.long(), counts


def _matrix_problems(logits: Tensor, target: Tensor) -> list[str]:
    if logits.ndim != 2 or logits.shape != target.shape or target.dtype != torch.bool or not len(target):
        return [
            f"got logits of shape {tuple(logits.shape)} and {target.dtype} labels of shape {tuple(target.shape)}; "
            "expected (samples, classes) of both, labels as bool, and at least one test image."
        ]
    return []


def _shape_problems(logits: Tensor, target: Tensor) -> list[str]:
    if logits.ndim != 2 or target.ndim != 1 or len(logits) != len(target):
        return [
            f"got logits of shape {tuple(logits.shape)} and labels of shape {tuple(target.shape)}; "
            "expected (samples, classes) and (samples,)."
        ]
    if not logits.is_floating_point() or target.is_floating_point():
        return [f"got {logits.dtype} logits and {target.dtype} labels; expected floats and whole numbers."]
    if len(target) == 0:
        return ["there is nothing to evaluate: the logits have no rows. Expected at least one test image."]
    return []


def _logit_problems(logits_NC: Tensor) -> list[str]:
    bad_row_N = by_rows(lambda rows: ~torch.isfinite(rows).all(dim=1), logits_NC, dtype=torch.bool)
    if not bad_row_N.any():
        return []
    return [
        f"{int(bad_row_N.sum())} of {len(bad_row_N)} rows of logits are not finite (NaN or infinite); "
        f"the first is row {int(bad_row_N.int().argmax())}."
    ]


def _label_problems(target_N: Tensor, classes: int) -> list[str]:
    outside_N = (target_N < 0) | (target_N >= classes)
    if not outside_N.any():
        return []
    row = int(outside_N.int().argmax())
    from_one = int(target_N.min()) == 1 and int(target_N.max()) == classes
    hint = f" They run from 1 to {classes}: subtract 1 from each." if from_one else ""
    return [
        f"{int(outside_N.sum())} of {len(target_N)} labels lie outside 0 to {classes - 1}; "
        f"the first is {int(target_N[row])} in row {row}.{hint}"
    ]
