"""One run of a comparison, in a process of its own: `python -m distail.compare.worker`, told what to do on stdin."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, TextIO, TypedDict

from distail.compare.status import Status, StatusReporter, write_status
from distail.evaluation.run_files import FAILED, FINISHED, STOPPED

SECONDS_FOR_ANOTHER_TO_LEAVE = 60


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


def _leave_with_parent() -> None:
    """When the comparison's process is gone, however it ended, its end of the pipe closes: checkpoint and leave."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Read one job from the first line of stdin and run it."""
    spec = json.loads(sys.stdin.readline())
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    work(spec)


if __name__ == "__main__":
    main()
