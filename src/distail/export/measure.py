"""How long a file takes and how much memory, in a process that does nothing else.

Shapes: B batch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from distail.export.runtimes import RUNTIMES, Run

BATCHES = (1, 32)
_FEWEST, _MOST = 5, 1000  # calls
_PATIENCE = 600


class Latency(TypedDict):
    """Milliseconds of a call with so many images, on so many threads (0: all)."""

    batch: int
    threads: int
    median_ms: float
    p95_ms: float
    calls: int


@dataclass(frozen=True)
class Task:
    """What to measure: a file (or a run), its runtime, and images of this shape without the batch."""

    runtime: str
    path: str
    shape: tuple[int, int, int]
    dtype: str
    batches: tuple[int, ...]
    threads: tuple[int, ...] = (1, 0)
    seconds: float = 1.0


class Measured(TypedDict):
    """Latencies, and the most memory that the process had, in units of 2**20 bytes; None where it cannot be known."""

    latency: list[Latency]
    peak_mb: float | None


def measure(task: Task) -> Measured | str:
    """What a process of its own finds out, or why it could not."""
    command = [sys.executable, "-m", "distail.export.measure", json.dumps(asdict(task))]
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, env=environment)
    except subprocess.TimeoutExpired:
        return f"took longer than {_PATIENCE} seconds"
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]
    found: Measured = json.loads(done.stdout.splitlines()[-1])
    return found


def timed(run: Run, shape: Sequence[int], dtype: str, threads: int, seconds: float) -> Latency:
    """The median call of a batch (B, ...) of random images, and the call that 95 of 100 do not exceed; warmed first."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, tuple(shape), dtype=np.uint8)
    given = images if dtype == "uint8" else (images / 255).astype(np.float32)
    _calls(lambda: run(given), seconds / 5)
    milliseconds = [1000 * taken for taken in _calls(lambda: run(given), seconds)]
    median, p95 = (round(float(np.quantile(milliseconds, share)), 3) for share in (0.5, 0.95))
    return {"batch": shape[0], "threads": threads, "median_ms": median, "p95_ms": p95, "calls": len(milliseconds)}


def _calls(call: Callable[[], object], seconds: float) -> list[float]:
    taken: list[float] = []
    while len(taken) < _FEWEST or (sum(taken) < seconds and len(taken) < _MOST):
        before = time.perf_counter()
        call()
        taken.append(time.perf_counter() - before)
    return taken


def _peak_megabytes() -> float | None:
    status = Path("/proc/self/status")
    if status.is_file():  # `getrusage` would count what the parent had when it made this process
        peak = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None)
        return None if peak is None else round(int(peak.split()[1]) / 1024, 1)
    try:
        import resource
    except ImportError:  # Windows
        return None
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)  # in bytes on macOS


def main(arguments: Sequence[str]) -> None:
    """Measure one task, given as JSON, and print what was found as JSON."""
    task = Task(**json.loads(arguments[0]))
    latency = []
    for threads in task.threads:
        run = RUNTIMES[task.runtime](Path(task.path), threads)
        latency += [timed(run, (batch, *task.shape), task.dtype, threads, task.seconds) for batch in task.batches]
    print(json.dumps({"latency": latency, "peak_mb": _peak_megabytes()}))


if __name__ == "__main__":
    main(sys.argv[1:])
