"""A method with the networks that it hears, as every loop of others calls it: with images or with keywords.

Shapes: B batch, C classes.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distail.errors import MethodError, Problems
from distail.evaluation.metrics import METRICS, evaluate_predictions, metric_at
from distail.functional.checks import counts_of
from distail.methods.method import Method, Terms
from distail.methods.presets import create_method, read_composition
from distail.models.feature_tap import FeatureTap
from distail.outputs import Outputs

MethodLike = str | Mapping[str, Any] | Method
"""A name, a mapping of slots, or a method."""
Inputs = Tensor | Mapping[str, Any]
"""What a network is called with: images, or keywords."""
REPORTED = ("top1", "balanced_accuracy", "head", "medium", "tail")
"""The metrics that a loop logs at its evaluations, by their names in `METRICS`."""


class Distillation:
    """A method, its student and its teacher. No module: a loop keeps the networks where it wants them.

    Args:
        method: a name, a mapping of slots, or a `Method`.
        student: gives logits (B, C), with whatever else.
        teacher: the same; None where there is none, or where its logits come with the batches.
        class_counts: training samples of each class, (C,); left out, those of a `Method`.
        stored: whether the teacher's logits are known to come with the batches; None: it is not known.

    A composition whose parts aim at two posteriors warns.

    Raises:
        MethodError: the method does not fit what it is given, or is none.
        ModelError: features are needed, and a network has no classifier to be found.
    """

    def __init__(
        self,
        method: MethodLike,
        student: nn.Module,
        teacher: nn.Module | None,
        class_counts: Sequence[int] | Tensor | None,
        *,
        stored: bool | None = None,
    ) -> None:
        self.class_counts = _class_counts(method, class_counts)
        if isinstance(method, Method):
            needs = method.needs
        else:
            composition = read_composition(method)
            needs = composition.needs
            for warning in (composition.posterior_warning(None), composition.correction_warning(None)):
                if warning:
                    warnings.warn(warning, stacklevel=3)
        name = _name(method)
        problems = Problems()
        if teacher is not None and stored:
            problems.add("teacher and teacher_logits are both given; expected one of them")
        if needs.teacher and teacher is None and stored is False:
            problems.add(
                f"{name} needs a teacher; expected teacher=, a network, or teacher_logits=, its stored answers"
            )
        if needs.teacher_features and teacher is None:
            problems.add(f"{name} reads the teacher's features, which no stored logits hold; expected teacher=")
        if isinstance(method, Method) and method.setup.multi_label:
            problems.add(
                f"{name} was made for samples of several classes (samples=), whose metrics these loops do not log; "
                "expected one for one class, or a loop of your own that calls the method"
            )
        problems.stop(name, MethodError)
        classes = len(self.class_counts)
        self.student = FeatureTap(student, classes, features=needs.student_features)
        self.teacher = (
            FeatureTap(teacher, classes, features=needs.teacher_features)
            if teacher is not None and needs.teacher
            else None
        )
        self._wrapped: FeatureTap | None = None
        self.method = (
            method
            if isinstance(method, Method)
            else create_method(
                method,
                class_counts=self.class_counts,
                student_dim=self.student.feature_dim,
                teacher_dim=self.teacher.feature_dim if self.teacher else None,
            )
        )

    def terms(
        self,
        inputs: Inputs,
        labels_B: Tensor,
        *,
        index_B: Tensor | None = None,
        teacher_logits_BC: Tensor | None = None,
        network: nn.Module | None = None,
    ) -> Terms:
        """The terms of a batch.

        Args:
            inputs: what the networks are called with.
            labels_B, index_B: int64 labels and sample indices.
            teacher_logits_BC: what the teacher said of this batch, where it is no network.
            network: the student as its loop has wrapped it, such as for several processes.

        Raises:
            MethodError: what the method needs is not there.
        """
        needs, name = self.method.needs, self.method.name
        if needs.index and index_B is None:
            raise MethodError(f"{name} remembers every sample; expected batches with their indices: IndexedDataset")
        if needs.teacher and self.teacher is None and teacher_logits_BC is None:
            raise MethodError(
                f"{name} needs a teacher; expected teacher=, or its logits in the batches: IndexedDataset"
            )
        student = _call(self._tap(network), self.student.model, inputs)
        terms: Terms = self.method(
            student, self._teacher_outputs(inputs, teacher_logits_BC), labels_B, index=index_B if needs.index else None
        )
        return terms

    def prepare(self, batches: Iterable[tuple[Inputs, Tensor]]) -> None:
        """One pass of the teacher over inputs and labels of the training data, each sample once."""
        if not self.method.prepared:
            self.method.prepare((self._heard(inputs), labels) for inputs, labels in batches)

    def _heard(self, inputs: Inputs) -> Outputs:
        outputs = self._teacher_outputs(inputs, None)
        assert outputs is not None, "what is to be prepared reads the teacher's features"
        return outputs

    @torch.no_grad()
    def _teacher_outputs(self, inputs: Inputs, stored_BC: Tensor | None) -> Outputs | None:
        if self.teacher is None:
            return None if stored_BC is None else Outputs(stored_BC)
        if self.teacher.model.training:  # a loop that holds it as a part puts all its parts into training mode
            self.teacher.model.eval()
        return _call(self.teacher, self.teacher.model, inputs)

    def _tap(self, network: nn.Module | None) -> FeatureTap:
        """The student's tap, around what its loop has made of it."""
        if network is None or network is self.student.model:
            return self.student
        if self._wrapped is None or self._wrapped.model is not network:
            path = self.student.classifier_path
            if path is not None:
                head = self.student.model.get_submodule(path)
                path = next(name for name, module in network.named_modules() if module is head)
            dim, classes = self.student.feature_dim, self.student.num_classes
            self._wrapped = FeatureTap(network, classes, classifier=path, feature_dim=dim, features=path is not None)
        return self._wrapped


