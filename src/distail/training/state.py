"""What a training stage must remember to go on exactly where it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from distail._version import __version__
from distail.errors import CheckpointError
from distail.evaluation.metrics import MetricValues
from distail.evaluation.run_files import EpochRow
from distail.training.averaging import AveragedWeights
from distail.training.checkpoint import Checkpoint
from distail.training.identity import arithmetic, changed_parts

# Raised when a checkpoint's content changes its meaning.
FORMAT = 2


@dataclass
class Best:
    """The weights of the epoch with the highest headline metric on the validation split."""

    epoch: int
    validation: MetricValues
    weights: dict[str, Tensor]


@dataclass
class TrainingState:
    """Where a stage stands: networks and optimizer live outside and are captured together with it."""

    step: int = 0
    seconds: float = 0.0
    history: list[EpochRow] = field(default_factory=list)
    epoch_seconds: float = 0.0
    sums: dict[str, Tensor] = field(default_factory=dict)
    best: Best | None = None


class RunningSums:
    """Adds what every step reports to sums by name, in one operation: their tensors are views of one vector.

    >>> sums: dict[str, Tensor] = {}
    >>> running = RunningSums()
    >>> for step in range(3):
    ...     running.add(sums, ("loss", "terms/supervised"), torch.tensor([1.0, 0.5]))
    >>> {name: value.item() for name, value in sums.items()}
    {'loss': 3.0, 'terms/supervised': 1.5}
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._sums_K = torch.empty(0)

    def add(self, sums: dict[str, Tensor], names: tuple[str, ...], values_K: Tensor) -> None:
        """Add one step's values to `sums`, which may be those of a checkpoint, or empty for a new epoch."""
        if not sums or names != self._names:
            zero = torch.zeros((), device=values_K.device)
            self._names, self._sums_K = names, torch.stack([sums.get(name, zero) for name in names])
            sums |= dict(zip(names, self._sums_K.unbind(), strict=True))
        self._sums_K.add_(values_K)


def capture(
    state: TrainingState,
    student: nn.Module,
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: Mapping[str, Any] | None = None,
    average: AveragedWeights | None = None,
) -> Checkpoint:
    """One flat set of named tensors and plain values that `restore` understands, and where it came from."""
    tensors = {
        **_prefixed("student.", student.state_dict()),
        **_prefixed("method.", method.state_dict()),
        **_prefixed("optimizer.", _optimizer_tensors(optimizer)),
        **_prefixed("sums.", state.sums),
        **_prefixed("average.", {} if average is None else average.tensors),
    }
    values: dict[str, Any] = {
        "format": FORMAT,
        "written_with": arithmetic(),
        "identity": dict(identity or {}),
        "seconds": state.seconds,
        "epoch_seconds": state.epoch_seconds,
        "history": state.history,
        "best": None,
    }
    if state.best is not None:
        tensors |= _prefixed("best.", state.best.weights)
        values["best"] = {"epoch": state.best.epoch, "validation": state.best.validation}
    return Checkpoint(state.step, tensors, values)


def check_origin(checkpoint: Checkpoint, identity: Mapping[str, Any]) -> list[str]:
    """What a user should know of a checkpoint that is about to be restored.

    Raises:
        CheckpointError: it is of another version's format, was trained on other data, or from another teacher.
    """
    values = checkpoint.values
    written_with: dict[str, str] = values.get("written_with", {})
    if values.get("format", FORMAT) != FORMAT:
        raise CheckpointError(
            f"the checkpoint is in format {values['format']} of distail {written_with.get('distail', '?')}; this is "
            f"{__version__}, which reads format {FORMAT}. Finish the run with that version, or start again with "
            "another output"
        )
    changed = changed_parts(values.get("identity", {}), identity)
    if changed:
        raise CheckpointError(
            f"this run started with {' and '.join(changed)}; restore that, or start again with another output"
        )
    now = arithmetic()
    others = [
        f"{name} {old} (now {now.get(name, 'not set')})" for name, old in written_with.items() if now.get(name) != old
    ]
    return [f"begun with {' and '.join(others)}; from here on the last digits may differ"] if others else []


def restore(
    checkpoint: Checkpoint,
    student: nn.Module,
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    average: AveragedWeights | None = None,
) -> TrainingState:
    """Load networks and optimizer in place and return where the stage stood.

    Raises:
        CheckpointError: the checkpoint belongs to another network or method.
    """
    try:
        student.load_state_dict(_without_prefix("student.", checkpoint.tensors))
        method.load_state_dict(_without_prefix("method.", checkpoint.tensors))
        if average is not None:
            average.load(_without_prefix("average.", checkpoint.tensors))
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(f"the checkpoint does not fit this experiment: {error}") from None
    _load_optimizer_tensors(optimizer, _without_prefix("optimizer.", checkpoint.tensors))
    sums = {name: tensor.to(device) for name, tensor in _without_prefix("sums.", checkpoint.tensors).items()}
    values = checkpoint.values
    best = None
    if values["best"] is not None:
        weights = _without_prefix("best.", checkpoint.tensors)
        best = Best(values["best"]["epoch"], values["best"]["validation"], weights)
    return TrainingState(checkpoint.step, values["seconds"], values["history"], values["epoch_seconds"], sums, best)


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _without_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, values in state.items()
        for name, value in values.items()
        if value is not None
    }


def _load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        # The parameter's own memory layout: element order decides how loops are vectorized, and with it the last bit.
        laid_out = (
            torch.empty_like(parameter, dtype=tensor.dtype)
            if tensor.ndim and tensor.shape == parameter.shape
            else tensor
        )
        state.setdefault(int(index), {})[name] = laid_out.copy_(tensor) if laid_out is not tensor else tensor
    with torch.no_grad():
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
