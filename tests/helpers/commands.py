"""`distail` as a process of its own, as a user starts it, but without the seconds that it takes to import torch."""

import atexit
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from helpers.forks import ForkServer


@cache
def _server():
    server = ForkServer(Path(__file__).with_name("command_server.py"))
    atexit.register(server.close)
    return server


def distail(*arguments, cwd, **environment):
    """What `subprocess.run` would return of this command, with its text."""
    with tempfile.TemporaryDirectory() as folder:
        files = {name: str(Path(folder) / name) for name in ("out", "err")}
        words = [str(argument) for argument in arguments]
        request = {"arguments": words, "cwd": str(cwd), "environment": environment, **files}
        code = _server().ask(request)
        out, err = (Path(path).read_text() if Path(path).exists() else "" for path in files.values())
    return subprocess.CompletedProcess(["distail", *words], code, out, err)
