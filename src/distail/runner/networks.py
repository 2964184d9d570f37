"""A run's networks: built to fit the data, described where their weights are stored, checked when they are loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from distail.config.schema import Model
from distail.data.arrays import LabeledArrays
from distail.data.dataset import is_images
from distail.data.input_sources import sample_inputs
from distail.data.prepare import PreparedData
from distail.data.seeding import stream_key
from distail.errors import ModelError
from distail.inputs import each_tensor
from distail.models import FeatureTap, create_model
from distail.models.array_description import COLUMNS, describe_arrays
from distail.models.description import Description
from distail.models.ensemble import Ensemble
from distail.models.feature_tap import called_classifier, with_its_equals
from distail.models.input_normalization import InputNormalization
from distail.models.metadata import TARGETS, Metadata, naming
from distail.models.resnet import DEFAULT_SHORTCUT
from distail.models.timm_bridge import TimmModel
from distail.models.weights import load_weights, read_metadata, unused_weights
from distail.outputs import MULTI_LABEL, SINGLE_LABEL
from distail.runner.normalization import normalization_notes, other_normalization
from distail.torch_utils import kept_random_state

_OF_TRAINING = ("mean", "std", "class_counts", "subset_sha256", "posterior")


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Torch's generator, seeded for one purpose and put back afterwards."""
    with kept_random_state():
        torch.manual_seed(int(stream_key(purpose, seed)) >> 1)
        yield


def build_network(
    model: Model,
    classifier: str,
    data: PreparedData,
    *,
    features: bool = True,
    tell: Callable[[str], None] = lambda sentence: None,
) -> FeatureTap:
    """A network that fits the data, tapped where its features are needed.

    Args:
        tell: told where its classifier is not that of the file of its weights, or its inputs are normalized otherwise,
            and of other weights in that file.
    """
    classes, example = len(data.class_names), sample_inputs(data.train, 2)
    if model.members:
        return FeatureTap(_ensemble(model, classifier, data), classes, features=False)
    bare = create_model(
        model.name,
        num_classes=classes,
        shortcut=model.shortcut or DEFAULT_SHORTCUT,
        classifier=classifier,
        weights=model.weights,
        mean=data.mean,
        std=data.std,
        tell=tell,
        example=example,
        cardinalities=data.train.cardinalities if isinstance(data.train, LabeledArrays) else None,
        class_names=data.class_names,
        **_image_sizes(data),
        **model.options,
    )
    if model.weights is not None:
        for note in (*unused_weights(model.weights), *normalization_notes(bare, model.weights, data, model.name)):
            tell(note)
    if not features:
        return FeatureTap(bare, classes, features=False)
    return FeatureTap(bare, classes, classifier=called_classifier(bare, classes, example))


def _image_sizes(data: PreparedData) -> dict[str, int]:
    if not is_images(data.train):
        return {}
    channels, height, width = data.train.image_shape
    return {"in_channels": channels, "image_size": min(height, width)}


def classifier_paths(network: FeatureTap, data: PreparedData) -> tuple[str, ...]:
    """The path of the classifier in the bare network, or of each where there are several.

    Raises:
        ModelError: there is none to be found.
    """
    path = network.classifier_path
    if path is None:
        device = next(network.parameters()).device
        some = each_tensor(lambda tensor: tensor.to(device), sample_inputs(data.train, 2))
        path = called_classifier(network.model, network.num_classes, some)
    return with_its_equals(network.model, path, network.num_classes)


def without_weights(model: Model) -> Model:
    """The same network, without the files that it would begin with."""
    members = tuple(without_weights(member) for member in model.members)
    return model.model_copy(update={"weights": None, "members": members})


def _ensemble(model: Model, classifier: str, data: PreparedData) -> Ensemble:
    members, conversions = [], []
    for place, member in enumerate(model.members, start=1):
        tap = build_network(without_weights(member), classifier, data, features=False)
        conversion = None
        if member.weights is not None:
            load_checkpoint(tap, member.weights, data, f"teacher {place}")
            conversion = other_normalization(tap, member.weights, data)
        members.append(tap.model)
        conversions.append(conversion or InputNormalization(data.mean, data.std, data.mean, data.std))
    return Ensemble(members, conversions, model.average)


