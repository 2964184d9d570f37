"""A folder's lock, which the system frees when the process that holds it ends, however it ends."""

from __future__ import annotations

import os
import socket
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import lock_descriptor, unlock_descriptor


class FolderInUseError(BlockingIOError):
    """Another process holds the folder; `holder` says which, such as "process 12 on venus"."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"in use by {holder}")
        self.holder = holder


class FolderLock:
    """A folder's lock while it is held. `missing`: why the file system has no locks, or empty where it has."""

    def __init__(self, path: Path, file: IO[bytes], missing: str = "") -> None:
        self.missing = missing
        self._path, self._file = path, file

    def still_ours(self) -> bool:
        """Whether the lock's file still lies in the folder: not removed, and not another process's after that."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except OSError:
            return False


@contextmanager
def lock_folder(folder: Path) -> Iterator[FolderLock]:
    """Hold the lock of a folder that exists, for this process alone: its forks do not hold it.

    Raises:
        FolderInUseError: another process holds it.
        OSError: its file `.lock` cannot be opened.
    """
    path = folder / ".lock"
    with path.open("ab+", buffering=0) as file:
        missing = ""
        try:
            if not lock_descriptor(file.fileno(), blocking=False):
                raise FolderInUseError(_read_holder(file))
        except FolderInUseError:
            raise
        except OSError as error:
            missing = error.strerror or str(error)
        _close_in_forks(file)
        _write_holder(file)
        try:
            yield FolderLock(path, file, missing)
        finally:
            with suppress(OSError):
                unlock_descriptor(file.fileno())


# The first byte is left out: Windows locks it against reading too.
def _read_holder(file: IO[bytes]) -> str:
    with suppress(OSError):
        file.seek(1)
        return file.read(1000).decode("utf-8", "replace").strip() or "another process"
    return "another process"


def _write_holder(file: IO[bytes]) -> None:
    with suppress(OSError):  # on a full disk the name is missing, the lock holds
        file.truncate(0)
        file.write(f"\nprocess {os.getpid()} on {socket.gethostname()}".encode())


def _close_in_forks(file: IO[bytes]) -> None:
    # A worker that outlives its killed parent would hold the lock. What is registered stays: hold the file weakly.
    if not hasattr(os, "register_at_fork"):
        return
    held = weakref.ref(file)

    def close() -> None:
        opened = held()
        if opened is not None:
            opened.close()

    os.register_at_fork(after_in_child=close)
