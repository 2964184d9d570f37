"""`distail` as a process of its own, as a user starts it, but without the seconds that it takes to import torch."""

import atexit
import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path


@cache
def _server():
    source = Path(__file__).with_name("command_server.py")
    process = subprocess.Popen([sys.executable, str(source)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.stdin.close)
    assert process.stdout.readline() == "ready\n"
    return process


def distail(*arguments, cwd, **environment):
    """What `subprocess.run` would return of this command, with its text."""
    with tempfile.TemporaryDirectory() as folder:
        files = {name: str(Path(folder) / name) for name in ("out", "err")}
        words = [str(argument) for argument in arguments]
        request = {"arguments": words, "cwd": str(cwd), "environment": environment, **files}
        server = _server()
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        out, err = (Path(path).read_text() if Path(path).exists() else "" for path in files.values())
    return subprocess.CompletedProcess(["distail", *words], code, out, err)
