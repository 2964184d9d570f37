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
from torch.nn.functional import cross_entropy

from distail.errors import DataError, MethodError, Problems
from distail.evaluation.metrics import METRICS, evaluate_predictions, metric_at
from distail.evaluation.probabilities import kind_of_probabilities, probabilities_sentence
from distail.functional import binary_cross_entropy
from distail.functional.checks import counts_of
from distail.methods.method import Method, Terms
from distail.methods.presets import create_method, read_composition
from distail.models.feature_tap import FeatureTap
from distail.models.layers import CosineClassifier
from distail.outputs import MULTI_LABEL, SINGLE_LABEL, Outputs

MethodLike = str | Mapping[str, Any] | Method
"""A name, a mapping of slots, or a method."""
Inputs = Tensor | Mapping[str, Any]
"""What a network is called with: images, or keywords."""
REPORTED = ("top1", "balanced_accuracy", "mean_average_precision", "head", "medium", "tail")
"""The metrics that a loop logs at its evaluations, by their names in `METRICS`, as far as its labels have them."""


class Distillation:
    """A method, its student and its teacher. No module: a loop keeps the networks where it wants them.

    Args:
        method: a name, a mapping of slots, or a `Method`.
        student: gives logits (B, C), with whatever else.
        teacher: the same; None where there is none, or where its logits come with the batches.
        class_counts: training samples of each class, (C,); left out, those of a `Method`.
        samples: where a sample has several classes, how many training samples there are; left out, those of a `Method`.
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
        samples: int | None = None,
        stored: bool | None = None,
    ) -> None:
        self.class_counts = _class_counts(method, class_counts, samples)
        if isinstance(method, Method):
            needs = method.needs
        else:
            whole = {"name": method} if isinstance(method, str) else method
            labels = SINGLE_LABEL if samples is None else MULTI_LABEL
            composition = read_composition({**whole, "labels": labels})
            needs = composition.needs
            for warning in (
                composition.posterior_warning(None),
                composition.correction_warning(None),
                composition.order_warning(),
            ):
                if warning:
                    warnings.warn(warning, stacklevel=3)
            if needs.cosine_classifier and not any(isinstance(part, CosineClassifier) for part in student.modules()):
                warnings.warn(
                    f"{_name(method)} subtracts margins from cosines, and the student has no cosine classifier; with a "
                    "linear one the margins have the wrong scale",
                    stacklevel=3,
                )
        name = _name(method)
        problems = Problems()
        if teacher is not None and stored:
            problems.add("teacher and teacher_logits are both given; expected one of them")
        if needs.teacher and teacher is None and stored is False:
            problems.add(
                f"{name} needs a teacher; expected teacher=, a network, or teacher_logits=, its stored predictions"
            )
        if needs.teacher_features and teacher is None:
            problems.add(f"{name} reads the teacher's features, which stored logits do not contain; expected teacher=")
        problems.stop(name, MethodError)
        classes = len(self.class_counts)
        self.student = FeatureTap(student, classes, features=needs.student_features)
        self.teacher = (
            FeatureTap(teacher, classes, features=needs.teacher_features)
            if teacher is not None and needs.teacher
            else None
        )
        self._wrapped: FeatureTap | None = None
        self._looked_at_teacher = False
        self.method = (
            method
            if isinstance(method, Method)
            else create_method(
                method,
                class_counts=self.class_counts,
                student_dim=self.student.feature_dim,
                teacher_dim=self.teacher.feature_dim if self.teacher else None,
                samples=samples,
            )
        )

    def terms(
        self,
        inputs: Inputs,
        labels: Tensor,
        *,
        index_B: Tensor | None = None,
        teacher_logits_BC: Tensor | None = None,
        network: nn.Module | None = None,
    ) -> Terms:
        """The terms of a batch. A teacher that gives probabilities in the first one warns.

        Args:
            inputs: what the networks are called with.
            labels: (B,) int64, or (B, C) bool, or 0.0 and 1.0, where a sample has several classes.
            index_B: sample indices.
            teacher_logits_BC: what the teacher said of this batch, where it is no network.
            network: the student as its loop has wrapped it, such as for several processes.

        Raises:
            MethodError: what the method needs is not there.
            DataError: in the first batch, the teacher's logits are not finite.
        """
        needs, name = self.method.needs, self.method.name
        if needs.index and index_B is None:
            raise MethodError(
                f"{name} stores predictions per sample; expected batches with sample indices: IndexedDataset"
            )
        if needs.teacher and self.teacher is None and teacher_logits_BC is None:
            raise MethodError(
                f"{name} needs a teacher; expected teacher=, or its logits in the batches: IndexedDataset"
            )
        student = _call(self._tap(network), self.student.model, inputs)
        teacher = self._teacher_outputs(inputs, teacher_logits_BC)
        terms: Terms = self.method(student, teacher, labels, index=index_B if needs.index else None)
        if needs.teacher and teacher is not None and not self._looked_at_teacher and not torch.compiler.is_compiling():
            self._looked_at_teacher = True  # once: a look makes the host wait for the device
            _look_at_teacher(teacher.logits)
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
    """The names of what a network's forward pass takes; of PEFT's, which hands everything on, the base model's."""
    base_model = getattr(network, "get_base_model", None)
    base = base_model() if callable(base_model) else network
    return tuple(inspect.signature(base.forward).parameters)


