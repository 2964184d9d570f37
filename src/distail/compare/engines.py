"""What runs the jobs of a comparison: processes of this machine, or tasks of a Ray cluster."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch

from distail.compare.worker import JobSpec, work
from distail.config.schema import output_problem
from distail.errors import ConfigError, unknown_name
from distail.torch_utils import usable_cores
from distail.training.distributed import runs_on_cpu
from distail.training.signals import STARTED_BY_ANOTHER

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


class Engine(Protocol):
    """Runs up to `parallel` jobs at once, each in a process of its own."""

    parallel: int

    def start(self, spec: JobSpec) -> None:
        """Begin; never called while `parallel` jobs run."""

    def ended(self) -> dict[str, str | None]:
        """Jobs that ended since the last call: name to None, or to what the process itself says it died of."""

    def stop(self, name: str | None = None) -> None:
        """Ask one run, or every one, to write a checkpoint and leave; `ended` tells when each has."""

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

    A run by itself looks for itself which cores are free.

    >>> thread_settings(cores=16, parallel=5), thread_settings(cores=16, parallel=1)
    ({'OMP_NUM_THREADS': '3', 'OMP_WAIT_POLICY': 'PASSIVE'}, {'OMP_WAIT_POLICY': 'PASSIVE'})
    """
    shared = {"OMP_NUM_THREADS": str(max(1, cores // parallel))} if parallel > 1 else {}
    return {**shared, "OMP_WAIT_POLICY": "PASSIVE"}


def set_by_user() -> dict[str, str]:
    """The settings of threads that stand in the environment already, which win over ours."""
    return {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ}


@dataclass(frozen=True)
class _Running:
    process: subprocess.Popen[str]
    place: int


class LocalProcesses:
    """One process a run. GPUs are given out in turn, one to a run; without any, the cores are shared out."""

    def __init__(self, config: EngineConfig) -> None:
        gpus = visible_gpus() if config.device in ON_A_GPU else []
        cores = usable_cores()
        # Anything but a CPU or counted GPUs is one device, which several runs would crowd.
        places = len(gpus) or (cores if runs_on_cpu(config.device) else 1)
        self.parallel = config.parallel or default_parallel(config.runs, places)
        self._gpus = gpus
        self._threads = {**thread_settings(cores, self.parallel), **set_by_user()}
        self._running: dict[str, _Running] = {}

    def start(self, spec: JobSpec) -> None:
        taken = {running.place for running in self._running.values()}
        place = next(place for place in range(self.parallel) if place not in taken)
        environment = {**os.environ, **self._threads, STARTED_BY_ANOTHER: "1"}
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[place % len(self._gpus)]
        with Path(spec["log"]).open("a", encoding="utf-8") as log:
            # A session of its own: Ctrl-C reaches the comparison alone, which then asks each run to stop.
            process = subprocess.Popen(
                [sys.executable, "-m", "distail.compare.worker"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                env=environment,
                start_new_session=True,
            )
        assert process.stdin is not None
        self._running[spec["name"]] = _Running(process, place)
        try:
            process.stdin.write(json.dumps(spec) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            return  # it has died already; `ended` says of what

    def ended(self) -> dict[str, str | None]:
        done = {name: running.process for name, running in self._running.items() if running.process.poll() is not None}
        for name in done:
            del self._running[name]
        return {name: _cause(process.returncode) for name, process in done.items()}

    def stop(self, name: str | None = None) -> None:
        for running in self._running.values() if name is None else [self._running[name]]:
            running.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        for running in self._running.values():
            running.process.kill()
            running.process.wait()
        self._running = {}


def visible_gpus() -> list[str]:
    """What `CUDA_VISIBLE_DEVICES` may name here, one string a GPU."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def _cause(code: int) -> str | None:
    if code == 0:
        return None
    if code > 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"its process was ended by {name}" + (", as systems do where memory runs out" if name == "SIGKILL" else "")


class RayCluster:
    """One task a run: on the cluster that `RAY_ADDRESS` names or that runs here, else on one of this machine alone."""

    def __init__(self, config: EngineConfig) -> None:
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
        on_gpu = bool(gpus) and config.device in ON_A_GPU
        self.parallel = config.parallel or default_parallel(config.runs, gpus if on_gpu else cores)
        largest = int(max(node.get("CPU", 1) for node in nodes))
        share = max(1, min(cores // self.parallel, largest))
        environment = {**thread_settings(share, 1), **set_by_user(), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        options: dict[str, Any] = {
            "num_cpus": min(share, cores / self.parallel),
            "num_gpus": min(1.0, gpus / self.parallel) if on_gpu else 0,
            "max_retries": 0,
            "runtime_env": {"env_vars": environment},
        }
        self._task = ray.remote(**options)(_run_job)
        self._running: dict[str, Any] = {}

    def start(self, spec: JobSpec) -> None:
        self._running[spec["name"]] = self._task.remote(dict(spec))

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

    def stop(self, name: str | None = None) -> None:
        for task in self._running.values() if name is None else [self._running[name]]:
            self._ray.cancel(task)

    def close(self) -> None:
        for task in self._running.values():
            self._ray.cancel(task, force=True)
        self._running = {}
        if self._started_here:
            self._ray.shutdown()


def _run_job(spec: JobSpec) -> None:
    if not os.path.isdir(spec["directory"]):
        raise ConfigError(f"{spec['directory']!r} does not exist on {platform.node()}: a cluster must share it")
    work(spec)


ENGINES: dict[str, Callable[[EngineConfig], Engine]] = {"local": LocalProcesses, "ray": RayCluster}


def option_problems(engine: str, parallel: int | None, output: Path | None) -> list[str]:
    """What is wrong with where a command's runs go and how many go at once."""
    problems = []
    if engine not in ENGINES:
        problems.append(f"--engine: {unknown_name('engine', engine, ENGINES)}")
    if parallel is not None and parallel < 1:
        problems.append(f"--parallel: {parallel} runs at once are too few; 1 is the least")
    if output is not None and (problem := output_problem(output)):
        problems.append(f"--output: {problem}")
    return problems
