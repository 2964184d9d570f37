"""Entries of a slot from the user's own code, by import path: `package.module:Entry`.

Shapes: B batch, C classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from distail.errors import DistailError, MethodError
from distail.import_path import import_callable, where
from distail.methods.context import BALANCED, NATURAL, BatchContext, SlotOutput, SlotSetup

Builder = Callable[..., nn.Module]
DECLARED = ("needs", "auxiliary", "posterior", "neutral", "composition_defaults", "label_kinds")
"""What an entry, a class or a function, may say of itself as an attribute."""


class FunctionEntry(nn.Module):
    """A plain function as an entry: ``function(context, ...)``, its keyword parameters bound."""

    def __init__(self, name: str, function: Callable[..., Tensor | SlotOutput], parameters: dict[str, Any]) -> None:
        super().__init__()
        self.name = name
        self.function = function
        self.bound = parameters
        _declare_as(function, self)

    def forward(self, context: BatchContext, *logits_BC: Tensor) -> Tensor | SlotOutput:
        return self.function(context, *logits_BC, **self.bound)


def is_own(module: nn.Module) -> bool:
    """Whether a layer, or an entry, is the user's own code: neither torch's nor this package's.

    >>> is_own(nn.ReLU()), is_own(FunctionEntry("mine:entry", print, {}))
    (False, True)
    """
    return isinstance(module, FunctionEntry) or not f"{type(module).__module__}.".startswith(("torch.nn.", "distail."))


def own_entry(slot: str, path: str, valid: tuple[str, ...]) -> Builder:
    """What builds the entry at an import path: called with a `SlotSetup` and the entry's parameters by keyword.

    A class is an `nn.Module` that takes these; a function is the entry's forward pass, ``(context)`` or, for repairs
    and divergences, ``(context, logits_BC)``, and what else it takes are the entry's parameters.

    Raises:
        MethodError: there is no such thing, code of one's own is refused (`--no-code`), or it cannot be called so.
    """
    found = import_callable(path, f"a {slot} entry of your own", f"{slot}: {', '.join(valid)}", MethodError)
    of_batch = ("context", "logits") if slot in ("targets", "divergence") else ("context",)
    whose, name = f"{slot} entry {path!r}", path.partition(":")[2]
    module = found if isinstance(found, type) else None
    if module is not None and not issubclass(module, nn.Module):
        raise MethodError(f"{whose} is a class but not a torch.nn.Module; expected a module or a function")
    posterior = getattr(found, "posterior", None)
    if posterior not in (None, NATURAL, BALANCED):
        raise MethodError(f"{whose}: its posterior is {posterior!r}; expected {NATURAL!r}, {BALANCED!r} or None")
    first = of_batch if module is None else ("setup",)

    def build(setup: SlotSetup, /, **parameters: Any) -> nn.Module:
        _check_call(whose, name, found, first, parameters)
        if module is None:
            return FunctionEntry(path, found, parameters)
        _check_call(whose, f"{name}.forward", module.forward, ("self", *of_batch))
        try:
            return module(setup, **parameters)
        except DistailError:
            raise
        except Exception as error:
            raise MethodError(f"{whose}: {_words(name, first, parameters)} failed with {where(error)}") from error

    build.__signature__ = inspect.Signature(_parameters(whose, found, len(first)))  # type: ignore[attr-defined]
    _declare_as(found, build)
    return build


def _declare_as(found: object, entry: object) -> None:
    for key in DECLARED:
        if hasattr(found, key):
            setattr(entry, key, getattr(found, key))


def _parameters(whose: str, found: Callable[..., Any], taken: int) -> list[inspect.Parameter]:
    """What can be given by name, beside the first arguments."""
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    every = _signature(whose, found).parameters.values()
    rest = [one for one in every if one.kind in by_place][taken:]
    rest += [one for one in every if one.kind is one.KEYWORD_ONLY]
    return [one.replace(kind=one.KEYWORD_ONLY) for one in rest if one.kind is not one.POSITIONAL_ONLY]


def _check_call(
    whose: str, name: str, called: Callable[..., Any], first: Sequence[str], parameters: Mapping[str, Any] | None = None
) -> None:
    signature, given = _signature(whose, called), parameters or {}
    try:
        signature.bind(*first, **given)
    except TypeError as error:
        raise MethodError(
            f"{whose}: {name}{signature} cannot be called as {_words(name, first, given)}: {error}"
        ) from None


def _words(name: str, first: Sequence[str], parameters: Mapping[str, Any]) -> str:
    return f"{name}({', '.join([*first, *(f'{key}={value!r}' for key, value in parameters.items())])})"


def _signature(whose: str, called: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(called)
    except ValueError:  # as of what is written in C
        raise MethodError(f"{whose}: its parameters cannot be read; expected a function or a class in Python") from None
