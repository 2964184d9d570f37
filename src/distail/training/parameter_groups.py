"""Which parameters are trained at which rate, and which of them decay.

A network's layers are found from its structure, in the order in which it defines them, for any network:

- the network itself, sequences (`nn.Sequential`, `nn.ModuleList`), and whatever holds a row of blocks somewhere inside,
  are taken apart; a block is a module that is no sequence and has at least two weights of two or more dimensions, and
  a row of them is two or more in a sequence, or another module that holds nothing but two or more of one class;
- anything else is one layer: a residual block, a transformer's block, a stem's convolution;
- what has parameters of one dimension only, such as a normalization, belongs to the layer before it, and parameters
  that lie beside layers, such as a position embedding, to the first of these;
- the classifier is the last layer, wherever it is defined.

For timm's ResNets, ViTs and Mixers these are timm's own groups (`param_groups_layer_decay`, after BEiT, Bao 2021).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from distail.config.schema import Training

RATE = "rate_factor"
"""The key of a group of parameters for what the learning rate is multiplied by."""

_SEQUENCES = (nn.Sequential, nn.ModuleList)


def parameter_groups(
    network: nn.Module,
    trained: Iterable[nn.Parameter],
    others: Iterable[nn.Parameter],
    training: Training,
    classifiers: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """What `torch.optim` takes: one group for each learning rate and weight decay.

    With `weight_decay_norm_and_bias: false` neither parameters of one dimension decay, nor those that the network's own
    `no_weight_decay()` names, as timm's vision transformers have it: tokens, position embeddings and biases.

    Args:
        network: the bare network.
        trained: those of its parameters that are trained.
        others: of a method, which train as the classifier does.
        classifiers: the path of the classifier, or of each where there are several, where the network's layers have
            rates of their own.

    >>> network = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    >>> slow = Training(learning_rate=1.0, layer_decay=0.5, weight_decay_norm_and_bias=False)
    >>> for group in parameter_groups(network, network.parameters(), [], slow, ["2"]):
    ...     print(group["rate_factor"], group["weight_decay"], [tuple(each.shape) for each in group["params"]])
    0.5 0.0002 [(3, 4)]
    0.5 0.0 [(3,), (3,), (3,)]
    1.0 0.0002 [(2, 3)]
    1.0 0.0 [(2,)]
    """
    factors = _rate_factors(network, training, classifiers)
    spared = set() if training.weight_decay_norm_and_bias else _without_decay(network)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in (*trained, *others):
        all_decay = training.weight_decay_norm_and_bias or (parameter.ndim > 1 and parameter not in spared)
        decay = training.weight_decay if all_decay else 0.0
        groups.setdefault((factors.get(parameter, 1.0), decay), []).append(parameter)
    return [{"params": each, "weight_decay": decay, RATE: factor} for (factor, decay), each in groups.items()]


def _without_decay(network: nn.Module) -> set[nn.Parameter]:
    """What a network's own `no_weight_decay()` names, where it has one; `pos_embed.*` names all of a module [timm]."""
    named = getattr(network, "no_weight_decay", None)
    names = set(named()) if callable(named) else set()
    return {
        parameter
        for name, parameter in network.named_parameters()
        if name in names or any(fnmatchcase(name, pattern) for pattern in names if "*" in pattern)
    }


def _rate_factors(network: nn.Module, training: Training, classifiers: Sequence[str]) -> Mapping[nn.Parameter, float]:
    if not training.rates_by_layer:
        return {}
    *backbone, last = network_layers(network, *classifiers)
    factors = dict.fromkeys(last, 1.0)
    for depth, names in enumerate(reversed(backbone), start=1):
        factors |= dict.fromkeys(names, training.backbone_learning_rate_factor * training.layer_decay**depth)
    return {parameter: factors[name] for name, parameter in network.named_parameters()}


def network_layers(network: nn.Module, *classifiers: str) -> list[list[str]]:
    """The names of a network's parameters, layer by layer; the last are those of its classifiers.

    >>> body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    >>> network_layers(body, "4")
    [['0.weight', '0.bias', '1.weight', '1.bias'], ['2.weight', '2.bias'], ['4.weight', '4.bias']]
    """
    weights = dict(network.named_parameters())
    inside = tuple(f"{classifier}." if classifier else "" for classifier in classifiers)
    head = [name for name in weights if name.startswith(inside)]
    layers: list[list[str]] = []
    for names in _taken_apart(network, ""):
        own = [name for name in names if name in weights and name not in head]
        if layers and all(weights[name].ndim <= 1 for name in own):
            layers[-1] += own
        elif own:
            layers.append(own)
    return [*layers, head]


def _taken_apart(module: nn.Module, prefix: str) -> list[list[str]]:
    """The names of parameters in the layers of a module that is no layer itself."""
    layers: list[list[str]] = []
    for name, child in module.named_children():
        inside = f"{prefix}{name}."
        if isinstance(child, _SEQUENCES) or _holds_blocks(child):
            layers += _taken_apart(child, inside)
        else:
            layers.append([inside + each for each, _ in child.named_parameters()])
    beside = [prefix + name for name, _ in module.named_parameters(recurse=False)]
    first = next((place for place, names in enumerate(layers) if names), None)
    if first is None:
        return [beside]
    layers[first] = [*beside, *layers[first]]
    return layers


def _holds_blocks(module: nn.Module) -> bool:
    """Whether there are blocks one after the other somewhere in it."""
    return any(_is_row_of_blocks(each) for each in module.modules())


def _is_row_of_blocks(module: nn.Module) -> bool:
    trained = [child for child in module.children() if any(True for _ in child.parameters())]
    blocks = [child for child in trained if _is_block(child)]
    alike = len(blocks) == len(trained) and len({type(child) for child in blocks}) == 1
    return len(blocks) > 1 and (alike or isinstance(module, _SEQUENCES))


def _is_block(module: nn.Module) -> bool:
    weights: Sequence[nn.Parameter] = [each for each in module.parameters() if each.ndim > 1]
    return not isinstance(module, _SEQUENCES) and len(weights) > 1
