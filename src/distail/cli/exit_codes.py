"""What the command line says of an error, and the code that it exits with."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import typer

from distail.errors import DistailError, TrainingError

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# How long a process waits for another of the same launch to print.
PATIENCE = timedelta(seconds=5)
# Click's UsageError: some releases of typer use click, others a copy of it within typer.
USAGE_ERROR: Any = typer.BadParameter.__base__


def exit_code_of(error: BaseException) -> int:
    """Say what went wrong, in words for a user, and return the exit code; raises what a caller has to see."""
    if isinstance(error, USAGE_ERROR):
        error.show()
        return BAD_INPUT
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    if isinstance(error, SystemExit):
        if isinstance(error.__context__, BrokenPipeError):  # how rich leaves when nobody reads what it prints
            return DONE
        raise error
    message, code = _explain(error)
    print_once(f"distail: {message}")
    return code


def _explain(error: BaseException) -> tuple[str, int]:
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "interrupted", INTERRUPTED
    if isinstance(error, DistailError):
        return str(error), BAD_INPUT
    if isinstance(error, TrainingError):
        return str(error), FAILED
    # The next two by what they have, since torch, which their modules import, takes long to load.
    signal_number = getattr(error, "signal_number", None)
    if signal_number is not None:
        saved = getattr(error, "saved", False)
        where = "the checkpoint just written" if saved else "the last checkpoint, if there is one"
        return f"{error}; the same command resumes from {where}", 128 + signal_number
    if type(error).__name__ == "OutOfMemoryError":
        return (
            f"the GPU has no memory left ({str(error).splitlines()[0]}). Free the GPU or lower "
            "trainer.cache_limit_mb, and the same command goes on from its last checkpoint; another "
            "training.batch_size needs another output",
            FAILED,
        )
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        room = "; make room, and the same command goes on from its last checkpoint" if error.errno in NO_ROOM else ""
        return f"{error.strerror or error}{where}{room}", FAILED
    if os.environ.get("DISTAIL_TRACEBACK"):
        raise error
    return (
        f"{type(error).__name__}: {error}\nThis is a bug in distail; please report it. "
        "With DISTAIL_TRACEBACK=1 in the environment the same command prints where it happened.",
        FAILED,
    )


def is_main_process() -> bool:
    """Whether this process speaks for all: the only one there is, or the first of those launched together."""
    return os.environ.get("RANK", "0") == "0"


def print_once(text: str) -> None:
    """Print to standard error; where processes that were launched together say the same, one of them does.

    Any of them may be the only one that has something to say: what was said is noted in the launcher's store.
    """
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
