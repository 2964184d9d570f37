"""Runs of a comparison, one after the other: `python -m distail.compare.worker`, told what to do on stdin.

A process that has imported everything runs the next job several seconds sooner than a new one.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TextIO, TypedDict

from distail.compare.status import Status, StatusReporter, write_status
from distail.evaluation.run_files import FAILED, FINISHED, STOPPED

SECONDS_FOR_ANOTHER_TO_LEAVE = 60
SECONDS_BETWEEN_REQUESTS = 0.5


class JobSpec(TypedDict):
    """One job for a process of its own, as JSON: its name, where to work, what to run, and where to write about it."""

    name: str
    directory: str
    experiment: dict[str, object]
    status: str
    log: str


def work(spec: JobSpec) -> None:
    """Call `distail.run` on one experiment; how it ended goes to the status file, what happened to the log."""
    os.chdir(spec["directory"])
    status = Path(spec["status"])
    with Path(spec["log"]).open("a", encoding="utf-8", errors="backslashreplace") as log:
        write_status(status, _ended(spec, status, log))


def _ended(spec: JobSpec, status: Path, log: TextIO) -> Status:
    from distail.config.schema import Experiment
    from distail.errors import DistailError, TrainingError
    from distail.runner.run import run
    from distail.terminal import PrintableConsole
    from distail.training.progress import Lines, Named
    from distail.training.signals import Interrupted

    def failed(error: BaseException, text: str, state: str = FAILED) -> Status:
        print(f"distail: {text}", file=log, flush=True)
        return {"state": state, "kind": type(error).__name__, "problem": text}

    try:
        experiment = Experiment.from_mapping(spec["experiment"])
        _wait_until_free(experiment)
        stages = {"student": experiment.role}  # a teacher's run trains what `run` calls the student
        told = Named(Lines(PrintableConsole(file=log)), spec["name"], stages)
        run(experiment, reporter=StatusReporter(status, told, stages))
    except (Interrupted, KeyboardInterrupt) as error:
        return failed(error, str(error) or "interrupted", STOPPED)
    except (DistailError, TrainingError) as error:
        return failed(error, str(error))
    except Exception as error:
        traceback.print_exc(file=log)
        return failed(error, f"{type(error).__name__}: {error}")
    return {"state": FINISHED}


def _wait_until_free(experiment: Any) -> None:
    """A comparison that was killed leaves runs that are still writing their last checkpoint."""
    from distail.errors import ConfigError
    from distail.runner.run_folder import RunFolder

    folder = RunFolder(experiment.output)
    until = time.monotonic() + SECONDS_FOR_ANOTHER_TO_LEAVE
    while folder.path.is_dir() and time.monotonic() < until:
        try:
            with folder.locked():
                return
        except ConfigError:
            time.sleep(0.2)


def _specs() -> Iterator[JobSpec]:
    """One job after another, from the lines of stdin, until it closes.

    Which is how the comparison's process goes, however it ends: the job under way writes a checkpoint and leaves.
    """
    lines: SimpleQueue[bytes] = SimpleQueue()

    def read() -> None:
        # Without a buffer, whose lock a process that ends could not take from this thread.
        with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stdin:
            for line in stdin:
                lines.put(line)
        lines.put(b"")
        while True:  # also where the main thread is between two jobs, and deaf
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(SECONDS_BETWEEN_REQUESTS)

    threading.Thread(target=read, daemon=True).start()
    while line := lines.get():
        yield json.loads(line)


def _clean_up() -> None:
    """Leave nothing of a job that the next one could meet: memory that is kept, and what was compiled."""
    import torch

    gc.collect()
    if torch.cuda._initialized:
        torch.cuda.empty_cache()
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


def main() -> None:
    """Run one job after the other; what a job prints goes to its log."""
    for spec in _specs():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with Path(spec["log"]).open("a", encoding="utf-8") as log:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
                os.dup2(log.fileno(), stream.fileno())
        work(spec)
        # One that was meant for a job that had just ended must not end the next one.
        signal.signal(signal.SIGTERM, lambda *_: None)
        _clean_up()


if __name__ == "__main__":
    main()
