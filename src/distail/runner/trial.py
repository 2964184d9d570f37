"""A network tried on real images before anything is trained: what must stop a run, and what a user should know.

Shapes: N images, B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from distail.config.schema import Experiment, Model, Training
from distail.data.batches import evaluation_batches
from distail.data.dataset import Examples
from distail.data.input_sources import sample_inputs
from distail.data.labels import is_multi_label
from distail.data.prepare import PreparedData, prepare_data
from distail.errors import DataError, DistailError, ModelError, TrainingError, counted, some_of
from distail.evaluation.other_order import find_other_order, spread_over
from distail.evaluation.probabilities import kind_of_probabilities, probabilities_sentence
from distail.import_path import where
from distail.inputs import described
from distail.models import FeatureTap
from distail.models.catalog import builder_of
from distail.outputs import logits_in
from distail.runner.compositions import needs_of
from distail.runner.context import STUDENT
from distail.runner.networks import build_network, classifier_paths, seeded
from distail.training.device import RuntimeDevice
from distail.training.predict import predict
from distail.training.step import unused_parameters

_BATCHES, _LARGEST_BATCH = 2, 32
_HARDLY = 0.1  # of the way from guessing to knowing
_OTHER_WEIGHTS = "are these the weights, the classes and the kind of data that it was trained on?"


def try_training(
    network: FeatureTap, whose: str, data: PreparedData, batch_size: int, runtime: RuntimeDevice
) -> list[str]:
    """Take a network through the training steps of two batches, from which nothing of it changes.

    Args:
        whose: `teacher` or `student`.
        batch_size: that of its training; larger batches than 32 are not needed to see what this sees.

    Returns:
        Sentences for the user: outputs beside the logits, parameters without a gradient, probabilities.

    Raises:
        ModelError: it fails in training mode, gives no logits, or could not learn.
    """
    size = min(batch_size, _LARGEST_BATCH)
    chosen_N = torch.arange(_BATCHES * size) * len(data.train) // (_BATCHES * size)
    batches = evaluation_batches(
        data.train.subset(chosen_N),
        batch_size=size,
        mean=data.mean,
        std=data.std,
        device=runtime.device,
        channels_last=runtime.channels_last,
    )
    given: list[object] = []
    hook = network.model.register_forward_hook(lambda module, arguments, output: given.append(output))
    try:
        unused = [unused_parameters(network, batch, runtime, seed) for seed, batch in enumerate(batches)]
    except DistailError as error:
        raise ModelError(f"{whose}: {error}") from error
    except (TrainingError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        inputs = described(sample_inputs(data.train, size))
        raise ModelError(f"{whose}: the network failed in training mode on {inputs} with {where(error)}") from error
    finally:
        hook.remove()
    trained = sum(parameter.requires_grad for parameter in network.parameters())
    return [*_of_outputs(given[0], whose), *_of_unused(frozenset.intersection(*unused), trained, whose)]


def try_fine_tuning(
    network: FeatureTap, whose: str, model: Model, training: Training, data: PreparedData, checkpoint: Path | None
) -> list[str]:
    """Sentences for the user on a network whose classifier is trained otherwise than the rest.

    Raises:
        ModelError: its classifier cannot be found.
    """
    key = "training" if whose == STUDENT else f"{whose}.training"
    notes, frozen, asked = [], training.frozen_epochs, training.freeze.epochs if training.freeze else None
    if training.freeze and training.freeze.name == "none" and asked is not None:
        notes.append(f"{key}.freeze.epochs: {asked}, but with name: none nothing is frozen; expected name: backbone")
    if not (frozen or training.rates_by_layer or training.classifier_stage):
        return notes
    try:
        classifier_paths(network, data)
    except ModelError as error:
        raise ModelError(f"{whose}: {error}") from error
    if frozen and asked is not None and asked + bool(training.classifier_stage) > training.backbone_epochs:
        before = "before the classifier stage" if training.classifier_stage else "in all"
        notes.append(
            f"{key}.freeze.epochs: {asked} of {counted(training.backbone_epochs, 'epoch')} {before}, in none "
            f"of which the {whose}'s backbone is trained"
        )
    # What a function of the user's begins with is not known.
    known = model.name.startswith("timm:") or builder_of(model.name) is not None
    anew = model.weights is None and checkpoint is None and known
    if frozen and anew:
        notes.append(
            f"{key}.freeze: the {whose} begins with random weights, and its backbone keeps them for "
            f"{counted(frozen, 'epoch')}; expected {whose}.model.weights, a file of trained weights"
        )
    return notes


def try_students(experiments: Iterable[Experiment]) -> None:
    """Try the students of runs that share their data and wait for a teacher, each kind of student once.

    Data that cannot be read here is left to the runs, which may be elsewhere.

    Raises:
        ModelError: a student could not be built, or could not learn.
    """
    kinds = {(each.student, needs_of(each).student_features): each for each in experiments}
    data: PreparedData | None = None
    for (student, features), experiment in kinds.items():
        try:
            data = data or prepare_data(experiment.data, seed=experiment.seed)
        except DataError:
            return
        with seeded(experiment.seed, "trial"):
            network = build_network(student.model, student.classifier, data, features=features)
        try_training(
            network, "student", data, experiment.training.batch_size, RuntimeDevice(torch.device("cpu"), "fp32")
        )


def look_at_loaded(network: FeatureTap, whose: str, data: PreparedData, runtime: RuntimeDevice) -> list[str]:
    """Sentences for the user on a trained network: probabilities, another order of classes, or no better than chance.

    Raises:
        ModelError: its logits are not finite.
    """
    some, logits_NC = _some_answers(network, data, runtime)
    bad = int((~torch.isfinite(logits_NC)).any(dim=1).sum())
    if bad:
        raise ModelError(
            f"the {whose} returns logits that are not finite for {bad:,} of {len(some):,} training {some.noun}s, "
            "although its weights are finite; expected weights with which it has been used (a variance below 0 gives "
            "such logits)"
        )
    return look_at_answers(logits_NC, some.labels, whose, data.class_names)


def look_at_trained(network: FeatureTap, whose: str, data: PreparedData, runtime: RuntimeDevice) -> list[str]:
    """A sentence for the user on a network that was trained here and knows nothing of its training images."""
    if is_multi_label(data.train.labels):
        return []
    some, logits_NC = _some_answers(network, data, runtime)
    return _of_chance(logits_NC, some.labels, whose, "has its training diverged, or was it too short?")


def _some_answers(network: FeatureTap, data: PreparedData, runtime: RuntimeDevice) -> tuple[Examples, Tensor]:
    """Training examples from all over the set, and the network's logits (N, C) of them."""
    some = data.train.subset(spread_over(len(data.train)))
    return some, predict(network, some, data.mean, data.std, runtime)


