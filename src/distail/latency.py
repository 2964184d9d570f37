"""How long a call takes, told the same way wherever it was measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import TypedDict

_FINE = 1e-5  # seconds


class Latency(TypedDict):
    """Milliseconds of a call with so many images, on so many threads (0: all)."""

    batch: int
    threads: int
    median_ms: float
    p95_ms: float
    calls: int


def measure_latency(
    call: Callable[[], object],
    *,
    batch: int,
    threads: int,
    seconds: float,
    fewest: int = 5,
    most: int = 1000,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """The median call, and what 95 of 100 calls do not exceed, after a fifth of the time to warm up.

    Args:
        call: with `batch` images, on `threads` threads, which are the caller's matter.
        seconds: after which no other call begins.
        fewest, most: calls, however long they take; to warm up, no more than `fewest` where they are long.
        clock: by which calls are timed; `processor_clock` leaves out what else the machine does meanwhile.

    >>> found = measure_latency(lambda: None, batch=1, threads=1, seconds=0.01, most=10)
    >>> found["calls"], 0 <= found["median_ms"] <= found["p95_ms"]
    (10, True)
    """
    _times(call, seconds / 5, fewest, most, time.perf_counter)
    milliseconds = [1000 * taken for taken in _times(call, seconds, fewest, most, clock)]
    slowest = quantiles(milliseconds, n=20, method="inclusive")[-1] if len(milliseconds) > 1 else milliseconds[0]
    return {
        "batch": batch,
        "threads": threads,
        "median_ms": round(median(milliseconds), 3),
        "p95_ms": round(slowest, 3),
        "calls": len(milliseconds),
    }


def processor_clock() -> Callable[[], float]:
    """The processor time of this thread, where the system tells it finely enough; else the wall clock."""
    return time.thread_time if time.get_clock_info("thread_time").resolution <= _FINE else time.perf_counter


def _times(
    call: Callable[[], object], seconds: float, fewest: int, most: int, clock: Callable[[], float]
) -> list[float]:
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < fewest or (time.perf_counter() < end and len(taken) < most):
        before = clock()
        call()
        taken.append(clock() - before)
    return taken
