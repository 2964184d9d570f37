"""Entries of a slot from the user's own code, by import path: `package.module:Entry`.

Shapes: B batch, C classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from distail.errors import MethodError
from distail.import_path import import_callable
from distail.methods.context import BatchContext, SlotOutput, SlotSetup

Builder = Callable[..., nn.Module]


class FunctionEntry(nn.Module):
    """A plain function as an entry: ``function(context, ...)``, its keyword parameters bound."""

    def __init__(self, name: str, function: Callable[..., Tensor | SlotOutput], parameters: dict[str, Any]) -> None:
        super().__init__()
        self.name = name
        self.function = function
        self.bound = parameters

    def forward(self, context: BatchContext, *logits_BC: Tensor) -> Tensor | SlotOutput:
        return self.function(context, *logits_BC, **self.bound)


def own_entry(slot: str, path: str, valid: tuple[str, ...]) -> Builder:
    """What builds the entry at an import path: called with a `SlotSetup` and the entry's keyword parameters.

    A class is an `nn.Module` that takes these; a function is the entry's forward pass, ``(context)`` or, for repairs
    and divergences, ``(context, logits_BC)``, and its keyword parameters are the entry's.

    Raises:
        MethodError: there is no such thing, or code of one's own is refused (`--no-code`).
    """
    found = import_callable(path, f"a {slot} entry of your own", f"{slot}: {', '.join(valid)}", MethodError)
    if inspect.isclass(found):
        if not issubclass(found, nn.Module):
            raise MethodError(
                f"{slot} entry {path!r} is a class that is no torch.nn.Module; expected one, or a function"
            )
        return found

    def build(setup: SlotSetup, **parameters: Any) -> nn.Module:
        return FunctionEntry(path, found, parameters)

    own = [one for one in inspect.signature(found).parameters.values() if one.kind is one.KEYWORD_ONLY]
    setup = inspect.Parameter("setup", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    build.__signature__ = inspect.Signature([setup, *own])  # type: ignore[attr-defined]
    return build
