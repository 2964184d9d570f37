"""Weights on disk: safetensors written so that a kill leaves no half file, read so that nothing is unpickled."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor, nn

from distail.errors import CheckpointError, ModelError, listed, some_of
from distail.files import CONTENT_HASH, is_utf8, open_tensors, read_tensors, write_tensors
from distail.models.weights_advice import more_than_tensors, stored_alone, surplus_advice

# How the files of torch.save begin: an archive, or before torch 1.6 a pickle.
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_CONTAINERS = ("state_dict", "model")


def save_weights(model: nn.Module, path: str | Path, metadata: Mapping[str, str]) -> None:
    """Writes `model.state_dict()` and `metadata` to a safetensors file, atomically.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(nn.Linear(2, 2), f"{folder}/student.safetensors", {"model": "mine"})
    ...     read_metadata(f"{folder}/student.safetensors")
    {'model': 'mine'}
    """
    write_tensors(Path(path), model.state_dict(), metadata)


def load_weights(model: nn.Module, path: str | Path, *, what: str = "teacher") -> None:
    """Fills every weight of `model` from a file that must fit it exactly; `what` names the model in messages.

    Reads safetensors, and files of `torch.save` that hold a plain state dict, alone or with other entries (under
    `state_dict`, `model`, or the only name that has one). The format is detected from the content, not the suffix. A
    prefix shared by all keys, left by a wrapper (`module.`, `_orig_mod.`), is ignored, and so are missing or unexpected
    integer counters (`n_averaged`, `num_batches_tracked`).

    Raises:
        CheckpointError: the file is missing, cannot be read, or holds weights that are quantized or not finite.
        ModelError: it does not fit.
    """
    path, own = Path(path), model.state_dict()
    stored = stored_for(own, path, what)
    check_fit(model, own, stored, path, what)
    check_numbers(own, stored, path, what)
    model.load_state_dict(stored)


def stored_for(own: Mapping[str, Tensor], path: Path, what: str) -> dict[str, Tensor]:
    """The tensors of a file by the names of a model's `own`, counters that are surplus or missing made good.

    Raises:
        CheckpointError: the file is missing or cannot be read.
    """
    found = named_as(own, read_state_dict(path, what))
    stored = {name: tensor for name, tensor in found.items() if name in own or not is_counter(tensor)}
    # Files of old releases lack the counters of batch normalization.
    return stored | {name: tensor for name, tensor in own.items() if name not in stored and is_counter(tensor)}


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a safetensors file; those of `torch.save` have none.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    from safetensors import SafetensorError

    _check_file(Path(path), "weights")
    if is_torch_file(Path(path)):
        return {}
    try:
        with open_tensors(Path(path)) as file:
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise CheckpointError(_not_safetensors(path, error)) from error
    metadata.pop(CONTENT_HASH, None)
    return metadata


def check_weights(path: Path) -> None:
    """Read a weights file whole.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    read_state_dict(path, "weights")


def recognize_weights(path: Path) -> None:
    """Let pass a file that holds weights, of whatever network, without reading all of it where that can be.

    Raises:
        CheckpointError: the file is missing, damaged, or holds something else.
    """
    read_metadata(path)
    if is_torch_file(path):
        _read_torch(path, mapped=True)


def is_torch_file(path: Path) -> bool:
    """Whether a file looks like one of `torch.save`, whatever its name."""
    with path.open("rb") as file:
        head = file.read(9)
    # A safetensors file begins with the length of its JSON, which may look like a pickle.
    return head.startswith((_ZIP, _PICKLE)) and head[4:] != b"\0\0\0\0{"


def _not_safetensors(path: str | Path, error: Exception) -> str:
    return f"{path} is not a safetensors file, or is damaged ({error}), nor a file of torch.save"


def _check_file(path: Path, what: str) -> None:
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"{what}: the weights file {str(path)!r} {kind} (current directory {Path.cwd()})")


def read_state_dict(path: Path, what: str) -> dict[str, Tensor]:
    """The tensors of a file of weights, by the names that it gives them.

    Raises:
        CheckpointError: the file is missing or damaged, or holds something else.
    """
    _check_file(path, what)
    if is_torch_file(path):
        try:
            return _read_torch(path)
        except CheckpointError as error:
            raise CheckpointError(f"{what}: {error}") from error
    from safetensors import SafetensorError

    try:
        return read_tensors(path)[0]
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{what}: {_not_safetensors(path, error)}") from error