def look_at_answers(
    logits_NC: Tensor, labels_N: Tensor, whose: str, class_names: Sequence[str], doubt: str = _OTHER_WEIGHTS
) -> list[str]:
    """Sentences for the user on logits of some training images: probabilities, another order of classes, or chance.

    Args:
        doubt: what the user is asked where they are no better than chance.
    """
    kind = kind_of_probabilities(logits_NC)
    notes = [probabilities_sentence(f"the {whose}", kind)] if kind else []
    if is_multi_label(labels_N):
        return notes  # no class is the answer, by which another order would be seen
    order = find_other_order(logits_NC, labels_N, class_names)
    odd = [order.sentence(f"the {whose}", class_names)] if order else _of_chance(logits_NC, labels_N, whose, doubt)
    return [*notes, *odd]


def _of_chance(logits_NC: Tensor, target_N: Tensor, whose: str, doubt: str) -> list[str]:
    """A teacher of other data, or one whose weights are not those that were trained, knows none of the classes."""
    right_N = logits_NC.argmax(1) == target_N
    recalls = [float(right_N[target_N == label].float().mean()) for label in set(target_N.tolist())]
    recall, chance = sum(recalls) / len(recalls), 1 / logits_NC.shape[1]
    if recall > chance + _HARDLY * (1 - chance):
        return []
    return [
        f"the {whose} recalls {100 * recall:.1f} % of a class on average over {len(target_N):,} training samples, "
        f"where guessing recalls {100 * chance:.1f} %: {doubt}"
    ]


def _of_outputs(output: object, whose: str) -> list[str]:
    logits_BC = logits_in(output)
    notes = []
    if logits_BC is not output:
        notes.append(
            f"the {whose} gives {type(output).__name__}: its logits, or the first of a tuple, are taken, and nothing "
            "else is trained"
        )
    assert isinstance(logits_BC, Tensor), "the tap has checked it"
    kind = kind_of_probabilities(logits_BC.detach())
    # Untrained, they are all about a half.
    if kind is None and logits_BC.grad_fn is not None and logits_BC.grad_fn.name().startswith("Sigmoid"):
        kind = "sigmoids"
    return [*notes, *([probabilities_sentence(f"the {whose}", kind)] if kind else [])]


def _of_unused(unused: frozenset[str], trained: int, whose: str) -> list[str]:
    if not unused:
        return []
    return [
        f"{len(unused)} of the {whose}'s {trained} parameters get no gradient and do not change: "
        f"{some_of(sorted(unused))}"
    ]