def plain_loss(logits_BC: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of labels (B,); of labels (B, C) binary cross-entropy, the sum over classes: their means.

    >>> plain_loss(torch.zeros(1, 2), torch.tensor([1])), plain_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    (tensor(0.6931), tensor(1.3863))
    """
    if labels.ndim == 2:
        return binary_cross_entropy(logits_BC, labels).mean()
    return cross_entropy(logits_BC.float(), labels)


def reported_metrics(
    logits_NC: Tensor, labels: Tensor, class_counts: Sequence[int] | Tensor, prefix: str = ""
) -> dict[str, float]:
    """What a loop logs at an evaluation, in percent; a group without classes, or without samples, is left out.

    Of labels (N, C), where a sample may have several classes, mean average precision in place of accuracies.

    >>> reported_metrics(torch.eye(4), torch.tensor([0, 1, 1, 0]), [300, 50, 5, 5])
    {'top1': 50.0, 'balanced_accuracy': 50.0, 'head': 50.0, 'medium': 50.0}
    """
    found = evaluate_predictions(logits_NC, labels if labels.ndim == 1 else labels > 0.5, class_counts)
    values = {metric.name: metric_at(found, path) for path, metric in METRICS.items() if metric.name in REPORTED}
    return {f"{prefix}{name}": value for name, value in values.items() if value is not None}


def _call(tap: FeatureTap, network: nn.Module, inputs: Inputs) -> Outputs:
    outputs: Outputs = tap(**accepted(network, inputs)) if isinstance(inputs, Mapping) else tap(inputs)
    return outputs


def _look_at_teacher(logits_BC: Tensor) -> None:
    bad = int((~logits_BC.isfinite()).any(1).sum())
    if bad:
        raise DataError(
            f"the teacher's logits of {bad} of {len(logits_BC)} samples of the first batch are not finite, so the "
            "loss is not finite either; expected finite values"
        )
    kind = kind_of_probabilities(logits_BC)
    if kind:
        warnings.warn(probabilities_sentence("the teacher", kind), stacklevel=3)


def _class_counts(method: MethodLike, given: Sequence[int] | Tensor | None, samples: int | None) -> tuple[int, ...]:
    counts = None if given is None else counts_of(given)
    if not isinstance(method, Method):
        if counts is None:
            raise MethodError("class_counts are missing; expected the training samples of each class: count_classes")
        return counts
    if counts not in (None, method.setup.class_counts):
        raise MethodError(f"class_counts are {counts}, but the method was created with {method.setup.class_counts}")
    if samples not in (None, method.setup.samples):
        raise MethodError(f"samples is {samples}, but the method was created with {method.setup.samples}")
    return method.setup.class_counts


def _name(method: MethodLike) -> str:
    if isinstance(method, Method):
        return method.name
    return method if isinstance(method, str) else str(method.get("name", "the method"))
