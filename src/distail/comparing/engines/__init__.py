"""Where the runs of a comparison are carried out: one file each, one entry each in `ENGINES`."""

from __future__ import annotations

from collections.abc import Callable

from distail.comparing.engines.engine import Engine, Wanted
from distail.comparing.engines.local import LocalProcesses
from distail.comparing.engines.ray_cluster import RayCluster

ENGINES: dict[str, Callable[[Wanted], Engine]] = {"local": LocalProcesses, "ray": RayCluster}

__all__ = ["ENGINES", "Engine", "Wanted"]
