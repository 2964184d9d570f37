"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from distail.errors import ModelError, unknown_name
from distail.models import resnet_cifar

MODELS: dict[str, Callable[..., nn.Module]] = {**resnet_cifar.BUILDERS}


def list_models() -> tuple[str, ...]:
    """Names that `create_model` builds itself.

    >>> "resnet32" in list_models()
    True
    """
    return tuple(sorted(MODELS))


def create_model(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    shortcut: str = "conv",
    classifier: str = "linear",
    image_size: int = 32,
) -> nn.Module:
    if name not in MODELS:
        raise ModelError(unknown_name("model", name, MODELS))
    return MODELS[name](num_classes=num_classes, in_channels=in_channels, shortcut=shortcut, classifier=classifier)
