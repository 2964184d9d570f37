"""Labels of one class per sample, (N,) int64, or of several, (N, C) bool: what holds for both, and what differs.

Shapes: N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distail.data.class_names import natural_sorted
from distail.errors import DataError

SEPARATOR = "|"
"""What stands between the classes of a sample in a text; a sample of none has an empty one."""


def is_multi_label(labels: Tensor) -> bool:
    """Whether a sample may have several classes."""
    return labels.ndim == 2


def check_labels(labels: Tensor, count: int) -> None:
    """Let pass labels of so many samples.

    Raises:
        DataError: their shape or type is another.
    """
    kinds = {1: torch.int64, 2: torch.bool}
    if len(labels.shape[:1]) != 1 or len(labels) != count or labels.dtype != kinds.get(labels.ndim):
        raise DataError(
            f"labels are {labels.dtype} {tuple(labels.shape)}; expected int64 ({count},), or bool ({count}, classes) "
            "where an example may have several classes"
        )


def labels_of(each: Sequence[int | tuple[bool, ...]]) -> Tensor:
    """Labels as a tensor, of numbers of classes or of rows that say which classes there are.

    >>> labels_of([1, 0]), labels_of([(True, False)])
    (tensor([1, 0]), tensor([[ True, False]]))
    """
    multi_label = len(each) > 0 and not isinstance(each[0], int)
    return torch.tensor(each, dtype=torch.bool if multi_label else torch.int64)


def strata(labels: Tensor) -> Tensor:
    """(N,) int64: by what samples are held out in equal shares: the class; of several the rarest; C without any.

    >>> strata(torch.tensor([[True, True], [True, False], [False, False]])).tolist()
    [1, 0, 2]
    """
    if not is_multi_label(labels):
        return labels
    counts = labels.sum(0)
    order_C = torch.argsort(counts, stable=True)
    ranked_NC = labels[:, order_C]
    rarest_N = order_C[ranked_NC.int().argmax(1)]
    return torch.where(ranked_NC.any(1), rarest_N, labels.shape[1])


def separated(text_N: NDArray[np.str_]) -> tuple[Tensor, tuple[str, ...]]:
    """Texts such as `cat|dog` as labels (N, C) bool, and the class names in natural order.

    >>> separated(np.array(["dog|cat", "", "dog"]))
    (tensor([[ True,  True],
            [False, False],
            [False,  True]]), ('cat', 'dog'))
    """
    parts = [[part.strip() for part in text.split(SEPARATOR) if part.strip()] for text in text_N.tolist()]
    names = tuple(natural_sorted({name for part in parts for name in part}))
    place = {name: label for label, name in enumerate(names)}
    labels_NC = torch.zeros(len(parts), len(names), dtype=torch.bool)
    for row, part in enumerate(parts):
        labels_NC[row, [place[name] for name in part]] = True
    return labels_NC, names


def matrix_of(y: NDArray[np.generic], class_names: Sequence[str] | None, where: str) -> tuple[Tensor, tuple[str, ...]]:
    """A matrix of 0 and 1 (N, C) as labels, and the class names: by default numbers.

    Raises:
        DataError: it is no such matrix, or there are other class names.
    """
    if y.ndim != 2 or y.dtype.kind not in "iubf" or not bool(np.isin(y, (0, 1)).all()):
        raise DataError(
            f"{where}: with data.targets: multi_label y is {y.dtype} {y.shape}; expected a matrix (N, classes) of 0 "
            "and 1, or false and true: which classes each example has"
        )
    names = tuple(class_names) if class_names is not None else tuple(str(c) for c in range(y.shape[1]))
    if len(names) != y.shape[1]:
        raise DataError(f"{where}: {len(names)} class_names for {y.shape[1]} columns of y; expected one each")
    return torch.from_numpy(np.ascontiguousarray(y.astype(np.bool_))), names


def never_absent(labels: Tensor, class_names: Sequence[str]) -> list[str]:
    """The classes that every training sample has: of them there is nothing to learn, and no odds."""
    if not is_multi_label(labels):
        return []
    return [repr(name) for name, always in zip(class_names, labels.all(0).tolist(), strict=True) if always]
