"""Small helpers around torch: random state kept, tensors sent to a device, a network in eval mode, cores to use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor, nn


def kept_random_state() -> AbstractContextManager[None]:
    """Within the block torch may draw and be seeded; afterwards the caller's generators stand where they stood.

    >>> torch.manual_seed(0).initial_seed()
    0
    >>> with kept_random_state():
    ...     _ = torch.manual_seed(1)
    >>> torch.initial_seed()
    0
    """
    # Named one by one: torch warns of many GPUs where none are named.
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()))


def to_device(value: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on a device: from the CPU to a GPU through pinned memory, so that the host does not wait.

    >>> to_device(torch.ones(2), "cpu")
    tensor([1., 1.])
    """
    if torch.device(device).type == "cuda" and value.device.type == "cpu":
        return value.pin_memory().to(device, non_blocking=True)
    return value.to(device)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Everything in eval mode for a while; afterwards each module is in its own mode again, frozen parts included.

    >>> model = nn.Sequential(nn.Dropout().eval(), nn.Dropout())
    >>> with eval_mode(model):
    ...     print([part.training for part in model])
    [False, False]
    >>> [part.training for part in model]
    [False, True]
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Afterwards modes, buffers and random state are as before, whatever forward and backward passes there were.

    >>> model = nn.BatchNorm1d(2)
    >>> with undisturbed(model):
    ...     _ = model(torch.ones(3, 2))
    >>> model.running_mean.tolist()
    [0.0, 0.0]
    """
    kept = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    modes = {module: module.training for module in model.modules()}
    try:
        with kept_random_state():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        with torch.no_grad():
            for module, name, buffer, value in kept:
                module._buffers[name] = buffer.copy_(value)


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may run on: those it is bound to, and no more than its container's quota has time for."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(cgroup)
    return bound if quota is None else max(1, min(bound, int(quota)))


def _cpu_quota(cgroup: Path) -> float | None:
    """Of how many cores a container may use the time (`docker run --cpus`), by version 2 or 1 of Linux's cgroups."""
    with suppress(OSError, ValueError):
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        files = (cgroup / "cpu" / f"cpu.cfs_{each}_us" for each in ("quota", "period"))
        microseconds, each = (int(file.read_text(encoding="ascii")) for file in files)
        return microseconds / each if microseconds > 0 else None
    return None
