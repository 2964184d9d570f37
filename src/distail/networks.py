"""A run's networks: built to fit the data, described where their weights are stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from distail.config import Model
from distail.data.prepare import PreparedData
from distail.data.seeding import stream_key
from distail.models import FeatureTap, create_model
from distail.preflight import DEFAULT_SHORTCUT
from distail.random_state import kept_random_state


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


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Torch's generator, seeded for one purpose and put back afterwards."""
    with kept_random_state():
        torch.manual_seed(int(stream_key(purpose, seed)) >> 1)
        yield
