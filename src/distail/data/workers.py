"""Worker processes: work done before it is asked for, in order, within bounds; and what they do with image files.

Shapes: B batch, H height, W width, n files of one task.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from distail.data.decode import DecodedImage, EncodedImage, decode_one, read_image_file
from distail.data.image_file import Pixels
from distail.errors import TrainingError

Task = TypeVar("Task")
Done = TypeVar("Done")

Names = NDArray[np.bytes_]


class Workers(Generic[Task, Done]):
    """`work` done by `count` processes (0: by this one), at most `ahead` tasks of each before they are asked for.

    Processes start with the first task and stay until `close`. `pinned`: tensors come in pinned memory, for a GPU.

    >>> workers = Workers(str.upper, count=0)
    >>> list(workers.results(["a", "b"]))
    ['A', 'B']
    """

    def __init__(self, work: Callable[[Task], Done], count: int, *, ahead: int = 2, pinned: bool = False) -> None:
        self._count = count
        self._tasks: _Tasks[Task] = _Tasks()
        self._passes = 0
        self._found: Iterator[Done] | None = None
        self._loader: DataLoader[Done] | None = DataLoader(
            _Work(work),
            batch_size=None,
            sampler=self._tasks,
            collate_fn=_as_it_is,
            num_workers=count,
            prefetch_factor=ahead if count else None,
            persistent_workers=count > 0,
            pin_memory=pinned,
            worker_init_fn=_leave_signals_to_parent,
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
        self._tasks.of_pass = tasks
        self._passes = own = self._passes + 1
        self._found = None
        while True:
            assert own == self._passes, "another pass has started"
            try:
                if self._found is None:
                    self._found = _without_signal_handler(lambda: iter(cast(Iterable[Done], self._loader)))
                done = next(self._found)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                if "CUDA" in str(error):  # of an earlier step: it surfaces where memory is pinned
                    raise
                raise self._ended(error) from None
            yield done

    def close(self) -> None:
        """End the processes, whoever still holds the results, such as the traceback of an error."""
        self._loader = self._found = None

    def _ended(self, error: Exception) -> TrainingError:
        # The last line: those before it are the process's own traceback, if it has one.
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        # The second is what becomes of the first where tensors are handed from one process to another.
        if os.strerror(errno.EMFILE) in reason or "ancdata" in reason:
            return TrainingError(
                f"too many open files ({reason}): raise the limit (ulimit -n 65536), or lower data.workers (now "
                f"{self._count}), and run the same command again: it resumes from its last checkpoint."
            )
        return TrainingError(
            f"a process that decodes images has ended ({reason}). The most common cause is that the machine or the "
            f"container was out of memory, or out of /dev/shm. Lower data.workers (now {self._count}) and run the same "
            "command again: it resumes from the last checkpoint, if there is one."
        )


class _Work(Dataset[Done], Generic[Task, Done]):
    """A data set whose items are what becomes of tasks: the loader sends tasks where others send row numbers."""

    def __init__(self, work: Callable[[Task], Done]) -> None:
        self._work = work

    def __getitem__(self, task: Task) -> Done:
        return self._work(task)


class _Tasks(Generic[Task]):
    """The tasks of the pass under way: the loader reads them anew for each pass."""

    of_pass: Iterable[Task] = ()

    def __iter__(self) -> Iterator[Task]:
        return iter(self.of_pass)


def _as_it_is(done: Done) -> Done:
    return done


def _leave_signals_to_parent(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)


def _without_signal_handler(start: Callable[[], Iterator[Done]]) -> Iterator[Done]:
    """Torch's handler of SIGCHLD would raise in the middle of whatever is computed or written when a process ends.

    Without it the end of a process is noticed, within seconds, where its work is waited for.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return start()
    before = signal.getsignal(signal.SIGCHLD)
    try:
        return start()
    finally:
        signal.signal(signal.SIGCHLD, before)


