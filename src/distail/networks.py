"""A run's networks: built to fit the data, described where their weights are stored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from distail.config import Model
from distail.data.prepare import PreparedData
from distail.data.seeding import stream_key
from distail.errors import CheckpointError
from distail.models import FeatureTap, create_model
from distail.models.normalization import InputNormalization
from distail.models.timm_bridge import TimmModel
from distail.models.weights import read_metadata
from distail.preflight import DEFAULT_SHORTCUT
from distail.torch_utils import kept_random_state


def build_network(model: Model, classifier: str, data: PreparedData) -> FeatureTap:
    """A tapped network that fits the data."""
    channels, height, width = data.train.image_shape
    classes = len(data.class_names)
    bare = create_model(
        model.name,
        num_classes=classes,
        in_channels=channels,
        shortcut=model.shortcut or DEFAULT_SHORTCUT,
        classifier=classifier,
        image_size=min(height, width),
        weights=model.weights,
        mean=data.mean,
        std=data.std,
    )
    return FeatureTap(bare, classes)


def describe_network(model: Model, classifier: str, data: PreparedData) -> dict[str, str]:
    """What a weights file says of its network: enough to build it again and to check its classes."""
    return {
        "model": model.name,
        "shortcut": model.shortcut or DEFAULT_SHORTCUT,
        "classifier": classifier,
        "class_names": json.dumps(list(data.class_names)),
        "in_channels": str(data.train.image_shape[0]),
        "mean": json.dumps(list(data.mean)),
        "std": json.dumps(list(data.std)),
        "subset_sha256": data.subset_sha256,
    }


def trained_on(told: Mapping[str, str], described: Mapping[str, str]) -> dict[str, str]:
    """A description whose training data are those that another one tells of, or none where it tells of none."""
    data = ("mean", "std", "subset_sha256")
    kept = {key: value for key, value in described.items() if key not in data}
    return kept | {key: told[key] for key in data if key in told}


def feed_as_trained(tap: FeatureTap, weights: Path, data: PreparedData) -> None:
    """Let a loaded network see the data's images normalised as those that it was trained on, where its file says how.

    Raises:
        CheckpointError: what the file says is damaged.
    """
    told = read_metadata(weights)
    if "mean" not in told or "std" not in told or isinstance(tap.model, TimmModel):  # which converts by itself
        return
    try:
        mean, std = ([float(value) for value in json.loads(told[key])] for key in ("mean", "std"))
    except (ValueError, TypeError, RecursionError):
        raise CheckpointError(
            f"{str(weights)!r}: its mean and std are {told['mean'][:80]!r} and {told['std'][:80]!r}; expected lists of "
            "numbers"
        ) from None
    if (mean, std) != (list(data.mean), list(data.std)):
        convert = InputNormalization(data.mean, data.std, mean, std).to(next(tap.parameters()).device)
        tap.model.register_forward_pre_hook(lambda _, given: (convert(given[0]), *given[1:]))


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Torch's generator, seeded for one purpose and put back afterwards."""
    with kept_random_state():
        torch.manual_seed(int(stream_key(purpose, seed)) >> 1)
        yield
