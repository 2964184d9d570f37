"""Batch normalization folded into the convolutions before it: the same answers in evaluation mode, for less."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from distail.inputs import Inputs, call
from distail.outputs import Outputs
from distail.torch_utils import kept_random_state

# Of the spread of the answers: what folding may change by rounding (in TF32, on a GPU).
_TOLERANCE = 1e-2


def folded(network: nn.Module, inputs: Inputs) -> nn.Module:
    """The network with fewer layers: a copy, or the network itself where nothing can be folded.

    What follows what is read from a trace (torch.fx); of a network that cannot be traced, of its parts that can.

    Args:
        network: gives logits or `Outputs`; in evaluation mode.
        inputs: a few, on which the copy must say what the network does.

    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)).eval()
    >>> folded(network, torch.randn(2, 3, 4, 4))[1]
    Identity()
    """
    copied = copy.deepcopy(network)
    pairs = list(_pairs(copied))
    for convolution, normalization in pairs:
        one, other = copied.get_submodule(convolution), copied.get_submodule(normalization)
        assert isinstance(one, nn.Conv2d)
        assert isinstance(other, nn.BatchNorm2d)
        copied.set_submodule(convolution, fuse_conv_bn_eval(one, other))
        copied.set_submodule(normalization, nn.Identity())
    return copied if pairs and says_the_same(copied, network, inputs) else network


def _pairs(network: nn.Module, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The paths of each convolution and of the normalization that alone reads it, each called once."""
    try:
        nodes = [node for node in fx.Tracer().trace(network).nodes if node.op == "call_module"]
    except Exception:  # a trace runs the user's code on things that are no tensors: anything may come of it
        for name, child in network.named_children():
            yield from _pairs(child, f"{prefix}{name}.")
        return
    calls = Counter(node.target for node in nodes)
    for node in nodes:
        before = node.args[0] if len(node.args) == 1 else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        convolution, normalization = (network.get_submodule(str(one.target)) for one in (before, node))
        if type(convolution) is not nn.Conv2d or type(normalization) is not nn.BatchNorm2d:
            continue
        if normalization.running_mean is not None and calls[before.target] == calls[node.target] == 1:
            yield f"{prefix}{before.target}", f"{prefix}{node.target}"


def says_the_same(copied: nn.Module, network: nn.Module, inputs: Inputs) -> bool:
    """Whether a copy answers as its network does, but for rounding.

    What a trace cannot see, such as hooks or a layer that is read besides being called, shows in the answers.
    """
    with torch.no_grad(), kept_random_state():
        expected = call(network, inputs)
        try:
            said = call(copied, inputs)
        except Exception:
            return False
    for one, other in zip(_tensors(said), _tensors(expected), strict=True):
        one, other = one.float(), other.float()
        if not torch.allclose(one, other, rtol=0.0, atol=_TOLERANCE * max(1e-6, other.std().item())):
            return False
    return True


def _tensors(output: Tensor | Outputs) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    return [tensor for tensor in (output.logits, output.features) if tensor is not None]
