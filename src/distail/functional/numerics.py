"""What every formula shares: the dtype it is computed in, and checks that need no host synchronisation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from distail.errors import MethodError

FLOOR = 1e-6  # the least denominator of a ratio of losses or of a standard deviation


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half and bfloat16 become float32; float32 and float64 stay as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def log_probabilities(logits_BC: Tensor, temperature: float = 1.0) -> Tensor:
    """``log softmax(logits / temperature)`` over classes, in at least float32."""
    logits_BC = at_least_float32(logits_BC)
    return log_softmax(logits_BC if temperature == 1.0 else logits_BC / temperature, dim=1)


def of_target(values_BC: Tensor, target_B: Tensor) -> Tensor:
    """The entry of each sample's label: (B, C) to (B,)."""
    return values_BC.gather(1, target_B[:, None]).squeeze(1)


def check_logits(logits_BC: Tensor, what: str) -> None:
    if logits_BC.ndim != 2 or not logits_BC.is_floating_point():
        raise MethodError(f"{what} are {_described(logits_BC)}; expected a floating-point tensor of shape (B, C)")


def check_target(target_B: Tensor, logits_BC: Tensor) -> None:
    """Labels: int64, one a sample. Values are checked on the CPU only: elsewhere that would synchronise."""
    if target_B.dtype != torch.int64 or target_B.ndim != 1:
        raise MethodError(f"target is {_described(target_B)}; expected int64 of shape (B,)")
    if len(target_B) != len(logits_BC):
        raise MethodError(f"target has {len(target_B)} labels for {len(logits_BC)} rows of logits; expected one a row")
    check_range(target_B, logits_BC.shape[1], "label")


def check_range(values_B: Tensor, end: int, what: str) -> None:
    if values_B.device.type != "cpu" or torch.compiler.is_compiling():
        return
    outside = values_B[(values_B < 0) | (values_B >= end)]
    if len(outside):
        raise MethodError(f"{what} {int(outside[0])} is out of range; expected 0 to {end - 1}")


def check_same_shape(first: Tensor, second: Tensor, first_name: str, second_name: str) -> None:
    if first.shape != second.shape:
        raise MethodError(
            f"{first_name} have shape {tuple(first.shape)} and {second_name} {tuple(second.shape)}; expected the same"
        )


def check_temperature(temperature: float) -> float:
    return check_number("temperature", temperature, above=0.0)


def check_number(
    name: str, value: object, *, least: float | None = None, above: float | None = None,
    most: float | None = None, below: float | None = None,
) -> float:  # fmt: skip
    """A finite number within bounds, or a MethodError that quotes it."""
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("at least", least), ("above", above), ("at most", most), ("below", below))
        if bound is not None
    ]
    expected = " and ".join(["a finite number", *bounds])
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MethodError(f"{name} is {value!r}; expected {expected}")
    inside = (
        math.isfinite(value)
        and (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
        and (below is None or value < below)
    )
    if not inside:
        raise MethodError(f"{name} is {value!r}; expected {expected}")
    return float(value)


def counts_of(class_counts: Sequence[int] | Tensor) -> tuple[int, ...]:
    """Training images per class as Python integers.

    Raises:
        MethodError: not one whole number a class, fewer than two classes, or a class without images.
    """
    raw = class_counts.tolist() if hasattr(class_counts, "tolist") else list(class_counts)
    if not isinstance(raw, list) or any(isinstance(count, list | bool | str) for count in raw):
        raise MethodError(f"class_counts is {class_counts!r}; expected one whole number a class")
    if len(raw) < 2:
        raise MethodError(f"class_counts has {len(raw)} classes; expected at least 2")
    wrong = {index: count for index, count in enumerate(raw) if not (count >= 1 and count == int(count))}
    if wrong:
        shown = ", ".join(f"class {index}: {count}" for index, count in list(wrong.items())[:5])
        raise MethodError(f"class_counts must be whole numbers of at least 1; {len(wrong)} are not ({shown})")
    return tuple(int(count) for count in raw)


def counts_tensor(class_counts: Sequence[int] | Tensor) -> Tensor:
    """``counts_of`` as a float64 tensor (C,), on the device of the counts where they were a tensor."""
    device = class_counts.device if isinstance(class_counts, Tensor) else None
    return torch.tensor(counts_of(class_counts), dtype=torch.float64, device=device)


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
