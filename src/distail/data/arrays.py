"""Data that is not images and lies in memory: rows of a table, or an array of any shape.

Shapes: N examples, M rows of a subset, B batch, D entries of the first dimension of an example: a table's columns, or
channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distail.data.augment import Augmentation, Draws
from distail.data.labels import check_labels
from distail.errors import DataError
from distail.torch_utils import to_device

_DTYPES = (torch.float32, torch.int64)


@dataclass(frozen=True)
class LabeledArrays:
    """`inputs` (N, ...) float32, in which nan is a missing value, or int64; `labels` (N,) int64 or (N, C) bool.

    `names` (N,) bytes is what each is called, None where they have no names. `plain` (D,) bool says which entries of
    the first dimension are given to the network as they are; None: none of float32, all of int64. `weights` (N,)
    float32 is how much each counts in the loss of training, beside the others; None: all alike. `cardinalities` (D,)
    says which columns of a table are codes of categories, and how many there are; 0 is a number. None: all are numbers.

    Raises:
        DataError: shapes, types or lengths do not fit.

    >>> data = LabeledArrays(torch.zeros(4, 3), torch.tensor([0, 1, 1, 0]))
    >>> len(data), data.input_shape, data.subset(torch.tensor([3, 1])).labels.tolist()
    (4, (3,), [0, 1])
    """

    inputs: Tensor
    labels: Tensor
    names: NDArray[np.bytes_] | None = None
    plain: NDArray[np.bool_] | None = None
    weights: Tensor | None = None
    cardinalities: tuple[int, ...] | None = None
    noun: ClassVar[str] = "example"

    def __post_init__(self) -> None:
        if self.inputs.ndim < 2 or self.inputs.dtype not in _DTYPES:
            raise DataError(
                f"inputs are {self.inputs.dtype} {tuple(self.inputs.shape)}; expected float32 or int64 (N, ...)"
            )
        check_labels(self.labels, len(self.inputs))
        if self.names is not None and len(self.names) != len(self):
            raise DataError(f"{len(self.names)} names but {len(self)} examples")
        if self.weights is not None and self.weights.shape != (len(self),):
            raise DataError(f"weights are {tuple(self.weights.shape)}; expected ({len(self)},)")
        object.__setattr__(self, "inputs", self.inputs.contiguous())

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of every example."""
        return tuple(self.inputs.shape[1:])

    def subset(self, index: Tensor) -> LabeledArrays:
        """The rows named by `index` (M,) int64, in that order."""
        names = None if self.names is None else self.names[index.numpy()]
        weights = None if self.weights is None else self.weights[index]
        return replace(self, inputs=self.inputs[index], labels=self.labels[index], names=names, weights=weights)

    def contents(self) -> NDArray[np.uint8]:
        """(N, 32): the SHA-256 of each example."""
        hashes = b"".join(hashlib.sha256(row.tobytes()).digest() for row in self.inputs.numpy())
        return np.frombuffer(hashes, dtype=np.uint8).reshape(-1, 32)

    def entries_with_values(self) -> Tensor:
        """(D,) bool: whether any example has a value of an entry of the first dimension."""
        if not self.inputs.is_floating_point():
            return torch.ones(self.inputs.shape[1], dtype=torch.bool)
        return torch.tensor([not bool(self.inputs[:, entry].isnan().all()) for entry in range(self.inputs.shape[1])])

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and population deviation of each entry of the first dimension, over the values that are not missing.

        Entries that are given as they are have mean 0 and deviation 1, and so have those without a value; of a
        constant the deviation is 1. Nothing for int64.

        >>> LabeledArrays(torch.tensor([[1.0, 5.0], [3.0, float("nan")]]), torch.tensor([0, 1])).statistics()
        ((2.0, 5.0), (1.0, 1.0))
        """
        if not self.inputs.is_floating_point():
            return (), ()
        found = []
        for entry in range(self.inputs.shape[1]):
            values = self.inputs[:, entry].double()
            values = values[~values.isnan()]
            if not len(values) or (self.plain is not None and self.plain[entry]):
                found.append((0.0, 1.0))
                continue
            constant = bool((values == values[0]).all())
            found.append((float(values.mean()), 1.0 if constant else float(values.std(correction=0))))
        means, deviations = zip(*found, strict=True)
        return means, deviations


def training_weights(data: object) -> Tensor | None:
    """How much each training example counts (N,) float32, of mean 1; None where all count alike.

    Raises:
        DataError: none counts at all.

    >>> training_weights(LabeledArrays(torch.zeros(2, 3), torch.tensor([0, 1]), weights=torch.tensor([1.0, 3.0])))
    tensor([0.5000, 1.5000])
    """
    weights = data.weights if isinstance(data, LabeledArrays) else None
    if weights is not None and not weights.any():
        raise DataError("no training example has a weight above 0")
    return None if weights is None else (weights.double() / weights.double().mean()).float()


class Standardized(nn.Module):
    """Inputs (B, ...) as a network wants them: `(inputs - mean) / std`, and 0, the mean, where a value is missing.

    Without means inputs stay as they are.

    Args:
        mean, std: of each entry of an example's first dimension, such as a table's columns.
        dimensions: of an example; what comes behind the first shares its mean.

    Raises:
        DataError: there are not as many deviations as means.

    >>> Standardized([1.0, 0.0], [2.0, 1.0], 1)(torch.tensor([[5.0, float("nan")]]))
    tensor([[2., 0.]])
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], dimensions: int) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise DataError(
                f"{len(mean)} means but {len(std)} standard deviations; expected one of each per column or channel"
            )
        shape = (-1, *(1,) * (dimensions - 1))
        self.changes = bool(mean)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(shape), persistent=False)
        scale = torch.tensor([1 / value for value in std], dtype=torch.float32)
        self.register_buffer("scale", scale.view(shape), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.changes:
            return inputs
        standardized = (inputs - self.mean) * self.scale
        return torch.where(standardized.isnan(), torch.zeros_like(standardized), standardized)


class ArrayInputs:
    """Inputs of one training batch after another, standardized, on the training device."""

    augmentations: Mapping[str, Augmentation] = {}

    def __init__(
        self, data: LabeledArrays, mean: Sequence[float], std: Sequence[float], device: torch.device | str
    ) -> None:
        self._device = torch.device(device)
        self._inputs = data.inputs.to(self._device) if _fits(data.inputs, self._device) else data.inputs
        self._standardize = Standardized(mean, std, data.inputs.ndim - 1).to(self._device)

    def batches(self, wanted: Iterable[tuple[Tensor, Draws]]) -> Iterator[tuple[Tensor, Tensor]]:
        for index, _ in wanted:
            index_B = to_device(index, self._device)
            rows_B = index if self._inputs.device.type == "cpu" else index_B
            yield index_B, self._standardize(to_device(self._inputs.index_select(0, rows_B), self._device))

    def close(self) -> None: ...


def arrays_in_order(
    data: LabeledArrays,
    parts: Sequence[slice],
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str,
) -> Iterator[Tensor]:
    """The inputs of each part of the data, standardized, on the device."""
    standardize = Standardized(mean, std, data.inputs.ndim - 1).to(device)
    for part in parts:
        inputs = standardize(to_device(data.inputs[part], device))
        # A copy, as standardizing makes one: a network may write into what it is given.
        yield inputs if standardize.changes else inputs.clone()


def _fits(inputs: Tensor, device: torch.device) -> bool:
    """Whether a GPU can hold them with half of what it has left; what is in memory fits a CPU."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return inputs.nbytes <= free // 2
