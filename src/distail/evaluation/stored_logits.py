"""What a file holds of a network's answers, as rows of logits: whole, as probabilities, or the K largest.

Shapes: N rows of the file, B rows asked for, R rows of a block, C classes, K largest, W numbers that are stored a row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distail.errors import DataError, Problems, counted, some_of
from distail.evaluation.array_file import ArrayFile
from distail.evaluation.probabilities import SIGNS, kind_of_probabilities
from distail.functional.top_k import SMALLEST, expand_top_k

LOGITS, PROBABILITIES, TOP_K = "logits", "probabilities", "values"
KINDS = (LOGITS, PROBABILITIES, TOP_K)
LABELS = ("target", "labels", "label")
"""What an array of labels beside them may be called."""
_TOLERANCE = 0.05  # of rounded probabilities, as in `kind_of_probabilities`
_NUMBERS_AT_ONCE = 1 << 17
_SMALLEST_LOG = math.log(SMALLEST)
_LOOKED_AT = 1024  # rows that say whether values are logarithms


@dataclass(frozen=True)
class StoredLogits:
    """Rows of logits in the order of the data's classes, read when they are asked for; see `stored_logits`."""

    kind: str
    values: Tensor
    indices: Tensor | None
    columns: Tensor | None
    rest_shares: Tensor
    where: str
    logarithmic: bool = False
    """Whether the K largest are logarithms of probabilities."""

    @property
    def num_classes(self) -> int:
        return len(self.rest_shares)

    @property
    def top_k(self) -> int | None:
        """How many classes a row names; None where it names all."""
        return None if self.indices is None else self.indices.shape[1]

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, row_B: Tensor) -> Tensor:
        """Logits (B, C) float32 of rows (B,) int64 on the CPU, where they stay.

        Of probabilities their logarithm; a probability of 0 counts as 1e-38.
        """
        values_BW = self.values.index_select(0, row_B)
        if self.indices is not None:
            indices_BK = self.indices.index_select(0, row_B).long()
            if self.columns is not None:
                indices_BK = self.columns.argsort()[indices_BK]
            logs_BK = values_BW.double().clamp_min(_SMALLEST_LOG) if self.logarithmic else _logarithms(values_BW)
            return expand_top_k(logs_BK, indices_BK, self.rest_shares)
        found_BC = _logarithms(values_BW).float() if self.kind == PROBABILITIES else values_BW.float()
        return found_BC if self.columns is None else found_BC.index_select(1, self.columns)

    def problems(self, row_B: Tensor) -> list[str]:
        """What is wrong with these rows, each kind of mistake once with its first row; looks at every number."""
        problems = Problems()
        if self.kind == LOGITS:
            some_B = row_B[: max(1, _NUMBERS_AT_ONCE // self.values.shape[1])]
            kind = kind_of_probabilities(self.values.index_select(0, some_B).float())
            if kind in ("probabilities", "percentages"):
                problems.add(
                    f"{self.where}: the logits are {kind} ({SIGNS[kind]}); expected logits, the inputs of the "
                    "softmax, or the array called probabilities"
                )
        found: dict[str, tuple[int, int]] = {}
        for block_R in torch.split(row_B, max(1, _NUMBERS_AT_ONCE // self.values.shape[1])):
            for what, wrong_R in self._wrong(block_R):
                rows_of = block_R[wrong_R]
                if len(rows_of):
                    first, number = found.get(what, (int(rows_of[0]), 0))
                    found[what] = (first, number + len(rows_of))
        for what, (first, number) in found.items():
            problems.add(f"{self.where}: {what} in {counted(number, 'row')}, first in row {first}")
        return problems.found

    def _wrong(self, row_R: Tensor) -> Iterator[tuple[str, Tensor]]:
        values_RW = self.values.index_select(0, row_R)
        name = "values" if self.kind == TOP_K else self.kind
        finite_R = torch.isfinite(values_RW).all(1)
        if self.kind == TOP_K:  # whose probability may be 0, and its logarithm minus infinity
            finite_R = ~(values_RW.isnan() | (values_RW == torch.inf)).any(1)
        yield f"{name} that are not finite", ~finite_R
        if self.kind == LOGITS:
            return
        if self.indices is None:
            sums_R = values_RW.double().sum(1)
            off_R = (values_RW < 0).any(1) | ((sums_R - 1).abs() > _TOLERANCE)
            yield "probabilities below 0, or with another sum than 1,", off_R & finite_R
            return
        wrong_sign_RW = values_RW > 0 if self.logarithmic else values_RW < 0
        sums_R = (values_RW.double().exp() if self.logarithmic else values_RW.double()).sum(1)
        off_R = (sums_R > 1 + _TOLERANCE) | wrong_sign_RW.any(1)
        yield (
            "values that are neither probabilities nor their logarithms (for the K largest logits, the other "
            "probabilities are unknown)",
            (off_R & finite_R),
        )
        indices_RK = self.indices.index_select(0, row_R).long()
        outside_R = ((indices_RK < 0) | (indices_RK >= self.num_classes)).any(1)
        yield f"indices outside of 0 to {self.num_classes - 1}", outside_R
        yield "a class that occurs twice in the indices", (indices_RK.sort(1).values.diff(dim=1) == 0).any(1)


def _logarithms(values_BW: Tensor) -> Tensor:
    return values_BW.double().clamp_min(SMALLEST).log()


def stored_logits(
    file: ArrayFile,
    num_classes: int | None = None,
    *,
    columns: Sequence[int] | None = None,
    rest_shares: Sequence[float] | None = None,
) -> StoredLogits:
    """The answers in a file: `logits` (N, C); `probabilities` (N, C); or `values` (N, K) with `indices` (N, K).

    Of the K largest the values are probabilities, or their logarithms, which are below 0.

    Args:
        num_classes: C, which the K largest do not say; None takes that of the array.
        columns: for each class its place in the file; None where the file has the same order.
        rest_shares: how what the K largest leave is spread over the other classes; None spreads it evenly.

    Raises:
        DataError: there are no such arrays, or shapes do not fit, all of which is listed.
    """
    kind = kind_of_answers(file)
    problems, values = Problems(), file.numbers(kind)
    indices = file.numbers("indices") if kind == TOP_K else None
    shapes = {kind: values} | ({} if indices is None else {"indices": indices})
    for name, array in shapes.items():
        if array.ndim != 2 or 0 in array.shape:
            problems.add(f"{file.path}: {name} have the shape {tuple(array.shape)}; expected (rows, classes or K)")
    if not problems.found:
        width = values.shape[1]
        if indices is not None:
            if indices.shape != values.shape:
                problems.add(
                    f"{file.path}: values have the shape {tuple(values.shape)}, indices {tuple(indices.shape)}; "
                    "expected the same"
                )
            if indices.is_floating_point():
                problems.add(f"{file.path}: indices are {indices.dtype}; expected whole numbers")
            if num_classes is not None and width > num_classes:
                problems.add(f"{file.path}: the {width} largest of {num_classes} classes; expected at most all")
        elif num_classes not in (None, width):
            problems.add(f"{file.path}: {kind} of {width} classes, and the data have {num_classes}; expected the same")
    problems.stop("no stored answers", DataError)
    classes = num_classes or values.shape[1]
    if indices is not None and num_classes is None:
        raise DataError(f"{file.path} holds the K largest of each row, and does not contain the number of classes")
    shares = torch.ones(classes) if rest_shares is None else torch.tensor(rest_shares, dtype=torch.float64)
    order = None if columns is None else torch.tensor(columns, dtype=torch.int64)
    logarithmic = kind == TOP_K and not bool((values[:_LOOKED_AT] > 0).any())
    return StoredLogits(kind, values, indices, order, shares, str(file.path), logarithmic)


def kind_of_answers(file: ArrayFile) -> str:
    """Which of `KINDS` a file holds.

    Raises:
        DataError: none.
    """
    kind = next((name for name in KINDS if name in file.names), None)
    if kind is None or (kind == TOP_K and "indices" not in file.names):
        raise DataError(
            f"{file.path} holds the {file.kind} {some_of(sorted(file.names)) or 'none'}; expected logits or "
            "probabilities (rows, classes), or values and indices (rows, K) of the K largest probabilities"
        )
    return kind


def columns_of_classes(file: ArrayFile, class_names: Sequence[str]) -> list[int] | None:
    """For each class its place in the file, by name; None where the file names none, or has the same order.

    Raises:
        DataError: the file names other classes.
    """
    names = file.list_fact("class_names")
    if names is None or tuple(names) == tuple(class_names):
        return None
    if sorted(names) != sorted(class_names):
        missing, extra = (
            [repr(each) for each in sorted(set(one) - set(other))]
            for one, other in ((class_names, names), (names, class_names))
        )
        raise DataError(
            f"{file.path}: its class_names are {len(names)} classes, the data have {len(class_names)}; only in the "
            f"data: {some_of(missing) or 'none'}; only in the file: {some_of(extra) or 'none'}"
            + ("" if extra else _padding(file, len(missing)))
        )
    places = {name: place for place, name in enumerate(names)}
    return [places[name] for name in class_names]


def _padding(file: ArrayFile, missing: int) -> str:
    """How to add the classes that a teacher never saw."""
    names = "name it at the end of class_names" if missing == 1 else "name them at the end of class_names"
    kind = kind_of_answers(file)
    if kind == TOP_K:
        return f". Of a teacher that never saw {'it' if missing == 1 else 'them'}, {names}"
    column = "a column" if missing == 1 else f"{missing} columns"
    of = "zeros" if kind == PROBABILITIES else "a logit far below all others, such as logits.min() - 20"
    return f". Of a teacher that never saw {'it' if missing == 1 else 'them'}, add {column} of {of}, and {names}"
