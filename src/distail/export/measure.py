"""How long a file takes and how much memory, in a process that does nothing else.

Shapes: B batch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from distail.export.runtimes import RUNTIMES, Run
from distail.latency import Latency, measure_latency

BATCHES = (1, 32)
_PATIENCE = 600


@dataclass(frozen=True)
class Task:
    """What to measure: a file (or a run), its runtime, and inputs of this shape without the batch."""

    runtime: str
    path: str
    shape: tuple[int, ...]
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
    """How long a batch (B, ...) takes: of random levels, or floats of 0 to 1, or zeros of another type."""
    random = np.random.default_rng(0)
    given: NDArray[Any] = random.integers(0, 256, tuple(shape), dtype=np.uint8)
    if dtype != "uint8":
        floats = dtype.startswith("float")
        given = (given / 255).astype(np.float32) if floats else np.zeros(tuple(shape), dtype=dtype)
    return measure_latency(lambda: run(given), batch=shape[0], threads=threads, seconds=seconds)


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
        del run  # else the next one's weights would be counted beside its own
    print(json.dumps({"latency": latency, "peak_mb": _peak_megabytes()}))


if __name__ == "__main__":
    main(sys.argv[1:])
