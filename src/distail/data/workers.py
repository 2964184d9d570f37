"""Worker processes: work done before it is asked for, in order, within bounds."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar, cast

import torch
from torch.utils.data import DataLoader, Dataset

from distail.errors import TrainingError

Task = TypeVar("Task")
Done = TypeVar("Done")

_PR_SET_PDEATHSIG = 1


class Workers(Generic[Task, Done]):
    """``work`` done by ``count`` processes (0: by this one), at most ``ahead`` tasks of each before they are asked for.

    Processes start with the first task and stay until ``close``. ``pinned``: tensors come in pinned memory, for a GPU.

    >>> workers = Workers(str.upper, count=0)
    >>> list(workers.results(["a", "b"]))
    ['A', 'B']
    """

    def __init__(self, work: Callable[[Task], Done], count: int, *, ahead: int = 2, pinned: bool = False) -> None:
        self._count = count
        self._plan: _Plan[Task] = _Plan()
        self._passes = 0
        self._loader: DataLoader[Done] | None = DataLoader(
            _Work(work),
            batch_size=None,
            sampler=self._plan,
            collate_fn=_as_it_is,
            num_workers=count,
            prefetch_factor=ahead if count else None,
            persistent_workers=count > 0,
            pin_memory=pinned,
            worker_init_fn=_begin,
            # Not spawned where it can be helped: that would run the caller's script again in every process.
            multiprocessing_context="fork" if count and sys.platform == "linux" else None,
            # Its own, so that the caller's random numbers stay as they were.
            generator=torch.Generator(),
        )

    def results(self, tasks: Iterable[Task]) -> Iterator[Done]:
        """What becomes of each task, in order; a new call ends the one before.

        Raises:
            TrainingError: a process was ended from outside.
        """
        assert self._loader is not None, "closed"
        self._plan.tasks = tasks
        self._passes = own = self._passes + 1
        found: Iterator[Done] | None = None
        while True:
            assert own == self._passes, "another pass has begun"
            try:
                if found is None:
                    found = _without_signal_handler(lambda: iter(cast(Iterable[Done], self._loader)))
                done = next(found)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                if "CUDA" in str(error):  # of an earlier step: it surfaces where memory is pinned
                    raise
                raise self._ended(error) from None
            yield done

    def close(self) -> None:
        """End the processes."""
        self._loader = None

    def _ended(self, error: Exception) -> TrainingError:
        # The last line: those before it are the process's own traceback, if it has one.
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        return TrainingError(
            f"a process that decodes images has ended ({reason}). Most often the machine, or the container, had no "
            f"memory left, or too little of it at /dev/shm. Lower data.workers (now {self._count}) and give the same "
            "command again: it goes on from the last checkpoint, if there is one."
        )


class _Work(Dataset[Done], Generic[Task, Done]):
    """A data set whose items are what becomes of tasks: the loader sends tasks where others send row numbers."""

    def __init__(self, work: Callable[[Task], Done]) -> None:
        self._work = work

    def __getitem__(self, task: Task) -> Done:
        return self._work(task)


class _Plan(Generic[Task]):
    """The tasks of the pass under way: the loader reads them anew for each pass."""

    tasks: Iterable[Task] = ()

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)


def _as_it_is(done: Done) -> Done:
    return done


def _begin(worker: int) -> None:
    """In a new process: leave signals from the terminal to the parent, and end with it however it ends."""
    os.setpgid(0, 0)
    if sys.platform == "linux":
        # A process that outlives its parent holds its memory, its open connections and the lock of the run's folder.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _without_signal_handler(start: Callable[[], Iterator[Done]]) -> Iterator[Done]:
    """Torch's handler of SIGCHLD would raise in the middle of whatever is computed or written when a process ends.

    Without it the end of a process is noticed, within seconds, where its work is waited for.
    """
    if threading.current_thread() is not threading.main_thread():
        return start()
    before = signal.getsignal(signal.SIGCHLD)
    try:
        return start()
    finally:
        signal.signal(signal.SIGCHLD, before)
