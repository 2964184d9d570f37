"""A network by its name, from the catalog, from timm or from the user's own code."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distail.errors import ModelError, listed, unknown_name
from distail.inputs import Inputs, described
from distail.models.catalog import MODELS, builder_of
from distail.models.imported import check_imported_model, create_imported_model
from distail.models.new_head import Tell, match_classes, start_from
from distail.models.resnet import DEFAULT_SHORTCUT
from distail.models.timm_bridge import check_timm_model, create_timm_model


class Bridge(NamedTuple):
    """How models of another library come in; `check` and `create` take the name without its prefix."""

    check: Callable[[str], None]
    create: Callable[..., nn.Module]


_SIZES = ("image_size", "input_shape")
# What stands before the colon in a name; anything else there is a module of the user's.
BRIDGES = {"timm": Bridge(check_timm_model, create_timm_model)}


def create_model(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    shortcut: str = DEFAULT_SHORTCUT,
    classifier: str = "linear",
    image_size: int = 32,
    weights: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    tell: Tell = warnings.warn,
    example: Inputs | None = None,
    hidden: int | None = None,
    depth: int | None = None,
    dropout: float | None = None,
    cardinalities: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
) -> nn.Module:
    """A network from normalized images (N, in_channels, H, W), or inputs such as `example`, to logits (N, num_classes).

    `name` is one of `list_models` (case and `_` for `-` do not matter), `timm:NAME`, or
    `package.module:function` for your own builder. It is called with `num_classes=` and `in_channels=` if it accepts
    them, and its network is tested once on a batch of zeros.

    - `shortcut`, of the CIFAR ResNets: `conv` (RepDistiller and mdistiller line) or `pad` (LDAM and BKD line).
    - `classifier`, of all our own networks: `linear` or `cosine`.
    - `image_size`: side of the images in pixels. Our own networks take any size; it decides about VGG's fourth
      pooling, the position embedding of some timm models, and the trial batch.
    - `weights`: a file to start from, of any kind that `load_weights` reads; for timm, its pretrained weights. If it
      has another number of classes or no classifier, the classifier starts with near-uniform predictions and `tell`
      receives a message.
    - `mean`, `std`: the normalization of the images, per channel in 0..1 units. timm models convert it to the
      normalization that they were trained with; other models ignore it.
    - `example`: inputs of a few examples, for data that is not images: one tensor (N, ...), or tensors by the names of
      the network's parameters. Used by `mlp` and your own networks.
    - `hidden`, `depth`, `dropout`, for `mlp`: width and number of hidden layers, and the dropout probability.
    - `cardinalities`, for `mlp` and your own networks with this parameter: for each column of a table the number of
      category codes, of which 0 is an unknown category; 0 for a number.
    - `class_names`: the classes of the logits, in order. If the file of `weights` names the same classes in another
      order, the rows of its classifier are reordered; if it names other classes, the classifier is reinitialized.
      `tell` receives a message in both cases.

    Raises:
        ModelError: the name is unknown, or the network does not have a parameter (all are named) or cannot be built.
        ModelError: the weights do not fit; missing, unexpected and mismatched tensors are listed.
        CheckpointError: the weights are missing or damaged.

    >>> model = create_model("resnet20", num_classes=10, in_channels=1)
    >>> sum(parameter.numel() for parameter in model.parameters())
    272186
    """
    _check_sizes(num_classes=num_classes, in_channels=in_channels, image_size=image_size)
    options: dict[str, Any] = {"shortcut": shortcut, "classifier": classifier, "image_size": image_size}
    options |= _given(hidden=hidden, depth=depth, dropout=dropout, cardinalities=cardinalities)
    prefix, colon, rest = name.partition(":")
    if prefix in BRIDGES or not colon:
        _check_example(name, example)
    if colon:
        _refuse_options(name, options, ("image_size",) if prefix in BRIDGES else ("image_size", "cardinalities"))
    sizes = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    if prefix in BRIDGES:
        model = BRIDGES[prefix].create(rest, **sizes, weights=weights, mean=mean, std=std, tell=tell)
    elif colon:
        model = create_imported_model(name, **sizes, example=example, cardinalities=cardinalities)
    else:
        if isinstance(example, Tensor):
            options["input_shape"] = tuple(example.shape[1:])
        model = _create_from_catalog(name, options, num_classes=num_classes, in_channels=in_channels)
    if weights is None:
        return model
    if prefix not in BRIDGES:
        start_from(model, weights, num_classes, what=name, tell=tell)
    if class_names is not None:
        inputs = torch.zeros(2, in_channels, image_size, image_size) if example is None else example
        match_classes(model, weights, class_names, inputs, what=name, tell=tell)
    return model


def check_model(name: str, *, shortcut: str = DEFAULT_SHORTCUT, classifier: str = "linear", **others: Any) -> None:
    """Let pass what `create_model` can build for some data; for use before data are read.

    `others` are `hidden`, `depth` and `dropout`.

    Raises:
        ModelError: as `create_model` does.

    >>> check_model("resnet20", shortcut="pad")
    >>> check_model("vgg8", shortcut="pad")
    Traceback (most recent call last):
        ...
    distail.errors.ModelError: model 'vgg8' does not have these parameters:
      - shortcut: 'pad' (leave it out, or write 'conv')
    """
    options = {"shortcut": shortcut, "classifier": classifier, **_given(**others)}
    prefix, colon, rest = name.partition(":")
    if not colon:
        _create_from_catalog(name, options, num_classes=1, in_channels=1)
        return
    _refuse_options(name, options, ())
    if prefix in BRIDGES:
        BRIDGES[prefix].check(rest)
    else:
        check_imported_model(name)


def _create_from_catalog(name: str, options: dict[str, Any], **sizes: int) -> nn.Module:
    builder = builder_of(name)
    if builder is None:
        message = unknown_name("model", name, MODELS)
        raise ModelError(f"{message} Also: timm:NAME for a model of timm, package.module:function for your own")
    taken = inspect.signature(builder).parameters
    _refuse_options(name, options, tuple(taken))
    return builder(**sizes, **{option: value for option, value in options.items() if option in taken})


def takes_only_images(name: str) -> bool:
    """Whether a network is one for images, as far as its name says.

    >>> takes_only_images("resnet20"), takes_only_images("mlp"), takes_only_images("mine:net")
    (True, False, False)
    """
    prefix, colon, _ = name.partition(":")
    if colon:
        return prefix in BRIDGES
    builder = builder_of(name)
    return builder is not None and "input_shape" not in inspect.signature(builder).parameters


def _check_example(name: str, example: Inputs | None) -> None:
    if isinstance(example, Tensor) and example.ndim == 4 and example.is_floating_point():
        return
    if example is None or (not takes_only_images(name) and isinstance(example, Tensor) and example.is_floating_point()):
        return
    kind = "floats (batch, channels, height, width)" if takes_only_images(name) else "floats (batch, ...)"
    raise ModelError(
        f"model {name!r} takes {kind}, and the data gives {described(example)}"
        f"{' of whole numbers' if isinstance(example, Tensor) and not example.is_floating_point() else ''}; expected "
        "'mlp' for tables and arrays of floats, or package.module:function for a network of your own"
    )


def _given(**options: Any) -> dict[str, Any]:
    """Without those that are left to the network's default."""
    return {name: value for name, value in options.items() if value is not None}


def _refuse_options(name: str, options: dict[str, Any], taken: Sequence[str]) -> None:
    defaults = inspect.signature(create_model).parameters
    problems = [
        f"{option}: {value!r} (leave it out{f', or write {defaults[option].default!r}' if option in defaults else ''})"
        for option, value in options.items()
        # Every network copes with any image size, so that one is never refused.
        if option not in (*taken, *_SIZES) and (option not in defaults or value != defaults[option].default)
    ]
    if problems:
        raise ModelError(listed(problems, f"model {name!r} does not have these parameters:"))


def _check_sizes(**sizes: object) -> None:
    problems = [
        f"{name} must be a whole number of at least 1, got {value!r}"
        for name, value in sizes.items()
        if not isinstance(value, int) or isinstance(value, bool) or value < 1
    ]
    if problems:
        raise ModelError("; ".join(problems))