def _read_torch(path: Path, *, mapped: bool = False) -> dict[str, Tensor]:
    content = _load_torch(path, mapped=mapped)
    return {str(name): tensor for name, tensor in _state_dict(content, path).items()}


def _load_torch(path: Path, *, mapped: bool) -> object:
    try:
        with path.open("rb") as file:
            # By its name torch opens what it can map, and takes some names for other kinds of files.
            mapped = mapped and file.read(len(_ZIP)) == _ZIP and path.suffix != ".safetensors" and is_utf8(path)
            file.seek(0)
            source = str(path) if mapped else file
            content: object = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
            return content
    except pickle.UnpicklingError as error:
        raise CheckpointError(more_than_tensors(path, error)) from error
    except Exception as error:  # fed with garbage, torch's reader raises anything, IndexError included
        raise CheckpointError(f"{path} is damaged ({type(error).__name__}: {error})") from error


def _state_dict(content: object, path: Path) -> Mapping[object, Tensor]:
    expected = f"{path} must hold a plain state dict, names to tensors"
    if _is_state_dict(content):
        return content
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{expected}; it holds a {type(content).__name__}")
    inside = _state_dicts_in(content)
    if inside and (len(inside) == 1 or next(iter(inside)) in _CONTAINERS):
        return next(iter(inside.values()))
    advice = ""
    if inside:
        first = next(iter(inside))
        advice = f". Which one is ambiguous: store one of them alone, such as {first!r} by {stored_alone(path, first)}"
    raise CheckpointError(f"{expected}; it holds {some_of([repr(key) for key in content]) or 'nothing'}{advice}")


def _state_dicts_in(content: Mapping[object, object]) -> dict[object, Mapping[object, Tensor]]:
    """What of a file's content is a state dict, that which is usually meant first."""
    inside = {key: value for key, value in content.items() if _is_state_dict(value)}
    usual = [key for key in _CONTAINERS if key in inside]
    return {key: inside[key] for key in [*usual, *(key for key in inside if key not in usual)]}


def unused_weights(path: Path) -> list[str]:
    """A sentence for the user where a file holds the same network's weights several times, such as their average too.

    Nothing where there is no file any more, or no other weights in it.

    Raises:
        CheckpointError: the file is damaged.
    """
    if not path.is_file() or not is_torch_file(path):
        return []
    content = _load_torch(path, mapped=True)
    if _is_state_dict(content) or not isinstance(content, Mapping):
        return []
    (used, weights), *others = _state_dicts_in(content).items()
    names = {str(name) for name in weights}
    same = [key for key, other in others if names <= named_as(names, {str(n): t for n, t in other.items()}).keys()]
    if not same:
        return []
    return [
        f"{path}: the weights under {used!r} are used, not those under {some_of([repr(key) for key in same])}; for "
        f"others store them alone, such as {stored_alone(path, same[0])}"
    ]


def _is_state_dict(content: object) -> TypeGuard[Mapping[object, Tensor]]:
    return isinstance(content, Mapping) and bool(content) and all(isinstance(v, Tensor) for v in content.values())


