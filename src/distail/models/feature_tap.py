"""Penultimate features of any network, without touching its code.

Shapes: B batch, C classes, D feature width, H height, W width, N tokens or images.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from distail.errors import ModelError, did_you_mean
from distail.inputs import Inputs, call, each_tensor
from distail.models.layers import CosineClassifier
from distail.outputs import Outputs, logits_in
from distail.torch_utils import eval_mode


class FeatureTap(nn.Module):
    """Wraps a network with logits (B, C) to also return the input (B, D) of its classifier, as `Outputs`.

    The classifier is, in this order: the module at the dotted path `classifier`; the model's own `classifier`
    attribute; the result of timm's `get_classifier()`; the last linear layer, 1x1 convolution or `CosineClassifier`
    with `num_classes` outputs. A map (B, D, H, W) that reaches a 1x1 convolution, or tokens (B, N, D) that reach a
    linear layer, are averaged over space or tokens [ours]; inputs of other modules are flattened.

    For a network with several outputs, `.logits` or the first element of the tuple is used. The network gets copies of
    the inputs of the tap (images or keyword arguments), which it may modify in place.

    `tap.model` is the bare network; store `tap.model.state_dict()`. Its parameters are shared, not copied.
    `feature_dim` is read from the classifier; pass it for a custom classifier module. With `features=False` no
    classifier is needed: `Outputs.features` is None, and any network that returns logits works.

    Raises:
        ModelError: there is no classifier to be found, the forward pass does not call it, or the network's output is
            not (B, `num_classes`).

    >>> import torch
    >>> tap = FeatureTap(nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 5)), num_classes=5)
    >>> outputs = tap(torch.zeros(2, 3, 2, 2))
    >>> tuple(outputs.logits.shape), tuple(outputs.features.shape), tap.feature_dim
    ((2, 5), (2, 8), 8)
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        *,
        classifier: str | None = None,
        feature_dim: int | None = None,
        features: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        self.num_classes = num_classes
        self.classifier_path: str | None = None
        self.feature_dim: int | None = None
        self._capture = _Capture()
        if features:
            path = _checked_path(model, classifier) if classifier is not None else _find_classifier(model, num_classes)
            head = model.get_submodule(path)
            self.classifier_path = path
            self.feature_dim = feature_dim if feature_dim is not None else _feature_dim(head, path)
            head.register_forward_pre_hook(self._capture)

    def forward(self, *inputs: Any, **named: Any) -> Outputs:
        capture = self._capture
        capture.armed = True
        try:
            output = self.model(*map(_copy, inputs), **{name: _copy(value) for name, value in named.items()})
            seen = capture.seen
        finally:
            capture.armed = False
            capture.seen = None
        logits_BC = logits_in(output)
        if not isinstance(logits_BC, Tensor) or logits_BC.ndim != 2 or logits_BC.shape[1] != self.num_classes:
            raise ModelError(f"the model must give logits (B, {self.num_classes}), got {_described(output)}")
        if self.classifier_path is None:
            return Outputs(logits=logits_BC)
        if seen is None:
            raise ModelError(
                f"the model's forward pass never called its classifier {self.classifier_path!r}, so there are no "
                "features to tap; name the module that is called last with classifier='dotted.path'"
            )
        features_BD = _flat(seen, self.model.get_submodule(self.classifier_path))
        if features_BD.shape != (logits_BC.shape[0], self.feature_dim):
            raise ModelError(
                f"classifier {self.classifier_path!r} received {tuple(seen.shape)}, which gives features "
                f"{tuple(features_BD.shape)}; expected ({logits_BC.shape[0]}, {self.feature_dim})"
            )
        return Outputs(logits=logits_BC, features=features_BD)


class _Capture:
    """Remembers what reaches the classifier, only while its tap is in its forward pass.

    An object and not a closure, so that a deep copy of a tap captures for itself.
    """

    def __init__(self) -> None:
        self.armed = False
        self.seen: Tensor | None = None

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if self.armed:
            self.seen = arguments[0]


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _flat(seen: Tensor, head: nn.Module) -> Tensor:
    if isinstance(head, nn.Conv2d):
        return seen.flatten(2).mean(2)
    if isinstance(head, nn.Linear | CosineClassifier) and seen.ndim > 2:
        return seen.flatten(1, -2).mean(1)
    return seen.flatten(1)


