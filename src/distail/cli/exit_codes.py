"""What the command line says of an error, and the code that it exits with."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import sys
import sysconfig
import traceback
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from distail.cli.streams import drop_standard_output
from distail.errors import DistailError, IncompleteError, TrainingError

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OUT_OF_MEMORY = re.compile(
    r"not enough memory|cannot allocate memory|can't allocate memory|failed to map segment|can't start new thread",
    re.IGNORECASE,
)
_LONGEST_SHOWN = 80  # characters of a path
# How long a process waits for another of the same launch to print.
PATIENCE = timedelta(seconds=5)
# Click's UsageError: some releases of typer use click, others a copy of it within typer.
USAGE_ERROR: Any = typer.BadParameter.__base__


def exit_code_of(error: BaseException) -> int:
    """Say what went wrong, in words for a user, and return the exit code; raises what a caller has to see."""
    if isinstance(error, USAGE_ERROR):
        usage = io.StringIO()
        error.show(usage)
        print_once(usage.getvalue().rstrip("\n"))
        return BAD_INPUT
    if isinstance(error, BrokenPipeError):
        drop_standard_output()
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
    if isinstance(error, IncompleteError):
        return str(error), error.exit_code
    # The next two by what they have, since torch, which their modules import, takes long to load.
    signal_number = getattr(error, "signal_number", None)
    if signal_number is not None:
        saved = getattr(error, "saved", False)
        where = "the checkpoint just written" if saved else "the last checkpoint, if there is one"
        return f"{error}; the same command resumes from {where}", 128 + signal_number
    if type(error).__name__ == "OutOfMemoryError":
        return (
            f"the GPU is out of memory ({str(error).splitlines()[0]}). Free GPU memory, lower "
            "trainer.cache_limit_mb or set trainer.cuda_graphs=false, then run the same command again to resume from "
            "the last checkpoint; another training.batch_size needs another output",
            FAILED,
        )
    if memory := _out_of_memory(error):
        return (
            f"there is not enough memory ({memory}): raise the limit of this process (ulimit -v, the container's), or "
            "take fewer or smaller images, a smaller training.batch_size or data.stream=always",
            BAD_INPUT,
        )
    if isinstance(error, OSError):
        return _explain_system_error(error)
    if os.environ.get("DISTAIL_TRACEBACK"):
        raise error
    place = _place_in_own_code(error)
    whose = f"It comes from {place}." if place else "This is a bug in distail; please report it."
    return (
        f"{type(error).__name__}: {error}\n{whose} With DISTAIL_TRACEBACK=1 in the environment the same command prints "
        "the whole traceback.",
        FAILED,
    )


def _place_in_own_code(error: BaseException) -> str:
    """The innermost line of the user's own code (an entry, a network, data by import path) on the way to an error."""
    ours = (str(Path(__file__).parents[1]), sys.prefix, sysconfig.get_path("stdlib"), "<")
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(ours)]
    return f"{own[-1].filename}, line {own[-1].lineno}, in {own[-1].name}" if own else ""


def _explain_system_error(error: OSError) -> tuple[str, int]:
    reason = error.strerror or str(error)
    if error.filename is None and error.errno in (*NO_ROOM, errno.EIO, errno.EBADF):  # files of ours are named
        drop_standard_output()
        return f"standard output cannot be written: {reason}", BAD_INPUT
    where = f" ({_shortened(os.fsdecode(error.filename))})" if error.filename else ""
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return f"{reason}{where}; expected the path of a file or folder", BAD_INPUT
    resume = "; free some space, then run the same command again to resume from the last checkpoint"
    room = resume if error.errno in NO_ROOM else ""
    return f"{reason}{where}{room}", FAILED


def _out_of_memory(error: BaseException) -> str:
    """What the system, torch or the loader of libraries says where a process may have no more memory; else nothing."""
    of_system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or of_system or _OUT_OF_MEMORY.search(str(error)):
        return next(iter(str(error).splitlines()), "") or type(error).__name__
    return ""


def _shortened(path: str) -> str:
    return path if len(path) <= _LONGEST_SHOWN else f"{path[:_LONGEST_SHOWN]}..."


def is_main_process() -> bool:
    """Whether this process speaks for all: the only one there is, or the first of those launched together."""
    return os.environ.get("RANK", "0") == "0"


def print_once(text: str) -> None:
    """Print to standard error; where processes that were launched together say the same, one of them does.

    Any of them may be the only one that has something to say: what was said is noted in the launcher's store.
    """
    from distail.terminal import printable  # which takes rich to load

    store = _launcher_store()
    text = printable(text)
    key = f"distail/{hashlib.sha256(text.encode()).hexdigest()}"
    printed = f"{key}/printed"
    # An error here means that the launcher has gone, or the other process before it could print.
    with suppress(RuntimeError):
        if store is not None and store.add(key, 1) > 1:
            # The launcher ends all processes as soon as one has left: stay until the other has printed.
            store.wait([printed], PATIENCE)
            return
    with suppress(OSError):  # of a full or lost log: the exit code still tells
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
