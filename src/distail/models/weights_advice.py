"""What a user can do with a file of weights that cannot be taken as it is."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from distail.errors import some_of

_NUMBER = re.compile(r"\d+")
_REFUSED = re.compile(r"GLOBAL ([\w.]+)")


def more_than_tensors(path: Path, error: Exception) -> str:
    """Of a file of torch.save that holds Python objects: what of them torch's `error` names, and what to store.

    >>> print(more_than_tensors(Path("a.pth"), ValueError("Unsupported global: GLOBAL argparse.Namespace was ...")))
    ... # doctest: +NORMALIZE_WHITESPACE
    a.pth is damaged, or holds more than tensors (argparse.Namespace), which is never loaded because it could run code.
    Store the state dict alone: torch.save(model.state_dict(), path), or better as safetensors. With the file alone, if
    you trust it: torch.save(torch.load('a.pth', weights_only=False)['model'], 'weights.pth'), where 'model' is what
    the file calls them; of a whole model its .state_dict()
    """
    found = _REFUSED.search(str(error))
    return (
        f"{path} is damaged, or holds more than tensors{f' ({found[1]})' if found else ''}, which is never loaded "
        "because it could run code. Store the state dict alone: torch.save(model.state_dict(), path), or better as "
        f"safetensors. With the file alone, if you trust it: torch.save(torch.load({path.name!r}, "
        "weights_only=False)['model'], 'weights.pth'), where 'model' is what the file calls them; of a whole model "
        "its .state_dict()"
    )


def stored_alone(path: Path, key: object) -> str:
    """The code that stores one state dict of several alone."""
    return f"torch.save(torch.load({path.name!r}, weights_only=True)[{key!r}], 'weights.pth')"


def surplus_advice(own: Collection[str], stored: Collection[str]) -> str | None:
    """What to do about weights beside a network's own: a deeper network's, or other networks' in the same file.

    None where that is not what is wrong.

    Args:
        own: names of the weights that a network needs.
        stored: names in the file.

    >>> surplus_advice(["fc.bias"], ["model.fc.bias", "teacher.fc.bias"])
    "it holds other weights beside those under 'model.', 'teacher.': store one of these alone, of its state dict: \
torch.save({name.removeprefix('model.'): tensor for name, tensor in state.items() if name.startswith('model.')}, \
'weights.pth')"
    """
    if {*own} < {*stored}:
        kinds = {_NUMBER.sub("#", name) for name in own}
        more = [name for name in stored if name not in own and _NUMBER.sub("#", name) in kinds]
        if more:
            return f"it looks like a deeper network of the same family, with layers beyond this one's: {some_of(more)}"
        return (
            "it holds other weights beside all of the model: store these alone, of its state dict: "
            "torch.save({name: state[name] for name in model.state_dict()}, 'weights.pth')"
        )
    firsts = dict.fromkeys(name[: name.find(".") + 1] for name in stored)
    fitting = [first for first in firsts if first and all(first + name in stored for name in own)]
    if not fitting or len(firsts) == 1:
        return None
    first = fitting[0]
    return (
        f"it holds other weights beside those under {some_of([repr(each) for each in fitting])}: store one of these "
        f"alone, of its state dict: torch.save({{name.removeprefix({first!r}): tensor for name, tensor in state.items()"
        f" if name.startswith({first!r})}}, 'weights.pth')"
    )