def load_checkpoint(tap: FeatureTap, weights: Path, data: PreparedData, what: str) -> None:
    """Fill a network with weights that were trained on the data's classes.

    Raises:
        ModelError: they are of other classes, of another number of classes per example, or of a table whose columns
            became other numbers.
        CheckpointError: the file cannot be read, or does not fit.
    """
    check_classes(weights, data.class_names, what=what)
    check_columns(weights, data, what=what)
    told = read_metadata(weights)
    trained, wanted = told.get(TARGETS, SINGLE_LABEL), SINGLE_LABEL if data.samples is None else MULTI_LABEL
    if "class_names" in told and trained != wanted:  # of files of others nobody knows
        raise ModelError(
            f"the {what} {str(weights)!r} was trained with data.targets: {trained}, and here they are {wanted}; "
            "expected one trained with the same"
        )
    load_weights(tap.model, weights, what=what)


def describe_network(
    network: nn.Module,
    model: Model,
    classifier: str,
    data: PreparedData,
    *,
    bit_depth: int | None = None,
    posterior: str | None = None,
    trained_on: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """What a weights file says of its network: enough to build it again, to feed it and to name its answers.

    `mean` and `std` are what the stored tensors want images normalized with: for a model of timm its own.

    Args:
        network: the bare network, whose tensors are stored.
        bit_depth: as `data.bit_depth`.
        posterior: which class posterior it was trained to give, where that is known.
        trained_on: metadata of the file that the network was loaded from. It was trained on the data that these name,
            or on unknown ones where they name none.
    """
    description = {**_told(model, classifier, data, bit_depth), "subset_sha256": data.subset_sha256}
    if posterior is not None:
        description["posterior"] = posterior
    if trained_on is not None:
        description = {key: value for key, value in description.items() if key not in _OF_TRAINING}
        description |= {key: trained_on[key] for key in _OF_TRAINING if key in trained_on}
    if isinstance(network, TimmModel) and network.mean is not None and network.std is not None:
        description |= {"mean": json.dumps(list(network.mean)), "std": json.dumps(list(network.std))}
    return description


def _told(model: Model, classifier: str, data: PreparedData, bit_depth: int | None) -> dict[str, str]:
    shortcut, train = model.shortcut or DEFAULT_SHORTCUT, data.train
    targets = SINGLE_LABEL if data.samples is None else MULTI_LABEL
    if not is_images(train):
        return describe_arrays(
            model.name,
            classifier,
            data.class_names,
            data.class_counts,
            sample_inputs(train, 1),
            data.mean,
            data.std,
            model.options,
            columns=data.encoding,
            targets=targets,
        )
    description = Description(
        model.name,
        shortcut,
        classifier,
        data.class_names,
        *train.image_shape,
        data.mean,
        data.std,
        data.class_counts,
        bit_depth,
        model.options,
        targets,
    )
    return description.metadata()


def check_classes(weights: Path, class_names: tuple[str, ...], *, what: str = "teacher") -> None:
    """Let pass weights of the data's classes, in the data's order, and those that name none.

    Raises:
        ModelError: they are of other classes, or of these in another order.
        CheckpointError: the file cannot be read, or its class names are damaged.
    """
    told = Metadata(read_metadata(weights))
    if "class_names" not in told.texts:
        return
    with naming(weights):
        names = told.names("class_names")
    if sorted(names) != sorted(class_names):
        missing, extra = sorted(set(class_names) - set(names)), sorted(set(names) - set(class_names))
        raise ModelError(
            f"the {what} {str(weights)!r} knows {len(names)} classes, the data has {len(class_names)}; "
            f"only in the data: {missing[:8]}, only in the {what}: {extra[:8]}"
        )
    if names != class_names:
        first = next(i for i, (a, b) in enumerate(zip(names, class_names, strict=True)) if a != b)
        raise ModelError(
            f"the {what} {str(weights)!r} has the data's classes in another order: class {first} is "
            f"{names[first]!r} for the {what} and {class_names[first]!r} in the data"
        )


def check_columns(weights: Path, data: PreparedData, *, what: str = "teacher") -> None:
    """Let pass weights that were trained on the same numbers of a row, and those that do not say on which.

    Raises:
        ModelError: the columns of their table became other numbers than those of the data.
        CheckpointError: the file cannot be read.
    """
    if read_metadata(weights).get(COLUMNS, data.encoding) != data.encoding:
        raise ModelError(
            f"the {what} {str(weights)!r} was trained on a table whose columns became other numbers than the data's; "
            "expected the same data.features and data.categories, and the same levels in the rows of training"
        )