def named_as(own: Iterable[str], stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The stored tensors under a model's own names, where one prefix more or less makes all the difference.

    >>> list(named_as(["fc.weight", "fc.bias"], {"module.fc.weight": torch.zeros(1), "n_averaged": torch.zeros(1)}))
    ['fc.weight', 'n_averaged']
    >>> list(named_as(["model.fc.weight"], {"fc.weight": torch.zeros(1)}))
    ['model.fc.weight']
    """
    names = set(own)
    matches: Counter[tuple[str, str]] = Counter()
    for mine in shared_prefixes(names):
        bare = {name.removeprefix(mine) for name in names}
        for name in stored:
            matches.update((theirs, mine) for theirs in _prefixes(name) if name.removeprefix(theirs) in bare)
    if not matches:
        return dict(stored)
    most = max(matches.values())
    theirs, mine = min((pair for pair, count in matches.items() if count == most), key=lambda pair: len("".join(pair)))
    return {
        mine + name.removeprefix(theirs) if name.startswith(theirs) else name: tensor for name, tensor in stored.items()
    }


def _prefixes(name: str) -> list[str]:
    """Nothing, and what ends with each dot: of `a.b.weight` also `a.` and `a.b.`."""
    return ["", *(name[: place + 1] for place, letter in enumerate(name) if letter == ".")]


def shared_prefixes(names: Collection[str]) -> list[str]:
    """The prefixes that all names have, from none to the longest."""
    return [prefix for prefix in _prefixes(min(names, default="")) if all(name.startswith(prefix) for name in names)]


def is_counter(tensor: Tensor) -> bool:
    """Whether a tensor is a mere counter, such as `n_averaged` of an average of weights."""
    return tensor.ndim == 0 and not tensor.is_floating_point()


def check_fit(model: nn.Module, own: Mapping[str, Tensor], stored: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Let pass stored tensors that are a model's own by names and shapes.

    Raises:
        ModelError: they are not; what is missing, surplus or of another shape is listed.
    """
    missing = [name for name in own if name not in stored]
    unexpected = [name for name in stored if name not in own]
    shapes = {
        name: (tuple(stored[name].shape), tuple(own[name].shape))
        for name in own
        if name in stored and stored[name].shape != own[name].shape
    }
    if not (missing or unexpected or shapes):
        return
    classes = _other_classes(shapes) if not (missing or unexpected) else None
    if classes is not None:
        raise ModelError(
            f"{what}: {path} was trained for {classes[0]} classes, but the data has {classes[1]} "
            f"(different: {some_of(list(shapes))})"
        )
    problems = [
        f"{len(names)} {kind}: {some_of(names)}"
        for kind, names in (
            ("missing in the file", missing),
            ("in the file but not in the model", unexpected),
            (
                "of another shape",
                [f"{name} {theirs} in the file, {ours} here" for name, (theirs, ours) in shapes.items()],
            ),
        )
        if names
    ]
    raise ModelError(listed([*problems, _origin(path, own)], f"{what}: {path} does not fit {type(model).__name__}:"))


def _origin(path: Path, own: Mapping[str, Tensor]) -> str:
    """What a file says of its network, or seems to be where it says nothing."""
    told = read_metadata(path)
    if "model" not in told:
        needed, stored = (
            [name for name, tensor in tensors.items() if not is_counter(tensor)]
            for tensors in (own, read_state_dict(path, "weights"))
        )
        return (
            surplus_advice(needed, stored) or "it looks like another architecture, or like weights of another library"
        )
    options = [f"{key} {told[key]!r}" for key in ("shortcut", "classifier", "in_channels") if key in told]
    return f"the file says that it is {told['model']!r}{' with ' if options else ''}{', '.join(options)}"


def check_numbers(own: Mapping[str, Tensor], stored: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Let pass plain, finite numbers.

    Raises:
        CheckpointError: there are others.
    """
    floating = [name for name, tensor in own.items() if tensor.is_floating_point()]
    others = {name: kind for name in floating if (kind := _other_than_numbers(stored[name]))}
    if others:
        raise CheckpointError(
            f"{what}: {path} holds {', '.join(sorted(set(others.values())))} tensors where weights are expected, in "
            f"{len(others)} of {len(stored)}: {some_of(list(others))}. Expected plain floating-point numbers of 16, 32 "
            "or 64 bits, such as those before a quantization"
        )
    bad = [name for name, tensor in stored.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise CheckpointError(
            f"{what}: {path} has nan or infinity in {len(bad)} of {len(stored)} tensors: {some_of(bad)}. "
            "The training that wrote it diverged; expected finite weights, such as those of an earlier epoch"
        )


def _other_than_numbers(tensor: Tensor) -> str:
    """What a tensor holds that cannot be taken for weights as it is; nothing for plain floating-point numbers."""
    if tensor.is_meta:
        return "meta"
    if tensor.layout != torch.strided:
        return "sparse"
    plain = tensor.is_floating_point() and tensor.dtype.itemsize > 1
    return "" if plain else str(tensor.dtype).removeprefix("torch.")


def _other_classes(shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> tuple[int, int] | None:
    """(in the file, here) when the tensors that differ are one layer's and differ in its outputs only."""
    layers = {name.rpartition(".")[0] for name in shapes}
    outputs = {(theirs[0], ours[0]) for theirs, ours in shapes.values() if theirs[1:] == ours[1:] and theirs and ours}
    same_inputs = all(theirs[1:] == ours[1:] for theirs, ours in shapes.values())
    return next(iter(outputs)) if len(layers) == 1 and len(outputs) == 1 and same_inputs else None
