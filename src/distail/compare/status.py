"""What a running job reports to the comparison: a small file, readable whichever engine runs the job."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

from distail.evaluation.headline import headline, is_multi_label
from distail.evaluation.run_files import RUNNING, EpochRow
from distail.training.progress import Reporter

SECONDS_BETWEEN_WRITES = 0.5


class Status(TypedDict, total=False):
    """How far a run is, or how it ended; empty before its first step.

    Attributes:
        state: `running`, `finished`, `failed` or `stopped`.
        stage, steps, done: the stage under way, its optimizer steps, and how many of them are done.
        loss, balanced: of the last epoch; the balanced accuracy on the validation split, None without one.
        multi_label: true where the latter is mean average precision, of images that may have several classes.
        kind, problem: the class of the error that ended the run, and what it says.
    """

    state: str
    stage: str
    steps: int
    done: int
    loss: float
    balanced: float | None
    multi_label: bool
    kind: str
    problem: str


def write_status(path: Path, content: Status) -> None:
    """Replace the file at once; not synced to disk, since after a crash nobody asks for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.replace(path)


def read_status(path: Path) -> Status:
    """What was written last; empty where nothing was."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast(Status, content) if isinstance(content, dict) else {}


class StatusReporter:
    """A `distail.training.progress.Reporter` that keeps the status file up to date and passes everything on.

    Args:
        path: the status file.
        log: told of everything.
        stages: what the status file calls stages by, where not by their own names.
    """

    def __init__(self, path: Path, log: Reporter, stages: Mapping[str, str] | None = None) -> None:
        self._path, self._log, self._stages = path, log, stages or {}
        self._content: Status = {}
        self._written = 0.0

    def message(self, text: str) -> None:
        self._log.message(text)

    def start(self, stage: str, epochs: int, steps_per_epoch: int, done_steps: int) -> None:
        self._log.start(stage, epochs, steps_per_epoch, done_steps)
        name, steps = self._stages.get(stage, stage), epochs * steps_per_epoch
        self._content = {"state": RUNNING, "stage": name, "steps": steps, "done": done_steps}
        self._write()

    def step(self) -> None:
        self._log.step()
        self._content["done"] += 1
        if time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
            self._write()

    def epoch(self, row: EpochRow, epochs: int) -> None:
        self._log.epoch(row, epochs)
        validation = row["validation"]
        self._content["loss"] = row["loss"]
        self._content["balanced"] = None if validation is None else headline(validation)
        if validation is not None and is_multi_label(validation):
            self._content["multi_label"] = True

    def finish(self) -> None:
        self._log.finish()

    def _write(self) -> None:
        self._written = time.monotonic()
        write_status(self._path, self._content)
