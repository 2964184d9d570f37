"""Runs as tasks of a Ray cluster; all its machines must see the comparison's folder under the same path."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from distail.comparing.engines.engine import Order, Wanted, default_parallel, set_by_user, thread_settings
from distail.errors import ConfigError

ON_A_GPU = ("auto", "cuda")


class RayCluster:
    """One task a run: on the cluster that `RAY_ADDRESS` names or that runs here, else on one of this machine alone."""

    def __init__(self, wanted: Wanted) -> None:
        try:
            ray: Any = import_module("ray")
        except ImportError:
            raise ConfigError(
                "--engine ray needs Ray, which is not installed: pip install 'distail[ray]'; "
                "--engine local needs nothing further"
            ) from None
        self._ray = ray
        self._started_here = not ray.is_initialized()
        if self._started_here:
            ray.init(logging_level="error", log_to_driver=False, include_dashboard=False, configure_logging=False)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cores, gpus = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("CPU", "GPU"))
        on_gpu = bool(gpus) and wanted.device in ON_A_GPU
        self.parallel = wanted.parallel or default_parallel(wanted.runs, gpus if on_gpu else cores)
        largest = int(max(node.get("CPU", 1) for node in nodes))
        share = max(1, min(cores // self.parallel, largest))
        environment = {**thread_settings(share, 1), **set_by_user(), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        options: dict[str, Any] = {
            "num_cpus": min(share, cores / self.parallel),
            "num_gpus": min(1.0, gpus / self.parallel) if on_gpu else 0,
            "max_retries": 0,
            "runtime_env": {"env_vars": environment},
        }
        self._task = ray.remote(**options)(_carry_out)
        self._running: dict[str, Any] = {}

    def start(self, order: Order) -> None:
        self._running[order["name"]] = self._task.remote(dict(order))

    def ended(self) -> dict[str, str | None]:
        if not self._running:
            return {}
        names = {task: name for name, task in self._running.items()}
        done, _ = self._ray.wait(list(names), num_returns=len(names), timeout=0)
        return {names[task]: self._cause(names[task]) for task in done}

    def _cause(self, name: str) -> str | None:
        try:
            self._ray.get(self._running.pop(name))
        except self._ray.exceptions.RayError as error:
            return f"its Ray task ended with {type(error).__name__}: {str(error).strip().splitlines()[-1]}"
        return None

    def stop(self) -> None:
        for task in self._running.values():
            self._ray.cancel(task)

    def close(self) -> None:
        for task in self._running.values():
            self._ray.cancel(task, force=True)
        self._running = {}
        if self._started_here:
            self._ray.shutdown()


def _carry_out(order: Order) -> None:
    from distail.comparing.worker import work

    if not os.path.isdir(order["directory"]):
        raise ConfigError(f"{order['directory']!r} does not exist on {os.uname().nodename}: a cluster must share it")
    work(order)
