"""Weights on disk: safetensors written so that a kill leaves no half file, read so that nothing is unpickled."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from distail.errors import CheckpointError, ModelError, listed, some_of
from distail.files import CONTENT_HASH, read_tensors, write_tensors

_WRAPPER_PREFIXES = ("module.", "model.", "_orig_mod.")
_TORCH_SUFFIXES = (".pt", ".pth")


def save_weights(model: nn.Module, path: str | Path, metadata: Mapping[str, str]) -> None:
    """Writes `model.state_dict()` and `metadata` to a safetensors file, whole or not at all.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(nn.Linear(2, 2), f"{folder}/student.safetensors", {"model": "mine"})
    ...     read_metadata(f"{folder}/student.safetensors")
    {'model': 'mine'}
    """
    write_tensors(Path(path), model.state_dict(), metadata)


def load_weights(model: nn.Module, path: str | Path, *, what: str = "teacher") -> None:
    """Fills every weight of `model` from a file that must fit it exactly; `what` names the model in messages.

    Reads safetensors, and `.pt` or `.pth` files that are plain state dicts (also under `state_dict` or
    `model`). A prefix that all keys share, left by a wrapper (`module.`, `model.`, `_orig_mod.`), is ignored.

    Raises:
        CheckpointError: the file is missing, cannot be read, or holds weights that are not finite.
        ModelError: it does not fit.
    """
    path = Path(path)
    stored = _without_prefix(_read(path, what))
    own_state = model.state_dict()
    own = _without_prefix(own_state)
    _check_fit(model, own, stored, path, what)
    _check_finite(stored, path, what)
    names = dict(zip(own, own_state, strict=True))
    model.load_state_dict({names[name]: tensor for name, tensor in stored.items()})


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a weights file; `.pt` and `.pth` have none.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    _check_file(Path(path), "weights")
    if Path(path).suffix in _TORCH_SUFFIXES:
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file, or is damaged: {error}") from error
    metadata.pop(CONTENT_HASH, None)
    return metadata


def check_weights(path: Path) -> None:
    """Read a weights file whole.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    _read(path, "weights")


def _check_file(path: Path, what: str) -> None:
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"{what}: the weights file {str(path)!r} {kind} (current directory {Path.cwd()})")


def _read(path: Path, what: str) -> dict[str, Tensor]:
    _check_file(path, what)
    if path.suffix in _TORCH_SUFFIXES:
        return _read_torch(path, what)
    from safetensors import SafetensorError

    try:
        return read_tensors(path)[0]
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{what}: {path} is not a safetensors file, or is damaged: {error}") from error


def _read_torch(path: Path, what: str) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{what}: {path} is damaged, or holds more than tensors, which is never loaded because it could run code. "
            "Store the state dict alone: torch.save(model.state_dict(), path), or better as safetensors"
        ) from error
    except Exception as error:  # fed with garbage, torch's reader raises anything, IndexError included
        raise CheckpointError(f"{what}: {path} is damaged ({type(error).__name__}: {error})") from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{what}: {path} must hold a plain state dict, names to tensors")
    return {str(name): tensor for name, tensor in content.items()}


def _without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _WRAPPER_PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            return _without_prefix({name.removeprefix(prefix): tensor for name, tensor in state.items()})
    return dict(state)


def _check_fit(
    model: nn.Module, own: Mapping[str, Tensor], stored: Mapping[str, Tensor], path: Path, what: str
) -> None:
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
    raise ModelError(listed([*problems, _origin(path)], f"{what}: {path} does not fit {type(model).__name__}:"))


def _origin(path: Path) -> str:
    """What a file says of its network, or seems to be where it says nothing."""
    told = read_metadata(path)
    if "model" not in told:
        return "it looks like another architecture, or like weights of another library"
    options = [f"{key} {told[key]!r}" for key in ("shortcut", "classifier", "in_channels") if key in told]
    return f"the file says that it is {told['model']!r}{' with ' if options else ''}{', '.join(options)}"


def _check_finite(stored: Mapping[str, Tensor], path: Path, what: str) -> None:
    bad = [name for name, tensor in stored.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise CheckpointError(
            f"{what}: {path} holds nan or infinity in {len(bad)} of {len(stored)} tensors: {some_of(bad)}. "
            "The training that wrote it diverged; expected finite weights, such as those of an earlier epoch"
        )


def _other_classes(shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> tuple[int, int] | None:
    """(in the file, here) when the tensors that differ are one layer's and differ in its outputs only."""
    layers = {name.rpartition(".")[0] for name in shapes}
    outputs = {(theirs[0], ours[0]) for theirs, ours in shapes.values() if theirs[1:] == ours[1:] and theirs and ours}
    same_inputs = all(theirs[1:] == ours[1:] for theirs, ours in shapes.values())
    return next(iter(outputs)) if len(layers) == 1 and len(outputs) == 1 and same_inputs else None
