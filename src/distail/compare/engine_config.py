"""What an engine of a comparison is built for: how many runs at once, on which devices, with how many threads each."""

from __future__ import annotations

import os
from dataclasses import dataclass

ON_A_GPU = ("auto", "cuda")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")


@dataclass(frozen=True)
class EngineConfig:
    """What an engine is built for.

    Attributes:
        runs: how many runs there are to do.
        parallel: how many at once; None leaves it to the engine.
        device: `trainer.device` of the configuration.
    """

    runs: int
    parallel: int | None
    device: str


def default_parallel(runs: int, places: int) -> int:
    """As many at once as there are runs and places, one at least.

    >>> default_parallel(6, 16), default_parallel(6, 2), default_parallel(0, 4)
    (6, 2, 1)
    """
    return max(1, min(runs, places))


def thread_settings(cores: int, parallel: int) -> dict[str, str]:
    """Cores are shared out evenly: threads of several runs that fight for one core slow all of them down.

    A run by itself looks for itself which cores are free.

    >>> thread_settings(cores=16, parallel=5), thread_settings(cores=16, parallel=1)
    ({'OMP_NUM_THREADS': '3', 'OMP_WAIT_POLICY': 'PASSIVE'}, {'OMP_WAIT_POLICY': 'PASSIVE'})
    """
    shared = {"OMP_NUM_THREADS": str(max(1, cores // parallel))} if parallel > 1 else {}
    return {**shared, "OMP_WAIT_POLICY": "PASSIVE"}


def set_by_user() -> dict[str, str]:
    """The settings of threads that stand in the environment already, which win over ours."""
    return {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ}
