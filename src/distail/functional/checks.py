"""Checks of what users give, cheap and without host synchronization, and the operations that all formulas share.

Shapes: B batch, C classes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from distail.errors import DistailError, MethodError, some_of, unknown_name

_WIDE_FROM = 32.0
FLOOR = 1e-6  # the least denominator of a ratio of losses or of a standard deviation


def check_tensor(value: object, what: str, expected: str) -> None:
    if not isinstance(value, Tensor):
        raise MethodError(f"{what}: got {type(value).__module__}.{type(value).__qualname__}; expected {expected}")


def check_logits(logits_BC: Tensor, what: str) -> None:
    check_tensor(logits_BC, what, "a floating-point tensor of shape (B, C)")
    if logits_BC.ndim != 2 or not logits_BC.is_floating_point():
        raise MethodError(f"{what} are {_described(logits_BC)}; expected a floating-point tensor of shape (B, C)")


def check_target(target_B: Tensor, logits_BC: Tensor) -> None:
    """Labels: int64, one per sample. Values are checked on the CPU only: elsewhere that would synchronize."""
    check_tensor(target_B, "target", "an int64 tensor of shape (B,)")
    if target_B.dtype != torch.int64 or target_B.ndim != 1:
        raise MethodError(f"target is {_described(target_B)}; expected int64 of shape (B,)")
    if len(target_B) != len(logits_BC):
        raise MethodError(
            f"target has {len(target_B)} labels for {len(logits_BC)} rows of logits; expected one per row"
        )
    check_range(target_B, logits_BC.shape[1], "label")


def check_range(values_B: Tensor, end: int, what: str) -> None:
    if values_B.device.type != "cpu" or torch.compiler.is_compiling():
        return
    outside = values_B[(values_B < 0) | (values_B >= end)]
    if len(outside):
        raise MethodError(f"{what} {int(outside[0])} is out of range; expected 0 to {end - 1}")


def check_same_shape(first: Tensor, second: Tensor, first_name: str, second_name: str) -> None:
    for value, name in ((first, first_name), (second, second_name)):
        check_tensor(value, name, "a tensor")
    if first.shape != second.shape:
        raise MethodError(
            f"{first_name} have shape {tuple(first.shape)} and {second_name} {tuple(second.shape)}; expected the same"
        )


def check_one_a_class(values_C: Tensor, what: str, logits_BC: Tensor) -> None:
    check_tensor(values_C, what, "a tensor of one value per class")
    if values_C.shape != logits_BC.shape[1:]:
        raise MethodError(
            f"{what} have shape {tuple(values_C.shape)} for {logits_BC.shape[1]} classes; expected one per class"
        )


def check_temperature(temperature: Any) -> float:
    """Above 1,000 rounding, times T^2, would come close to the divergences."""
    return check_number("temperature", temperature, above=0.0, most=1000.0)


def check_number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> float:
    """A finite number within bounds, or a MethodError that quotes it."""
    bounds = {
        "at least": (least, operator.ge),
        "above": (above, operator.gt),
        "at most": (most, operator.le),
        "below": (below, operator.lt),
    }
    given = {words: (bound, holds) for words, (bound, holds) in bounds.items() if bound is not None}
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not (is_number and math.isfinite(value) and all(holds(value, bound) for bound, holds in given.values())):
        limits = " and ".join(f"{words} {bound:g}" for words, (bound, _) in given.items())
        raise MethodError(f"{name} is {value!r}; expected a finite number {limits}".rstrip())
    return float(value)


def check_whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise MethodError(f"{name} is {value!r}; expected a whole number of at least {least}")
    return int(value)


def check_switch(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise MethodError(f"{name} is {value!r}; expected true or false")
    return value


def check_choice(kind: str, value: Any, choices: Iterable[str]) -> str:
    valid = list(choices)
    if not isinstance(value, str) or value not in valid:
        raise MethodError(unknown_name(kind, value, valid))
    return value


def counts_of(class_counts: Sequence[int] | Tensor) -> tuple[int, ...]:
    """Training images per class as Python integers.

    Raises:
        MethodError: not one whole number per class, fewer than two classes, or a class without images.

    >>> counts_of(torch.tensor([10, 2]))
    (10, 2)
    """
    return whole_counts(class_counts, MethodError, least_classes=2)


def whole_counts(
    class_counts: Sequence[int] | Tensor, error: type[DistailError], least_classes: int = 1
) -> tuple[int, ...]:
    """Whole numbers of at least 1, one per class, as Python integers; `error` says what is wrong with others."""
    index = getattr(class_counts, "index", None)  # of a pandas Series; a method of lists and tuples
    if index is not None and not callable(index) and list(index) != list(range(len(index))):
        raise error(
            f"class_counts is in the order of its index, {some_of(list(index), 5)}; expected that of the classes, from "
            "0 on: value_counts().sort_index().tolist(), where every class has training images"
        )
    raw = class_counts.tolist() if hasattr(class_counts, "tolist") else class_counts
    if not isinstance(raw, Sequence) or isinstance(raw, str):
        raise error(f"class_counts is {class_counts!r}; expected a sequence or tensor of one whole number per class")
    counts = [count.item() if isinstance(count, Tensor) and count.ndim == 0 else count for count in raw]
    if len(counts) < least_classes:
        least = "1 class" if least_classes == 1 else f"at least {least_classes} classes"
        raise error(f"class_counts has length {len(counts)}; expected a count for each of {least}")
    wrong = [f"class {index}: {count!r}" for index, count in enumerate(counts) if not _is_count(count)]
    if wrong:
        raise error(f"class_counts must be whole numbers of at least 1 for every class, but got {some_of(wrong, 5)}")
    return tuple(int(count) for count in counts)


def counts_tensor(class_counts: Sequence[int] | Tensor) -> Tensor:
    """`counts_of` as a float64 tensor (C,), on the device of the counts where they were a tensor."""
    device = class_counts.device if isinstance(class_counts, Tensor) else None
    return torch.tensor(counts_of(class_counts), dtype=torch.float64, device=device)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half and bfloat16 become float32; float32 and float64 stay as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def tempered(logits_BC: Tensor, temperature: float) -> Tensor:
    """``logits / T`` in at least float32, and in float64 where T^2 would make its rounding count."""
    if temperature > _WIDE_FROM and logits_BC.device.type != "mps":  # Apple's accelerator has no float64
        logits_BC = logits_BC.double()
    logits_BC = at_least_float32(logits_BC)
    return logits_BC if temperature == 1.0 else logits_BC / temperature


def log_probabilities(logits_BC: Tensor, temperature: float = 1.0) -> Tensor:
    """``log softmax(logits / temperature)`` over classes, in the precision of `tempered`."""
    return log_softmax(tempered(logits_BC, temperature), dim=1)


def of_target(values_BC: Tensor, target_B: Tensor) -> Tensor:
    """The entry of each sample's label: (B, C) to (B,)."""
    return values_BC.gather(1, target_B[:, None]).squeeze(1)


def is_label(target_B: Tensor, num_classes: int) -> Tensor:
    """Where each sample's label is: (B,) to a boolean (B, C)."""
    return target_B[:, None] == torch.arange(num_classes, device=target_B.device)


def _is_count(count: Any) -> bool:
    return isinstance(count, Real) and not isinstance(count, bool) and float(count) >= 1 and float(count).is_integer()


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
