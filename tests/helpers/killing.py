"""What the tests of kills share: a server of forks, small experiments, and what must be equal after any kills."""

import json
import os
from pathlib import Path

import torch
from safetensors.torch import load_file

from helpers.forks import ForkServer

BYTES = ("student.safetensors", "teacher.safetensors", "predictions.safetensors")
TIMES = ("seconds", "images_per_second")


def experiment(**changes):
    return {
        "name": "try",
        "data": {"name": "digits", "imbalance_factor": 20, "augment": ["crop"], "validation": 0.1},
        "teacher": {"model": "same", "training": {"epochs": 2}},
        "student": "resnet8",
        "training": {"epochs": 3, "batch_size": 128, "learning_rate": 0.05, "schedule": "one-cycle"},
        "trainer": {"device": "cpu", "checkpoint_every_steps": 3},
        **changes,
    }


class KillServer(ForkServer):
    def __init__(self, warm_up):
        program = Path(__file__).with_name("kill_server.py")
        super().__init__(program, json.dumps(warm_up), env={**os.environ, "OMP_NUM_THREADS": "1"})

    def run(self, experiment, folder, **kill):
        return self.ask({"experiment": {**experiment, "output": str(folder)}, **kill})


def assert_same_run(folder, whole):
    """Byte for byte, but for seconds; and nothing is left lying about."""
    for name in BYTES:
        assert (folder / name).exists() == (whole / name).exists(), name
        if (whole / name).exists():
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    assert without_times(folder / "metrics.jsonl") == without_times(whole / "metrics.jsonl")
    figures, expected = (json.loads((each / "result.json").read_text()) for each in (folder, whole))
    assert (figures["student"], figures["teacher"]) == (expected["student"], expected["teacher"])
    assert names(folder) == names(whole)
    for path in (whole / "checkpoints").rglob("*.safetensors"):
        mine, theirs = load_file(folder / path.relative_to(whole)), load_file(path)
        assert mine.keys() == theirs.keys(), path
        assert all(torch.equal(mine[name], theirs[name]) for name in mine), path
    assert points(folder) == points(whole)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "tfevents" not in path.name)


def without_times(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def points(folder):
    """What TensorBoard shows: every point once."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found = [
        (value.tag, event.step, value.tensor.float_val[0] if value.tensor.float_val else value.simple_value)
        for path in (folder / "tensorboard").iterdir()
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
        if not value.tag.endswith(TIMES)
    ]
    return sorted(found)
