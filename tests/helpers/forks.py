"""A process that has imported everything and answers each request in a fork of itself: lines of JSON both ways."""

import json
import subprocess
import sys
import threading


class ForkServer:
    """The client's side: starts the program and waits until it is ready."""

    def __init__(self, program, *arguments, env=None):
        command = [sys.executable, str(program), *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        assert self.process.stdout.readline() == "ready\n"

    def ask(self, request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=30)


def serve(answer):
    """The program's side, once all is imported."""
    assert threading.active_count() == 1, "a fork of several threads may hang"
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
