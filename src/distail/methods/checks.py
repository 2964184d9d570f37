"""Checks of one batch before any arithmetic: cheap, and without host synchronization.

Shapes: B batch, C classes, D feature width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distail.errors import MethodError
from distail.functional.checks import check_logits, check_same_shape, check_target, check_tensor
from distail.functional.multi_label import check_labels
from distail.methods.context import SlotOutput
from distail.outputs import Outputs


def logits_of(outputs: Outputs, whose: str) -> Tensor:
    if not isinstance(outputs, Outputs):
        raise MethodError(
            f"the {whose} is given as {type(outputs).__name__}; expected Outputs(logits=..., features=...)"
        )
    check_logits(outputs.logits, f"{whose} logits")
    return outputs.logits


def check_batch(logits_BC: Tensor, target: Tensor, num_classes: int, *, multi_label: bool = False) -> None:
    if logits_BC.shape[1] != num_classes:
        raise MethodError(
            f"student logits have {logits_BC.shape[1]} classes and class_counts {num_classes}; expected the same"
        )
    if len(logits_BC) == 0:
        raise MethodError("the batch is empty; expected at least one sample")
    if multi_label:
        check_labels(target, logits_BC)
    else:
        check_target(target, logits_BC)


def check_teacher(teacher: Outputs | None, student_logits_BC: Tensor, reader: str) -> Outputs:
    if teacher is None:
        raise MethodError(f"{reader} needs a teacher; expected its Outputs, not None")
    check_same_shape(logits_of(teacher, "teacher"), student_logits_BC, "teacher logits", "student logits")
    return teacher


def check_features(outputs: Outputs, whose: str, reader: str, width: int | None) -> None:
    features_BD, expected = outputs.features, (len(outputs.logits), width)
    if features_BD is None:
        raise MethodError(f"{reader} reads the {whose}'s features; expected Outputs(logits=..., features=...)")
    check_tensor(features_BD, f"{whose} features", f"a floating-point tensor of shape {expected}")
    if tuple(features_BD.shape) != expected or not features_BD.is_floating_point():
        raise MethodError(
            f"{whose} features are {features_BD.dtype} of shape {tuple(features_BD.shape)}; "
            f"expected floating-point of shape {expected}"
        )


def checked_output(output: object, entry: nn.Module, shape: torch.Size) -> SlotOutput:
    """What an entry returned, which may be a user's own; a plain tensor stands for its values."""
    whole = SlotOutput(output) if isinstance(output, Tensor) else output
    if not isinstance(whole, SlotOutput) or not isinstance(whole.values, Tensor):
        raise MethodError(f"{entry_name(entry)} returned {type(output).__name__}; expected a tensor or a SlotOutput")
    for values in (whole.values, *whole.auxiliary.values()):
        expected = shape if values is whole.values else shape[:1]
        if values.shape != expected:
            raise MethodError(
                f"{entry_name(entry)} returned values of shape {tuple(values.shape)}; expected {tuple(expected)}: "
                + ("one row of logits" if len(expected) == 2 else "one value")
                + " a sample"
            )
    for name, value in whole.statistics.items():
        if not isinstance(value, Tensor) or value.ndim:
            given = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise MethodError(
                f"{entry_name(entry)} returned a statistic {name!r} {given}; expected a tensor without axes"
            )
    return whole


def entry_name(entry: nn.Module) -> str:
    return str(getattr(entry, "name", type(entry).__name__))
