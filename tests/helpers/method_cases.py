"""One call of every method, for the tests that hold for all of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distail import Method, Outputs, Terms, create_method, list_methods
from helpers.made_batches import MadeBatch, made_batch

STUDENT_DIM, TEACHER_DIM = 6, 9
SUPERVISED = ("balanced_softmax", "ce", "class_balanced", "focal", "ldam", "logit_adjusted")

CASES: dict[str, dict[str, Any]] = {
    **{name: {"name": name} for name in list_methods()},
    **{f"ce with {entry}": {"name": "ce", "supervised": entry} for entry in SUPERVISED},
    "ipwd one-stage": {"name": "ipwd", "teacher": "previous_epoch", "num_samples": 50},
    "kd of the epoch before": {"name": "kd", "teacher": "previous_epoch", "num_samples": 50},
    "debias for the student": {
        "supervised": "balanced_softmax",
        "targets": ["standardize", {"name": "debias", "side": "student"}],
        "divergence": "correlation",
        "weights": "gate",
    },
    "ipwd without labels": {"name": "ipwd", "kd_head_ce": False, "cls_gradient": True},
    "everything": {
        "supervised": "class_balanced",
        "targets": ["swap", {"name": "power", "exponent": 0.7}, {"name": "reweigh", "beta": 0.99}],
        "divergence": "decoupled_kl",
        "weights": "inverse_propensity",
        "representation": "balanced_prototypes",
    },
}


@dataclass(frozen=True)
class Call:
    """The arguments of a method's call."""

    student: Outputs
    teacher: Outputs
    target: Tensor
    index: Tensor

    def __call__(self, method: Method) -> Terms:
        return method(self.student, self.teacher, self.target, index=self.index)

    def rows(self, rows: slice) -> Call:
        def cut(outputs: Outputs) -> Outputs:
            return Outputs(outputs.logits[rows], outputs.features[rows])

        return Call(cut(self.student), cut(self.teacher), self.target[rows], self.index[rows])

    def to(self, dtype: torch.dtype) -> Call:
        def cast(outputs: Outputs) -> Outputs:
            return Outputs(outputs.logits.detach().to(dtype), outputs.features.detach().to(dtype))

        return dataclasses.replace(self, student=cast(self.student), teacher=cast(self.teacher))


def make_call(batch: MadeBatch, seed: int = 0, dtype: torch.dtype = torch.float64, grad: bool = True) -> Call:
    generator = torch.Generator().manual_seed(seed)
    size = len(batch.target)

    def features(dim: int) -> Tensor:
        return torch.randn(size, dim, dtype=torch.float64, generator=generator).to(dtype)

    return Call(
        student=Outputs(
            batch.student.to(dtype, copy=True).requires_grad_(grad), features(STUDENT_DIM).requires_grad_(grad)
        ),
        teacher=Outputs(batch.teacher.to(dtype, copy=True), features(TEACHER_DIM)),
        target=batch.target,
        index=torch.randperm(50, generator=generator)[:size],
    )


def make_method(case: str, counts: list[int], dtype: torch.dtype = torch.float64, **changed: Any) -> Method:
    torch.manual_seed(0)
    method = create_method(
        {**CASES[case], **changed}, class_counts=counts, student_dim=STUDENT_DIM, teacher_dim=TEACHER_DIM
    ).to(dtype)
    method.prepare([teacher_pass(len(counts))])
    if method.needs.memory:
        method.begin_epoch(0, 10)
    return method


def teacher_pass(num_classes: int) -> tuple[Outputs, Tensor]:
    """Teacher outputs and labels over a training set of three images per class."""
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(3 * num_classes, TEACHER_DIM, generator=generator)
    return Outputs(torch.zeros(3 * num_classes, num_classes), features), torch.arange(3 * num_classes) % num_classes


def example(case: str, seed: int = 0, dtype: torch.dtype = torch.float64, **sizes: Any) -> tuple[Method, Call]:
    batch = made_batch(seed, **sizes)
    method, call = make_method(case, batch.counts, dtype), make_call(batch, seed, dtype)
    return with_an_epoch_behind(method, call), call


def with_an_epoch_behind(method: Method, call: Call) -> Method:
    """A method that remembers has heard other predictions of these samples; in its first epoch it is plain."""
    if method.needs.memory:
        with torch.no_grad():
            said = Outputs(call.teacher.logits, call.student.features)
            method(said, None, call.target, index=call.index)
        method.begin_epoch(7, 10)
    return method