def accepted(network: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Those inputs that a network's forward pass names; all, where it names none of them.

    >>> accepted(nn.Identity(), {"input": 1, "mask": 2})
    {'input': 1}
    """
    names = accepted_names(network)
    return {name: value for name, value in inputs.items() if name in names} or dict(inputs)


def accepted_names(network: nn.Module) -> tuple[str, ...]:
    """The names of what a network's forward pass takes."""
    return tuple(inspect.signature(network.forward).parameters)


def reported_metrics(
    logits_NC: Tensor, labels_N: Tensor, class_counts: Sequence[int] | Tensor, prefix: str = ""
) -> dict[str, float]:
    """What a loop logs at an evaluation, in percent; a group without classes, or without samples, is left out.

    >>> reported_metrics(torch.eye(4), torch.tensor([0, 1, 1, 0]), [300, 50, 5, 5])
    {'top1': 50.0, 'balanced_accuracy': 50.0, 'head': 50.0, 'medium': 50.0}
    """
    found = evaluate_predictions(logits_NC, labels_N, class_counts)
    values = {metric.name: metric_at(found, path) for path, metric in METRICS.items() if metric.name in REPORTED}
    return {f"{prefix}{name}": value for name, value in values.items() if value is not None}


def _call(tap: FeatureTap, network: nn.Module, inputs: Inputs) -> Outputs:
    outputs: Outputs = tap(**accepted(network, inputs)) if isinstance(inputs, Mapping) else tap(inputs)
    return outputs


def _class_counts(method: MethodLike, given: Sequence[int] | Tensor | None) -> tuple[int, ...]:
    counts = None if given is None else counts_of(given)
    if not isinstance(method, Method):
        if counts is None:
            raise MethodError("class_counts are missing; expected the training samples of each class: count_classes")
        return counts
    if counts not in (None, method.setup.class_counts):
        raise MethodError(f"class_counts are {counts}, and the method was made with {method.setup.class_counts}")
    return method.setup.class_counts


def _name(method: MethodLike) -> str:
    if isinstance(method, Method):
        return method.name
    return method if isinstance(method, str) else str(method.get("name", "the method"))
