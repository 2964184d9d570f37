"""Which network of the catalogue some weights belong to: for messages that help."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from itertools import product

import torch
from torch import Tensor, nn

from distail.models.catalogue import MODELS
from distail.models.classifiers import CLASSIFIERS
from distail.models.resnet_cifar import LINES


def recognise(state: Mapping[str, Tensor]) -> str | None:
    """The name and options of the network with exactly these names and shapes, or None.

    >>> from distail.models.catalogue import MODELS
    >>> recognise(MODELS["resnet8"](num_classes=7, in_channels=1, shortcut="pad").state_dict())
    "'resnet8' with shortcut='pad', num_classes=7, in_channels=1"
    """
    head, first = state.get("classifier.weight"), next((tensor for tensor in state.values() if tensor.ndim == 4), None)
    if head is None or first is None:
        return None
    sizes = {"num_classes": head.shape[0], "in_channels": first.shape[1]}
    wanted = {name: tensor.shape for name, tensor in state.items()}
    for name, options, model in _candidates(sizes):
        if {key: tensor.shape for key, tensor in model.state_dict().items()} == wanted:
            given = ", ".join(f"{option}={value!r}" for option, value in {**options, **sizes}.items())
            return f"{name!r} with {given}"
    return None


def _candidates(sizes: dict[str, int]) -> Iterator[tuple[str, dict[str, str], nn.Module]]:
    for name, builder in MODELS.items():
        taken = inspect.signature(builder).parameters
        for shortcut, classifier in product(LINES, CLASSIFIERS):
            chosen = {"shortcut": shortcut, "classifier": classifier}
            # Only what differs from the default is worth saying, and only where the network has the choice.
            options = {key: value for key, value in chosen.items() if key in taken and value != taken[key].default}
            if "shortcut" not in taken and shortcut != "conv":
                continue
            with torch.device("meta"):  # shapes without memory or arithmetic
                model = builder(**sizes, **options)
            yield name, options, model
