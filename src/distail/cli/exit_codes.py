"""What the command line says of an error, and the code that it exits with."""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]
import errno
from typing import Any

import typer

from distail.errors import DistailError, TrainingError

PATIENCE = timedelta(seconds=5)
DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Older releases of typer use click, newer ones a copy of it within typer: this is the base of either's errors.
USAGE_ERROR: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def is_main_process() -> bool:
    """Whether this process speaks for all: the only one there is, or the first of those launched together."""
    return os.environ.get("RANK", "0") == "0"


def print_once(text: str) -> None:
    """Print to standard error; where processes that were launched together say the same, one of them does."""
    store = _launcher_store()
    key = f"distail/{hashlib.sha256(text.encode()).hexdigest()}"
    printed = f"{key}/printed"
    # An error here means that the launcher has gone, or the other process before it could print.
    with suppress(RuntimeError):
        if store is not None and store.add(key, 1) > 1:
            # The launcher ends all processes as soon as one has left: stay until the other has printed.
            store.wait([printed], PATIENCE)
            return
    print(text, file=sys.stderr, flush=True)
    with suppress(RuntimeError):
        if store is not None:
            store.set(printed, "")


def _launcher_store() -> TCPStore | None:
    """The store that the launcher keeps, which outlives each of its processes; None for a process on its own."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or os.environ.get("WORLD_SIZE", "1") == "1":
        return None
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    try:
        return TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), timeout=PATIENCE)
    except RuntimeError:
        return None


def exit_code_of(error: BaseException) -> int:
    """Say what went wrong, in words for a user, and return the exit code; raises what a caller has to see."""
    if isinstance(error, USAGE_ERROR):
        error.show()
        return BAD_INPUT
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return _told("interrupted", INTERRUPTED)
    if isinstance(error, DistailError):
        return _told(str(error), BAD_INPUT)
    if isinstance(error, TrainingError):
        return _told(str(error), FAILED)
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    if isinstance(error, SystemExit):
        if isinstance(error.__context__, BrokenPipeError):  # how rich leaves when nobody reads what it prints
            return DONE
        raise error
    return _unexpected(error)


def _told(message: str, code: int) -> int:
    print_once(f"distail: {message}")
    return code


def _unexpected(error: BaseException) -> int:
    signal_number = getattr(error, "signal_number", None)
    if signal_number is not None:
        where = (
            "the checkpoint just written" if getattr(error, "saved", False) else "the last checkpoint, if there is one"
        )
        return _told(f"{error}; the same command resumes from {where}", 128 + signal_number)
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        room = "; make room, and the same command goes on from its last checkpoint" if error.errno in NO_ROOM else ""
        return _told(f"{error.strerror or error}{where}{room}", FAILED)
    if type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU; by name, since torch takes long to load
        return _told(
            f"the GPU has no memory left ({str(error).splitlines()[0]}). Free the GPU or lower "
            "trainer.cache_limit_mb, and the same command goes on from its last checkpoint; another "
            "training.batch_size needs another output",
            FAILED,
        )
    if os.environ.get("DISTAIL_TRACEBACK"):
        raise error
    return _told(
        f"{type(error).__name__}: {error}\nThis is a bug in distail; please report it. "
        "With DISTAIL_TRACEBACK=1 in the environment the same command prints where it happened.",
        FAILED,
    )
