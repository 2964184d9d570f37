"""What the processes that a launcher starts do in the tests: a list of jobs, one after the other, in one start.

    torchrun --nproc-per-node 2 launched_worker.py jobs.json

A job is `{"config": ..., ...}` for `distail.run`, or `{"arguments": [...]}` for the command line. `outcomes-RANK.json`
gets one outcome a job.
"""

import json
import os
import signal
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path
from unittest import mock

import torch

import distail
from distail.cli import main
from distail.errors import DataError, TrainingError
from distail.training.finite import NonFiniteDetector
from distail.training.progress import Silent
from distail.training.signals import Interrupted
from distail.training.step import TrainingStep

RANK = int(os.environ["RANK"])


class Recorder(Silent):
    def __init__(self):
        self.messages, self.starts = [], []

    def message(self, text):
        self.messages.append(text)

    def start(self, stage, epochs, steps_per_epoch, done_steps):
        self.starts.append([stage, done_steps])


def watched(seen, stop):
    """The training step, which notes the indices of its batch and sends this process the signal that is asked for."""
    forward = TrainingStep.forward

    def step(self, images, target, index, teacher, mixed=None):
        if self.training:
            seen.append(index.tolist())
            if stop and stop["rank"] == RANK and stop["step"] == len(seen):
                os.kill(os.getpid(), getattr(signal, stop["signal"]))
        return forward(self, images, target, index, teacher, mixed)

    return mock.patch.object(TrainingStep, "forward", step)


def poisoned(where):
    """A loss that is not finite in one process, at one step."""
    update = NonFiniteDetector.update

    def poisoned_update(self, step, finite):
        bad = where["rank"] == RANK and where["step"] == step
        update(self, step, finite & torch.tensor([not bad, True]))

    return mock.patch.object(NonFiniteDetector, "update", poisoned_update)


def without_data(rank):
    """Images that one process alone cannot read."""
    if rank != RANK:
        return nullcontext()
    return mock.patch("sklearn.datasets.load_digits", side_effect=DataError("these images cannot be read here"))


def outcome_of(job):
    if "arguments" in job:
        return {"code": main(job["arguments"])}
    seen, recorder, outcome = [], Recorder(), {}
    with ExitStack() as changes:
        changes.enter_context(watched(seen, job.get("stop")))
        if "poison" in job:
            changes.enter_context(poisoned(job["poison"]))
        if "no_data_in" in job:
            changes.enter_context(without_data(job["no_data_in"]))
        try:
            outcome["figures"] = distail.run(job["config"], reporter=recorder).figures
        except Interrupted as stop:
            outcome["signal"] = stop.signal_number
        except (DataError, TrainingError) as error:
            outcome["error"] = f"{type(error).__name__}: {error}"
    return {**outcome, "seen": seen, "messages": recorder.messages, "starts": recorder.starts}


if __name__ == "__main__":
    jobs = Path(sys.argv[1])
    outcomes = {name: outcome_of(job) for name, job in json.loads(jobs.read_text()).items()}
    jobs.with_name(f"outcomes-{RANK}.json").write_text(json.dumps(outcomes))
