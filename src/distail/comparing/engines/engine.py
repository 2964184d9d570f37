"""What a comparison asks of an engine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Order = Mapping[str, Any]
"""What `distail.comparing.worker.work` takes, and `name`."""


@dataclass(frozen=True)
class Wanted:
    """What an engine is built for.

    Attributes:
        runs: how many runs there are to do.
        parallel: how many at once; None leaves it to the engine.
        device: `trainer.device` of the configuration.
    """

    runs: int
    parallel: int | None
    device: str


class Engine(Protocol):
    """Carries out up to `parallel` orders at once, each in a process of its own."""

    parallel: int

    def start(self, order: Order) -> None:
        """Begin; never called with `parallel` orders under way."""

    def ended(self) -> dict[str, str | None]:
        """Orders that ended since the last call: name to None, or to what the process itself says it died of."""

    def stop(self) -> None:
        """Ask every run to write a checkpoint and leave; `ended` tells when each has."""

    def close(self) -> None:
        """End whatever is left at once."""


def default_parallel(runs: int, places: int) -> int:
    """As many at once as there are runs and places, one at least.

    >>> default_parallel(6, 16), default_parallel(6, 2), default_parallel(0, 4)
    (6, 2, 1)
    """
    return max(1, min(runs, places))


def thread_settings(cores: int, parallel: int) -> dict[str, str]:
    """Cores are shared out evenly: threads of several runs that fight for one core slow all of them down.

    >>> thread_settings(cores=16, parallel=5)
    {'OMP_NUM_THREADS': '3', 'OMP_WAIT_POLICY': 'PASSIVE'}
    """
    return {"OMP_NUM_THREADS": str(max(1, cores // parallel)), "OMP_WAIT_POLICY": "PASSIVE"}


def set_by_user() -> dict[str, str]:
    """The settings of threads that stand in the environment already, which win over ours."""
    return {name: os.environ[name] for name in thread_settings(1, 1) if name in os.environ}
