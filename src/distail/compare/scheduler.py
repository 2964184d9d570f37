"""Runs in the order of their needs: teachers before their students, as many at once as the engine carries."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from distail.compare.engines import Engine
from distail.compare.plan import Job
from distail.compare.progress import ComparisonReporter
from distail.compare.status import read_status
from distail.compare.worker import JobSpec
from distail.errors import DataError
from distail.evaluation.headline import MAP, headline, is_multi_label
from distail.evaluation.run_files import FAILED, FINISHED, MISSING, STOPPED
from distail.training.signals import Interrupted, StopRequest

SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(frozen=True)
class State:
    """How a run stands: `finished`, `failed` or `missing`, and why it is not finished."""

    state: str
    problem: str | None = None


class Feed(Protocol):
    """Brings jobs while others run, and calls off those that are not worth the rest of their time."""

    def more(self, free: int) -> Iterable[Job]:
        """Jobs that there were not before; asked at every look, with how many could begin at once."""

    def called_off(self) -> Iterable[str]:
        """Which of the jobs that it brought should stop where they are; each is named once."""


class Schedule:
    """All jobs of a comparison and how they stand; `run_jobs` moves them on.

    Attributes:
        seconds: what runs took that began and were finished here, by the clock: their training and all around it.
    """

    def __init__(self, jobs: Sequence[Job], folder: Path) -> None:
        self.jobs = {job.name: job for job in jobs}
        self.folder = folder
        self.states = {name: self._before(job) for name, job in self.jobs.items()}
        self._called_off: set[str] = set()
        self.seconds: dict[str, float] = {}
        self._began: dict[str, float] = {}

    @staticmethod
    def _before(job: Job) -> State:
        # With a file lost that its checkpoint can give back, a finished run has something left to do.
        if job.folder.finished(job.experiment, lambda text: None) is not None:
            return State(FINISHED)
        return State(MISSING, "it was not started" if not job.folder.config.is_file() else "it is not finished")

    @property
    def left(self) -> list[str]:
        """The runs that are not finished."""
        return [name for name, state in self.states.items() if state.state != FINISHED]

    def run_jobs(
        self,
        engine: Engine,
        reporter: ComparisonReporter,
        request: StopRequest,
        after_each: Callable[[], object],
        feed: Feed | None = None,
    ) -> None:
        """Start what can start, until nothing is left; a run that fails stops none but its students.

        Args:
            engine, reporter, request: what runs the jobs, who is told of them, and who may stop them.
            after_each: called whenever a run has ended.
            feed: what further jobs come from; None where all are known.

        Raises:
            DataError: the images cannot be used; no other run could use them.
            Interrupted: a signal came; every run was asked to write a checkpoint and to leave.
        """
        waiting = [self.jobs[name] for name in self.left]
        reporter.begin(len(self.jobs), len(self.jobs) - len(waiting), engine.parallel)
        running: set[str] = set()
        stopping: BaseException | None = None
        while True:
            brought: list[Job] = []
            if feed is not None and stopping is None:
                # The first student that waits for a teacher under way will take its teacher's place.
                shared = {job.after for job in waiting} & running
                free = engine.parallel - len(running) - len(waiting) + len(shared)
                brought = [*feed.more(free)]
                waiting += self._added(brought)
                self._call_off(set(feed.called_off()), waiting, running, engine)
            # Jobs that were finished before are brought, too, and others after them.
            if not running and not ((waiting or brought) and stopping is None):
                break
            if stopping is None:
                waiting = self._start(waiting, running, engine, reporter)
            time.sleep(SECONDS_BETWEEN_LOOKS)
            for name in running:
                reporter.progress(name, read_status(self._status(name)))
            for name, cause in engine.ended().items():
                running.discard(name)
                stop_requested = stopping is not None or request.signal_number is not None
                error = self._end(name, cause, stop_requested, reporter)
                after_each()
                if error is not None and stopping is None:
                    stopping = error
                    engine.stop()
            if request.signal_number is not None and stopping is None:
                stopping = Interrupted(request.signal_number)
                engine.stop()
                reporter.message(
                    f"stopping, {len(running)} in progress: each writes a checkpoint; stop again to end immediately"
                )
        if stopping is not None:
            raise stopping

    def _added(self, jobs: Iterable[Job]) -> list[Job]:
        """Take up jobs; returns those that are not finished."""
        new = [job for job in jobs if job.name not in self.jobs]
        self.jobs |= {job.name: job for job in new}
        self.states |= {job.name: self._before(job) for job in new}
        return [job for job in new if self.states[job.name].state != FINISHED]

    def _call_off(self, names: set[str], waiting: list[Job], running: set[str], engine: Engine) -> None:
        self._called_off |= names
        waiting[:] = [job for job in waiting if job.name not in names]
        for name in names & running:
            engine.stop(name)

    def _start(self, waiting: list[Job], running: set[str], engine: Engine, reporter: ComparisonReporter) -> list[Job]:
        still = []
        for job in waiting:
            teacher = State(FINISHED) if job.after is None else self.states[job.after]
            if teacher.state == FAILED:
                self.states[job.name] = State(FAILED, f"its teacher failed: {teacher.problem}")
                reporter.ended(job.name, FAILED, "not started, because its teacher failed")
            elif teacher.state == FINISHED and len(running) < engine.parallel:
                self._status(job.name).unlink(missing_ok=True)
                self._began[job.name] = time.monotonic()
                engine.start(self._spec(job))
                running.add(job.name)
                reporter.started(job.name)
            else:
                still.append(job)
        return still

    def _spec(self, job: Job) -> JobSpec:
        log = self._log(job.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        return {
            "name": job.name,
            "directory": os.getcwd(),
            "experiment": job.experiment.model_dump(mode="json"),
            "status": str(self._status(job.name)),
            "log": str(log),
        }

    def _end(self, name: str, cause: str | None, stopping: bool, reporter: ComparisonReporter) -> BaseException | None:
        """Note how a run ended; returns an error that no other run could escape."""
        status = read_status(self._status(name))
        result = self.jobs[name].folder.stored_result()
        if result is not None:
            self.states[name] = State(FINISHED)
            self.seconds[name] = time.monotonic() - self._began[name]
            test = result["student"]["test"]
            seconds = result["timing"]["student"]["seconds"]
            said = f"{MAP} {headline(test):.1f}"
            if not is_multi_label(test):
                said = f"top-1 {test['top1']:.1f}, balanced {headline(test):.1f}"
            reporter.ended(name, FINISHED, f"{said}, {seconds:,.0f} s of training")
        elif status.get("state") == FAILED:
            self.states[name] = State(FAILED, status["problem"])
            reporter.ended(name, FAILED, f"failed: {status['problem']} ({self._log(name)})")
            if status.get("kind") == DataError.__name__:
                return DataError(status["problem"])
        elif stopping or name in self._called_off:
            self.states[name] = State(MISSING, "it was stopped before it was finished")
            reporter.ended(name, MISSING, "stopped")
        else:
            # Nobody here stopped it, so nobody here starts it again: its students would wait for ever.
            stopped = f"it was {status['problem']} from outside" if status.get("state") == STOPPED else None
            self.states[name] = State(FAILED, stopped or cause or "its process ended without a message")
            reporter.ended(name, FAILED, f"failed: {self.states[name].problem} ({self._log(name)})")
        return None

    def _status(self, name: str) -> Path:
        return self.folder / "status" / f"{name}.json"

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"
