"""How many threads a run computes with: as many as it has cores that no other program keeps busy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from distail.torch_utils import usable_cores

# Seconds in which is seen what other programs do, while this one sleeps.
_LOOK = 0.5
CHOSEN_BY_USER = "OMP_NUM_THREADS"


def thread_count(asked: int | Literal["auto"]) -> tuple[int, str | None]:
    """The number of threads, and what is to be said of it: where other programs leave fewer cores than there are.

    Two threads of which one waits for a core that another program has are slower than one. Whoever sets
    OMP_NUM_THREADS has chosen already.

    >>> thread_count(3)
    (3, None)
    """
    if asked != "auto":
        return asked, None
    if os.environ.get(CHOSEN_BY_USER):
        return torch.get_num_threads(), None
    usable, most = usable_cores(), torch.get_num_threads()
    most = min(usable, most)
    if most == 1:
        return most, None
    busy, cores = _busy_cores()
    # Of a container with a quota others may use the cores that are beyond it.
    count = free_threads(most, max(0.0, busy - max(0, cores - usable)))
    if count == most:
        return most, None
    return count, (
        f"other programs keep {busy:.1f} of {cores} cores busy: computing with {count} of {most} threads, which is "
        f"faster than to wait for them (trainer.threads={most} forces it; a resumed run keeps its number)"
    )


def free_threads(cores: int, busy: float) -> int:
    """As many threads as cores are free, to the nearest, one at least.

    >>> [free_threads(2, busy) for busy in (0.0, 0.4, 0.6, 1.9)], free_threads(16, 7.8)
    ([2, 2, 1, 1], 8)
    """
    return max(1, round(cores - busy))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Within the block torch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _busy_cores() -> tuple[float, int]:
    """How many of the cores that this process is bound to are busy, and how many these are."""
    import psutil

    percent = psutil.cpu_percent(interval=_LOOK, percpu=True)
    if hasattr(os, "sched_getaffinity"):
        percent = [percent[core] for core in os.sched_getaffinity(0) if core < len(percent)]
    return float(sum(percent)) / 100, len(percent)