def _widths(module: object) -> tuple[int, int] | None:
    """(in, out) of a module that can be a classifier, else None."""
    if isinstance(module, nn.Linear | CosineClassifier):
        return module.in_features, module.out_features
    if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1:
        return module.in_channels, module.out_channels
    return None


def _preferred(model: nn.Module) -> Iterator[object]:
    yield getattr(model, "classifier", None)
    get_classifier = getattr(model, "get_classifier", None)
    if callable(get_classifier):
        yield get_classifier()


def called_classifier(model: nn.Module, num_classes: int, inputs: Inputs) -> str:
    """What a `FeatureTap` takes for the classifier; where these inputs never reach it, the last that they reach.

    Raises:
        ModelError: there is no classifier to be found.

    >>> two_heads = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    >>> two_heads[1].unused = nn.Linear(12, 5)
    >>> FeatureTap(two_heads, 5).classifier_path, called_classifier(two_heads, 5, torch.zeros(2, 3, 2, 2))
    ('1.unused', '1')
    """
    found, fitting = _find_classifier(model, num_classes), fitting_classifiers(model, num_classes)
    if len(fitting) == 1:
        return found
    called: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda *_, path=path: called.append(path)) for path, module in fitting.items()
    ]
    try:
        with torch.no_grad(), eval_mode(model):
            call(model, each_tensor(Tensor.clone, inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return called[-1] if called and found not in called else found


def with_its_equals(model: nn.Module, classifier: str, num_classes: int) -> tuple[str, ...]:
    """The path of a classifier, and where the network's own `get_classifier` gives several with it, all of theirs.

    The distilled transformers of timm have two, whose mean is their answer.

    >>> network = nn.ModuleDict({"head": nn.Linear(4, 3), "head_dist": nn.Linear(4, 3), "aside": nn.Linear(4, 3)})
    >>> network.get_classifier = lambda: (network["head"], network["head_dist"])
    >>> with_its_equals(network, "head_dist", 3), with_its_equals(network, "aside", 3)
    (('head', 'head_dist'), ('aside',))
    """
    get_classifier = getattr(model, "get_classifier", None)
    given = get_classifier() if callable(get_classifier) else None
    if not isinstance(given, tuple | list | nn.ModuleList):
        return (classifier,)
    inside = {id(module) for each in given if isinstance(each, nn.Module) for module in each.modules()}
    paths = [path for path, head in fitting_classifiers(model, num_classes).items() if id(head) in inside]
    return tuple(paths) if classifier in paths else (classifier,)


def _find_classifier(model: nn.Module, num_classes: int) -> str:
    fitting = fitting_classifiers(model, num_classes)
    for wanted in _preferred(model):
        for path, module in fitting.items():
            if module is wanted:
                return path
    if fitting:
        return list(fitting)[-1]
    every = [(path, widths) for path, module in model.named_modules() if (widths := _widths(module))]
    seen = ", ".join(f"{path!r} ({widths[1]} outputs)" for path, widths in every[-8:])
    raise ModelError(
        f"no classifier with {num_classes} outputs in {type(model).__name__}. "
        f"Linear layers and 1x1 convolutions (the last 8): {seen or 'none'}. "
        "Give the model one output per class, or name the module with classifier='dotted.path'"
    )


def fitting_classifiers(model: nn.Module, num_classes: int) -> dict[str, nn.Module]:
    """The modules that can be the classifier, by path, in the order of their definition."""
    modules = ((path, module, _widths(module)) for path, module in model.named_modules())
    return {path: module for path, module, widths in modules if widths is not None and widths[1] == num_classes}


def _checked_path(model: nn.Module, path: str) -> str:
    paths = [name for name, _ in model.named_modules() if name]
    if path not in paths:
        raise ModelError(f"{type(model).__name__} has no module {path!r}. {did_you_mean(path, paths)}")
    return path


def _feature_dim(head: nn.Module, path: str) -> int:
    widths = _widths(head)
    if widths is None:
        raise ModelError(
            f"the feature width of classifier {path!r} ({type(head).__name__}) cannot be determined; pass "
            "feature_dim=..."
        )
    return widths[0]


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"shape {tuple(value.shape)}"
    first = logits_in(value)
    inner = "" if first is value else f", of which {_described(first)}"
    return f"{type(value).__name__}{inner}"