class ImageFacts(NamedTuple):
    """What is known of n images once they have been decoded; what is said of an unreadable one means nothing.

    `problems`: why each cannot be read, or None; `digests` (n, 32) uint8: the SHA-256 of each file; `shapes`
    (n, 3) int64: height, width, channels; `sums` and `squares` (n, 3) int64: of the gray levels, and of their
    squares, by channel, of a gray image three times the same; `findings` (n, 4) int64: `Findings` of each.
    """

    problems: list[str | None]
    digests: NDArray[np.uint8]
    shapes: NDArray[np.int64]
    sums: NDArray[np.int64]
    squares: NDArray[np.int64]
    findings: NDArray[np.int64]


@dataclass(frozen=True)
class ScanFiles:
    """Facts of the files named."""

    folder: str
    image_size: int | None
    bit_depth: int | None = None

    def __call__(self, names: Names) -> ImageFacts:
        count = len(names)
        digests = np.zeros((count, 32), dtype=np.uint8)
        shapes, sums, squares = (np.zeros((count, 3), dtype=np.int64) for _ in range(3))
        findings = np.zeros((count, 4), dtype=np.int64)
        problems: list[str | None] = []
        for row, (_, decoded) in enumerate(_decoded(self.folder, names, self.image_size, self.bit_depth)):
            if isinstance(decoded, str):
                problems.append(decoded)
                continue
            problems.append(None)
            digests[row] = np.frombuffer(decoded.digest, dtype=np.uint8)
            shapes[row] = _shape(decoded.pixels)
            sums[row], squares[row] = _level_sums(decoded.pixels)
            findings[row] = decoded.findings
        return ImageFacts(problems, digests, shapes, sums, squares, findings)


@dataclass(frozen=True)
class DecodeFiles:
    """The files named as one uint8 tensor (B, H, W, channels), or the problems of those that fail.

    `image_shape` (channels, H, W) is what every file was found to be when it was scanned.
    """

    folder: str
    image_size: int | None
    image_shape: tuple[int, int, int]
    bit_depth: int | None = None

    def __call__(self, names: Names) -> Tensor | list[str]:
        channels, height, width = self.image_shape
        images = np.empty((len(names), height, width, channels), dtype=np.uint8)
        problems = []
        for row, (name, decoded) in enumerate(_decoded(self.folder, names, self.image_size, self.bit_depth)):
            problem = decoded if isinstance(decoded, str) else self._placed(decoded.pixels, images[row])
            if problem is not None:
                problems.append(f"{name}: {problem}")
        if problems:
            return problems
        # A worker shares it here, where too little shared memory can be told of: it would be silent while it sends.
        images_BHWC = torch.from_numpy(images)
        if get_worker_info() is not None:
            images_BHWC.share_memory_()  # type: ignore[no-untyped-call]
        return images_BHWC

    def _placed(self, pixels: Pixels, image_HWC: Pixels) -> str | None:
        """Write the pixels in their place; or say why they do not fit."""
        height, width, channels = _shape(pixels)
        if (height, width) != image_HWC.shape[:2] or channels > image_HWC.shape[2]:
            return f"now {_described(_shape(pixels))}, where all are {_described(image_HWC.shape)}"
        image_HWC[...] = pixels if pixels.ndim == 3 else pixels[..., None]
        return None


def _decoded(
    folder: str, names: Names, image_size: int | None, bit_depth: int | None
) -> Iterator[tuple[str, DecodedImage | str]]:
    for encoded_name in names.tolist():
        name = os.fsdecode(encoded_name)
        item = EncodedImage(name, partial(read_image_file, Path(folder, name)))
        yield name, decode_one(item, image_size, bit_depth)


def _shape(pixels: Pixels) -> tuple[int, int, int]:
    return pixels.shape[0], pixels.shape[1], pixels.shape[2] if pixels.ndim == 3 else 1


def _level_sums(pixels: Pixels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    channels = _shape(pixels)[2]
    lines = pixels.reshape(len(pixels), -1)
    # Squares of bytes fit 16 bits; adding whole lines first is many times faster than adding up single channels.
    sums = lines.sum(axis=0, dtype=np.int64).reshape(-1, channels).sum(axis=0)
    squares = np.square(lines, dtype=np.uint16).sum(axis=0, dtype=np.int64).reshape(-1, channels).sum(axis=0)
    return sums, squares


def _described(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{width}x{height} {'gray' if channels == 1 else 'in color'}"
