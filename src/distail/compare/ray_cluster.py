"""Runs as tasks of a Ray cluster, whose nodes may differ and may be lost on the way."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from distail.compare.engine_config import ON_A_GPU, EngineConfig, default_parallel, set_by_user, thread_settings
from distail.compare.worker import JobSpec, work
from distail.errors import ConfigError

MOST_LOSSES = 3
"""How often one run may lose its process before it counts as failed: what it does may be what ends the process."""
_PROCESS_LOST = ("NodeDiedError", "WorkerCrashedError")


@dataclass(frozen=True)
class _Running:
    spec: JobSpec
    task: Any
    asks: Mapping[str, float]
    losses: int


class RayCluster:
    """One task per run: on the cluster that `RAY_ADDRESS` names or that runs here, else on one of this machine alone.

    A run whose node is lost begins again on another, from its newest checkpoint; one that waits for more cores than any
    node has left is given what there is.
    """

    def __init__(self, config: EngineConfig) -> None:
        try:
            ray: Any = import_module("ray")
        except ImportError:
            raise ConfigError(
                "--engine ray needs Ray, which is not installed: pip install 'distail[ray]'; "
                "--engine local needs no extra package"
            ) from None
        self._ray = ray
        self._started_here = not ray.is_initialized()
        if self._started_here:
            ray.init(logging_level="error", log_to_driver=False, include_dashboard=False, configure_logging=False)
        cores, gpus = (int(sum(node.get(kind, 0) for node in self._nodes())) for kind in ("CPU", "GPU"))
        self._on_gpu = bool(gpus) and config.device in ON_A_GPU
        self.parallel = config.parallel or default_parallel(config.runs, gpus if self._on_gpu else cores)
        # Ray's own retries would have no end where memory runs out.
        self._task = ray.remote(max_retries=0)(_run_job)
        self._running: dict[str, _Running] = {}
        self._stopped: set[str] = set()
        self._nowhere: dict[str, str] = {}

    def start(self, spec: JobSpec) -> None:
        self._submit(spec, losses=0)

    def ended(self) -> dict[str, str | None]:
        tasks = [running.task for running in self._running.values()]
        done = set(self._ray.wait(tasks, num_returns=len(tasks), timeout=0)[0]) if tasks else set()
        causes: dict[str, str | None] = {}
        for name in [name for name, running in self._running.items() if running.task in done]:
            running = self._running.pop(name)
            cause, is_lost = self._outcome(running)
            if is_lost and name not in self._stopped and running.losses < MOST_LOSSES:
                _note(running.spec, "its process or its node was lost: it restarts from its newest checkpoint")
                self._submit(running.spec, running.losses + 1)
            else:
                causes[name] = cause
        self._let_none_wait_for_ever()
        nowhere, self._nowhere = self._nowhere, {}
        return causes | nowhere

    def stop(self, name: str | None = None) -> None:
        for each in list(self._running) if name is None else [name]:
            self._stopped.add(each)
            self._ray.cancel(self._running[each].task)

    def close(self) -> None:
        for running in self._running.values():
            self._ray.cancel(running.task, force=True)
        self._running = {}
        if self._started_here:
            self._ray.shutdown()

    def _nodes(self) -> list[Mapping[str, float]]:
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _submit(self, spec: JobSpec, losses: int) -> None:
        asks = share_of_nodes(self._nodes(), self.parallel, on_gpu=self._on_gpu)
        if asks is None:
            kind = "a GPU and a core" if self._on_gpu else "a core"
            self._nowhere[spec["name"]] = f"no node with {kind} is left in the Ray cluster"
            return
        python_path = os.environ.get("PYTHONPATH", "")
        environment = {**thread_settings(int(asks["CPU"]), 1), **set_by_user(), "PYTHONPATH": python_path}
        task = self._task.options(
            num_cpus=asks["CPU"], num_gpus=asks["GPU"], runtime_env={"env_vars": environment}
        ).remote(dict(spec))
        self._running[spec["name"]] = _Running(spec, task, asks, losses)

    def _outcome(self, running: _Running) -> tuple[str | None, bool]:
        """What a task died of, None for one that did not, and whether its process was lost, and not its own doing."""
        try:
            self._ray.get(running.task)
        except self._ray.exceptions.RayError as error:
            kind = type(error).__name__
            last = str(error).strip().splitlines()[-1]
            return f"its Ray task ended with {kind}: {last}", kind in _PROCESS_LOST
        return None, False

    def _let_none_wait_for_ever(self) -> None:
        """Ask anew for what no node has any more; a task that runs is on a node that has it."""
        if not self._running:
            return
        nodes = self._nodes()
        for name, running in list(self._running.items()):
            has_room = any(all(node.get(kind, 0) >= asked for kind, asked in running.asks.items()) for node in nodes)
            if not has_room and name not in self._stopped:
                _note(
                    running.spec,
                    f"no node with {running.asks['CPU']:g} cores is left: it gets the cores that are available",
                )
                self._ray.cancel(running.task)
                del self._running[name]
                self._submit(running.spec, running.losses)


def share_of_nodes(nodes: Sequence[Mapping[str, float]], parallel: int, *, on_gpu: bool) -> dict[str, float] | None:
    """What one of `parallel` runs asks for, which at least one node has; None where no node could carry any.

    >>> share_of_nodes([{"CPU": 1}, {"CPU": 6}], 2, on_gpu=False)
    {'CPU': 3, 'GPU': 0}
    >>> share_of_nodes([{"CPU": 1, "GPU": 1}, {"CPU": 6}], 1, on_gpu=True)  # six cores and a GPU are on no node
    {'CPU': 1, 'GPU': 1.0}
    >>> share_of_nodes([{"CPU": 1}], 2, on_gpu=False), share_of_nodes([{"CPU": 1}], 2, on_gpu=True)
    ({'CPU': 0.5, 'GPU': 0}, None)
    """
    able = [node for node in nodes if node.get("CPU", 0) >= 1 and (node.get("GPU", 0) >= 1 or not on_gpu)]
    if not able:
        return None
    cores, gpus = (int(sum(node.get(kind, 0) for node in able)) for kind in ("CPU", "GPU"))
    largest = int(max(node["CPU"] for node in able))
    share = max(1, min(cores // parallel, largest))
    return {"CPU": min(share, cores / parallel), "GPU": min(1.0, gpus / parallel) if on_gpu else 0}


def _note(spec: JobSpec, text: str) -> None:
    with Path(spec["log"]).open("a", encoding="utf-8") as log:
        print(f"distail: {text}", file=log)


def _run_job(spec: JobSpec) -> None:
    if not os.path.isdir(spec["directory"]):
        raise ConfigError(
            f"{spec['directory']!r} does not exist on {platform.node()}: all nodes of the cluster must share it"
        )
    work(spec)
