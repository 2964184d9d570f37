"""Networks from the user's own code: `package.module:function`."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from distail.errors import ModelError, did_you_mean
from distail.outputs import logits_in
from distail.torch_utils import eval_mode

NO_CODE = "DISTAIL_NO_CODE"
"""The variable of the environment with which no code is run that a configuration or a file of weights names."""


def try_once(model: nn.Module, name: str, shape: tuple[int, int, int, int], num_classes: int) -> None:
    """Let pass a network to which zeros of `shape` give logits (shape[0], `num_classes`) in eval mode.

    Modes and running statistics are as before afterwards. `name` is what messages call the network.

    Raises:
        ModelError: they do not.

    >>> try_once(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), "mine", (2, 3, 2, 2), num_classes=4)
    Traceback (most recent call last):
        ...
    distail.errors.ModelError: 'mine': images (2, 3, 2, 2) must give logits (2, 4), got shape (2, 5)
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad(), eval_mode(model):
            logits = logits_in(model(torch.zeros(shape, device=device)))
    except Exception as error:
        raise ModelError(f"{name!r}: the network failed on images {shape} with {where(error)}") from error
    if not isinstance(logits, Tensor) or logits.shape != (shape[0], num_classes):
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(f"{name!r}: images {shape} must give logits ({shape[0]}, {num_classes}), got {got}")


def where(error: BaseException) -> str:
    """Type, message and place of an error in code that distail did not write."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"


def create_imported_model(path: str, *, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Calls the function (or class) at `package.module:function` and tries the network on two images of zeros.

    The function gets `num_classes` and `in_channels` as far as its signature takes them, and `image_size` where
    it names it; what it swallows with `**` and then refuses it does not get. Modules in the current working directory
    can be imported.

    Raises:
        ModelError: the module or function is not there or fails, what it returns is not an `nn.Module`, or the output
            on the trial batch (2, in_channels, image_size, image_size) is not (2, num_classes).

    >>> create_imported_model("torch.nn:Bilinear", num_classes=10, in_channels=3, image_size=8)
    Traceback (most recent call last):
        ...
    distail.errors.ModelError: 'torch.nn:Bilinear' failed with TypeError: ...
    """
    with _working_directory_importable():
        builder = _find_builder(path)
        arguments = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
        model = _build(builder, arguments, path)
        if not isinstance(model, nn.Module):
            raise ModelError(f"{path!r} must return a torch.nn.Module, got {type(model).__name__}")
        try_once(model, path, (2, in_channels, image_size, image_size), num_classes)
    return model


def check_imported_model(path: str) -> None:
    """Let pass a path `package.module:function` at which there is something to call; calls nothing.

    Raises:
        ModelError: there is nothing, or `DISTAIL_NO_CODE` is set.
    """
    with _working_directory_importable():
        _find_builder(path)


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    """For the time of the import: a search path that stays changed would change what others import later."""
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def _find_builder(path: str) -> Callable[..., Any]:
    module_name, _, function_name = path.partition(":")
    if not module_name or not function_name:
        raise ModelError(f"a model of your own is named package.module:function, got {path!r}")
    if os.environ.get(NO_CODE):
        raise ModelError(
            f"{path!r} names code that would be run, which --no-code (or {NO_CODE}) refuses; expected a name of "
            "distail.models.list_models() or timm:NAME"
        )
    module = _import(module_name, path)
    builder: Callable[..., Any] | None = getattr(module, function_name, None)
    if not callable(builder):
        choices = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        what = "has no function" if builder is None else "has something that cannot be called as"
        raise ModelError(f"module {module_name!r} {what} {function_name!r}. {did_you_mean(function_name, choices)}")
    return builder


def _import(module_name: str, path: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise ModelError(
                f"no module {error.name!r}, which model {path!r} names; looked in the current directory {Path.cwd()} "
                "and among the installed packages"
            ) from error
        raise ModelError(f"importing {module_name!r} failed with {where(error)}") from error
    except Exception as error:
        raise ModelError(f"importing {module_name!r} failed with {where(error)}") from error


def _build(builder: Callable[..., Any], arguments: dict[str, int], path: str) -> Any:
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
