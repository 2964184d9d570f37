"""Networks from the user's own code: `package.module:function`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distail.errors import ModelError
from distail.import_path import import_callable, where, working_directory_importable
from distail.inputs import Inputs, call, described, each_tensor, first_tensor
from distail.outputs import logits_in
from distail.torch_utils import eval_mode


def try_once(model: nn.Module, name: str, inputs: Inputs, num_classes: int) -> None:
    """Let pass a network that makes logits (B, `num_classes`) of inputs (B, ...) in eval mode.

    Modes and running statistics are as before afterwards. `name` is what messages call the network.

    Raises:
        ModelError: they do not.

    >>> try_once(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), "mine", torch.zeros(2, 3, 2, 2), num_classes=4)
    Traceback (most recent call last):
        ...
    distail.errors.ModelError: 'mine': inputs (2, 3, 2, 2) must give logits (2, 4), got shape (2, 5)
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    given, size = described(inputs), len(first_tensor(inputs))
    try:
        with torch.no_grad(), eval_mode(model):
            logits = logits_in(call(model, each_tensor(lambda tensor: tensor.to(device, copy=True), inputs)))
    except Exception as error:
        raise ModelError(f"{name!r}: the network failed on {given} with {where(error)}") from error
    if not isinstance(logits, Tensor) or logits.shape != (size, num_classes):
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(f"{name!r}: {given} must give logits ({size}, {num_classes}), got {got}")


def create_imported_model(
    path: str,
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    example: Inputs | None = None,
    cardinalities: Sequence[int] | None = None,
) -> nn.Module:
    """Calls the function (or class) at `package.module:function` and tries the network on the example.

    That is by default two images of zeros. The function gets `num_classes` and `in_channels` as far as its signature
    takes them, and `image_size` and `input_shape` (that of one example, without the batch) where it names them; what it
    swallows with `**` and then refuses it does not get. Of examples that are several tensors only `num_classes` is
    known. `cardinalities`, which says what columns are codes of categories, it must name where there are such. Modules
    in the current working directory can be imported.

    Raises:
        ModelError: the module or function is not there or fails, it would take codes for numbers, what it returns is
            not an `nn.Module`, or the output
            on the trial batch, by default (2, in_channels, image_size, image_size), is not (2, num_classes).

    >>> create_imported_model("torch.nn:Bilinear", num_classes=10, in_channels=3, image_size=8)
    Traceback (most recent call last):
        ...
    distail.errors.ModelError: 'torch.nn:Bilinear' failed with TypeError: ...
    """
    with working_directory_importable():
        builder = find_builder(path)
        if example is None:
            example = torch.zeros(2, in_channels, image_size, image_size)
        arguments: dict[str, Any] = {"num_classes": num_classes}
        if isinstance(example, Tensor):
            shape = tuple(example.shape[1:])
            arguments |= {"in_channels": shape[0], "image_size": min(shape[1:], default=1), "input_shape": shape}
        if cardinalities is not None:
            if not any("cardinalities" in names for names in _taken(builder)):
                raise ModelError(
                    f"{path!r} has no parameter cardinalities: the number of codes of each column of the table, 0 for "
                    "a number. With data.categories: embedded its inputs (batch, columns) hold codes; expected a "
                    "parameter cardinalities (sizes of nn.Embedding), or data.categories: one_hot"
                )
            arguments["cardinalities"] = tuple(cardinalities)
        model = _build(builder, arguments, path)
        if not isinstance(model, nn.Module):
            raise ModelError(f"{path!r} must return a torch.nn.Module, got {type(model).__name__}")
        try_once(model, path, example, num_classes)
    return model


def check_imported_model(path: str) -> None:
    """Let pass a path `package.module:function` at which there is something to call; calls nothing.

    Raises:
        ModelError: there is nothing, or `DISTAIL_NO_CODE` is set.
    """
    find_builder(path)


def find_builder(path: str) -> Callable[..., Any]:
    return import_callable(path, "a model of your own", "distail.models.list_models() or timm:NAME", ModelError)


def _build(builder: Callable[..., Any], arguments: Mapping[str, Any], path: str) -> Any:
    """What the builder makes of the first arguments that it takes, tried only where it does not name what it takes."""
    refused: TypeError | None = None
    for names in _taken(builder):
        try:
            return builder(**{name: value for name, value in arguments.items() if name in names})
        except TypeError as error:
            refused = refused or error
        except Exception as error:
            raise ModelError(f"{path!r} failed with {where(error)}") from error
    assert refused is not None
    raise ModelError(f"{path!r} failed with {where(refused)}") from refused


def _taken(builder: Callable[..., Any]) -> list[set[str]]:
    """Which arguments to try: what the builder names, with what it may swallow by `**` first."""
    try:
        parameters = inspect.signature(builder).parameters.values()
    except ValueError:  # some builtins have no signature
        return [set()]
    named = {parameter.name for parameter in parameters if parameter.kind is not parameter.POSITIONAL_ONLY}
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return [named]
    return [named | {"num_classes", "in_channels"}, named | {"num_classes"}, named]
