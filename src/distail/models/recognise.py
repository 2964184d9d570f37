"""Which network of the catalogue some weights belong to: for messages that help."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from distail.models.catalogue import MODELS


def recognise(state: Mapping[str, Tensor]) -> str | None:
    """The name and options of the network with exactly these names and shapes, or None.

    Builds the catalogue's networks one after another, up to three seconds in all.

    >>> from distail.models.catalogue import MODELS
    >>> recognise(MODELS["resnet8"](num_classes=7, in_channels=1, shortcut="pad").state_dict())
    "'resnet8' with num_classes=7, shortcut='pad', in_channels=1"
    """
    head = state.get("classifier.weight")
    if head is None or not any(name.startswith("body.") for name in state):
        return None
    # These can be seen from the names alone; the rest needs the shapes.
    options = {
        "num_classes": head.shape[0],
        "shortcut": "conv" if any(".shortcut." in name for name in state) else "pad",
        "classifier": "linear" if "classifier.bias" in state else "cosine",
    }
    for name, builder in MODELS.items():
        taken = inspect.signature(builder).parameters
        known = {option: value for option, value in options.items() if option in taken}
        with torch.random.fork_rng(devices=[]):
            in_channels = _fitting_channels(builder(**known), state)
        if in_channels is not None:
            known["in_channels"] = in_channels
            # Only what differs from the default is worth saying.
            said = [f"{option}={value!r}" for option, value in known.items() if value != taken[option].default]
            return f"{name!r} with {', '.join(said)}"
    return None


def _fitting_channels(model: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """Input channels with which `model` would have the shapes of `state`, if there are any."""
    own = model.state_dict()
    first = next(name for name, tensor in own.items() if tensor.ndim == 4)
    if own.keys() != state.keys() or state[first].ndim != 4:
        return None
    same_but_first = all(own[name].shape == tensor.shape for name, tensor in state.items() if name != first)
    out_channels, in_channels, *kernel = state[first].shape
    same_first = [out_channels, *kernel] == [own[first].shape[0], *own[first].shape[2:]]
    return in_channels if same_but_first and same_first else None
