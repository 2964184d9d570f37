"""Runs experiments in forks of one warm process, and kills them: a start costs no import.

A request is a line of JSON: `experiment`; and `at`, the number of the event before which the process kills itself, or
`after`, the seconds after which it is killed, or neither. The answer is a line of JSON: `status`, the exit code or the
negative number of the signal, and `events`, how many there were. Events are what a run does to its folder (files opened
for writing, synced, renamed, removed; folders made) and what it tells its reporter (each step, epoch, message).
"""

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch
import vl_convert

import distail
from distail.training.progress import Silent

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Events(Silent):
    def __init__(self, folder, at, shared):
        self.folder, self.at, self.shared, self.count = folder, at, shared, 0

    def happen(self):
        self.count += 1
        os.pwrite(self.shared, f"{self.count}".encode(), 0)
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def message(self, text):
        self.happen()

    def start(self, stage, epochs, steps_per_epoch, done_steps):
        self.happen()

    def step(self):
        self.happen()

    def epoch(self, row, epochs):
        self.happen()

    def watch_system_calls(self):
        def hook(event, arguments):
            writes = event in ("os.rename", "os.remove", "os.mkdir") or (event == "open" and arguments[2] & WRITES)
            if writes and str(arguments[0]).startswith(self.folder):
                self.happen()

        fsync = os.fsync

        def counted_fsync(descriptor):
            self.happen()
            fsync(descriptor)

        os.fsync = counted_fsync
        sys.addaudithook(hook)


def run_in_fork(request):
    with tempfile.TemporaryFile() as shared:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                events = Events(request["experiment"]["output"], request.get("at"), shared.fileno())
                events.watch_system_calls()
                distail.run(request["experiment"], reporter=events)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        if request.get("after") is not None:
            time.sleep(request["after"])
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return {"status": status, "events": int(os.pread(shared.fileno(), 20, 0) or b"0")}


def main():
    from forks import serve  # as a program this file has its own folder on the path

    torch.set_num_threads(1)
    # It compiles in threads of its own, of which a fork has none: it would wait for them for ever.
    vl_convert.vegalite_to_vega = lambda spec: {"legends": [], **spec}
    with tempfile.TemporaryDirectory() as folder:
        # Everything that a run imports is imported once, here.
        distail.run({**json.loads(sys.argv[1]), "output": str(Path(folder) / "run")}, reporter=Silent())
    serve(run_in_fork)


if __name__ == "__main__":
    main()
