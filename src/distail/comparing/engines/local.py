"""Runs as processes of this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from distail.comparing.engines.engine import Order, Wanted, default_parallel, set_by_user, thread_settings
from distail.training.stopping import STARTED_BY_ANOTHER

ON_A_GPU = ("auto", "cuda")


@dataclass(frozen=True)
class _Running:
    process: subprocess.Popen[str]
    place: int


class LocalProcesses:
    """One process a run. GPUs are given out in turn, one to a run; without any, the cores are shared out."""

    def __init__(self, wanted: Wanted) -> None:
        gpus = visible_gpus() if wanted.device in ON_A_GPU else []
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        # Anything but a CPU or counted GPUs is one device, which several runs would crowd.
        places = len(gpus) or (cores if runs_on_cpu(wanted.device) else 1)
        self.parallel = wanted.parallel or default_parallel(wanted.runs, places)
        self._gpus = gpus
        self._threads = {**thread_settings(cores, self.parallel), **set_by_user()}
        self._running: dict[str, _Running] = {}

    def start(self, order: Order) -> None:
        taken = {running.place for running in self._running.values()}
        place = next(place for place in range(self.parallel) if place not in taken)
        environment = {**os.environ, **self._threads, STARTED_BY_ANOTHER: "1"}
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[place % len(self._gpus)]
        with Path(order["log"]).open("a", encoding="utf-8") as log:
            # A session of its own: Ctrl-C reaches the comparison alone, which then asks each run to stop.
            process = subprocess.Popen(
                [sys.executable, "-m", "distail.comparing.worker"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                env=environment,
                start_new_session=True,
            )
        assert process.stdin is not None
        self._running[order["name"]] = _Running(process, place)
        try:
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            return  # it has died already; `ended` says of what

    def ended(self) -> dict[str, str | None]:
        done = {name: running.process for name, running in self._running.items() if running.process.poll() is not None}
        for name in done:
            del self._running[name]
        return {name: _cause(process.returncode) for name, process in done.items()}

    def stop(self) -> None:
        for running in self._running.values():
            running.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        for running in self._running.values():
            running.process.kill()
            running.process.wait()
        self._running = {}


def runs_on_cpu(device: str) -> bool:
    """Whether `trainer.device` comes down to the CPU, where there is no CUDA device."""
    import torch

    return device == "cpu" or (device == "auto" and not torch.backends.mps.is_available())


def visible_gpus() -> list[str]:
    """What `CUDA_VISIBLE_DEVICES` may name here, one string a GPU."""
    import torch

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
