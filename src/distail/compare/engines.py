"""What runs the jobs of a comparison: processes of this machine, or tasks of a Ray cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from distail.compare.engine_config import ON_A_GPU, EngineConfig, default_parallel, set_by_user, thread_settings
from distail.compare.ray_cluster import RayCluster
from distail.compare.status import read_status
from distail.compare.worker import JobSpec
from distail.config.schema import output_problem
from distail.errors import unknown_name
from distail.evaluation.run_files import FAILED, FINISHED, STOPPED
from distail.torch_utils import usable_cores
from distail.training.distributed import runs_on_cpu
from distail.training.signals import STARTED_BY_ANOTHER

_ENDED = (FINISHED, FAILED, STOPPED)


class Engine(Protocol):
    """Runs up to `parallel` jobs at once, no two in one process at a time."""

    parallel: int

    def start(self, spec: JobSpec) -> None:
        """Begin; never called while `parallel` jobs run."""

    def ended(self) -> dict[str, str | None]:
        """Jobs that ended since the last call: name to None, or to what the process itself says it died of."""

    def stop(self, name: str | None = None) -> None:
        """Ask one run, or every one, to write a checkpoint and leave; `ended` tells when each has."""

    def close(self) -> None:
        """End whatever is left at once."""


@dataclass(frozen=True)
class _Running:
    process: subprocess.Popen[str]
    place: int
    status: Path


class LocalProcesses:
    """As many processes as runs at once, each for one run after the other, since to import torch takes seconds.

    GPUs are given out in turn, one to a process; without any, the cores are shared out.
    """

    def __init__(self, config: EngineConfig) -> None:
        gpus = visible_gpus() if config.device in ON_A_GPU else []
        cores = usable_cores()
        # Anything but a CPU or counted GPUs is one device, which several runs would crowd.
        places = len(gpus) or (cores if runs_on_cpu(config.device) else 1)
        self.parallel = config.parallel or default_parallel(config.runs, places)
        self._gpus = gpus
        self._threads = {**thread_settings(cores, self.parallel), **set_by_user()}
        self._running: dict[str, _Running] = {}
        self._idle: dict[int, subprocess.Popen[str]] = {}
        self._stopping: set[str] = set()

    def start(self, spec: JobSpec) -> None:
        taken = {running.place for running in self._running.values()}
        place = next(place for place in range(self.parallel) if place not in taken)
        process = self._idle.pop(place, None)
        if process is None or not _sent(spec, process):
            process = self._begin(place, Path(spec["log"]))
            _sent(spec, process)  # where it has died already, `ended` says of what
        self._running[spec["name"]] = _Running(process, place, Path(spec["status"]))

    def _begin(self, place: int, log_file: Path) -> subprocess.Popen[str]:
        environment = {**os.environ, **self._threads, STARTED_BY_ANOTHER: "1"}
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[place % len(self._gpus)]
        with log_file.open("a", encoding="utf-8") as log:
            # A session of its own: Ctrl-C reaches the comparison alone, which then asks each run to stop.
            return subprocess.Popen(
                [sys.executable, "-m", "distail.compare.worker"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                env=environment,
                start_new_session=True,
            )

    def ended(self) -> dict[str, str | None]:
        causes: dict[str, str | None] = {}
        for name, running in list(self._running.items()):
            code = running.process.poll()
            if code is None and read_status(running.status).get("state") not in _ENDED:
                if name in self._stopping:  # a process that was still between two runs has not heard of it
                    running.process.send_signal(signal.SIGTERM)
                continue
            if code is None:
                self._idle[running.place] = running.process
            causes[name] = _cause(code or 0)
            self._stopping.discard(name)
            del self._running[name]
        return causes

    def stop(self, name: str | None = None) -> None:
        for each in list(self._running) if name is None else [name]:
            self._stopping.add(each)
            self._running[each].process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        for process in [*(running.process for running in self._running.values()), *self._idle.values()]:
            process.kill()
            process.wait()
        self._running, self._idle = {}, {}


def _sent(spec: JobSpec, process: subprocess.Popen[str]) -> bool:
    """Tell a process what to run; returns whether it is there to hear it."""
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(spec) + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return False
    return True


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
    return f"its process was ended by {name}" + (", as systems do when memory runs out" if name == "SIGKILL" else "")


ENGINES: dict[str, Callable[[EngineConfig], Engine]] = {"local": LocalProcesses, "ray": RayCluster}


def option_problems(engine: str, parallel: int | None, output: Path | None) -> list[str]:
    """What is wrong with where a command's runs go and how many go at once."""
    problems = []
    if engine not in ENGINES:
        problems.append(f"--engine: {unknown_name('engine', engine, ENGINES)}")
    if parallel is not None and parallel < 1:
        problems.append(f"--parallel: {parallel} concurrent runs; expected at least 1")
    if output is not None and (problem := output_problem(output)):
        problems.append(f"--output: {problem}")
    return problems
