"""Standard output and error, whatever they were started as: closed, full, or of an encoding that lacks letters."""

from __future__ import annotations

import os
import sys


def settle_streams() -> None:
    """Let both streams take any text: closed ones lead nowhere, and what has no code becomes an escape."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            _open_nowhere(descriptor)
            setattr(sys, name, open(descriptor, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):  # pytest's and notebooks' own streams are left as they are
            stream.reconfigure(errors="backslashreplace")


def drop_standard_output() -> None:
    """Send what is left of the output nowhere, so that the interpreter does not fail over it when it ends."""
    _open_nowhere(1)


def _open_nowhere(descriptor: int) -> None:
    # Else the next file that is opened would become this stream.
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
