"""What `torchrun` and `accelerate launch` tell each process that they start. Importing this loads no torch."""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

PATIENCE = timedelta(seconds=5)


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
