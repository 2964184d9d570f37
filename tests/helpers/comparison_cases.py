"""A comparison that takes seconds, and engines that need no process."""

from distail.compare import scheduler
from distail.compare.worker import work

# A run of `InProcess` is over once it has started: hardly anyone waits here, and 0.2 seconds a run add up.
scheduler.SECONDS_BETWEEN_LOOKS = 0.02

CONFIG = {
    "name": "quick",
    "data": {"name": "digits", "imbalance_factor": 20, "validation": 0.1, "augment": ["crop"]},
    "teacher": {"model": "resnet8"},
    "student": "resnet8",
    "method": "ce",
    "training": {"epochs": 1, "batch_size": 256, "learning_rate": 0.05},
    "trainer": {"device": "cpu"},
}


class InProcess:
    """Runs every job at once, here."""

    def __init__(self, config):
        self.parallel = config.parallel or 1
        self.specs = []
        self._done = {}

    def start(self, spec):
        self.specs.append(spec["name"])
        work(spec)
        self._done[spec["name"]] = None

    def ended(self):
        done, self._done = self._done, {}
        return done

    def stop(self, name=None): ...
    def close(self): ...


class Quiet:
    """A reporter that only remembers."""

    def __init__(self):
        self.events = []

    def begin(self, runs, done, parallel):
        self.events.append(("begin", runs, done))

    def started(self, name):
        self.events.append(("started", name))

    def progress(self, name, status): ...

    def ended(self, name, state, text):
        self.events.append(("ended", name, text))

    def message(self, text):
        self.events.append(("message", text))

    def finish(self): ...

    @property
    def started_runs(self):
        return [event[1] for event in self.events if event[0] == "started"]
