"""The one folder that a run leaves: its files, its lock, and whether it is finished."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distail.config import Experiment
from distail.errors import CheckpointError, ConfigError, listed

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RunFolder:
    """Paths in a run's folder; nothing is created until something is written."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.safetensors"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def weights(self, stage: str) -> Path:
        """`teacher.safetensors` or `student.safetensors`."""
        return self.path / f"{stage}.safetensors"

    def checkpoints(self, stage: str) -> Path:
        return self.path / "checkpoints" / stage

    def stored_result(self) -> dict[str, Any] | None:
        """The figures of a finished run, or None."""
        if not self.result.is_file():
            return None
        try:
            figures = json.loads(self.result.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise CheckpointError(
                f"{self.result} cannot be read ({error}); remove it to finish the run again"
            ) from None
        if not isinstance(figures, dict) or figures.get("schema_version") != SCHEMA_VERSION:
            raise CheckpointError(f"{self.result} is not a result of this version (schema {SCHEMA_VERSION})")
        return figures

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one process; the system frees the lock when the process ends, however it ends."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"output {str(self.path)!r} cannot be written: {error.strerror or error}") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                holder = lock.read().strip() or "another process"
                raise ConfigError(
                    f"{str(self.path)!r} is in use by {holder}; wait for it, or choose another output"
                ) from None
            lock.seek(0)
            lock.truncate()
            lock.write(f"process {os.getpid()} on {socket.gethostname()}")
            lock.flush()
            yield

    def stored_experiment(self, experiment: Experiment) -> Experiment | None:
        """The experiment that this folder was started with, or None for a new folder.

        Raises:
            ConfigError: the folder holds another experiment than the one asked for; every key that differs is listed.
        """
        if not self.config.is_file():
            return None
        stored = Experiment.from_yaml(self.config)
        differing = list(differences(_compared(stored), _compared(experiment)))
        if differing:
            headline = f"{str(self.path)!r} holds another experiment; choose another output or name. It differs in:"
            raise ConfigError(listed(differing, headline))
        return stored


def _compared(experiment: Experiment) -> dict[str, Any]:
    # The trainer section may change between starts: another machine, another checkpoint interval.
    return experiment.model_dump(mode="json", exclude={"trainer", "output"})


def differences(stored: Any, given: Any, where: str = "") -> Iterator[str]:
    """One line for each key in which two nested mappings differ.

    >>> list(differences({"data": {"name": "digits"}, "seed": 0}, {"data": {"name": "csv"}, "seed": 0}))
    ["data.name: 'digits' there, 'csv' asked for"]
    """
    if isinstance(stored, Mapping) and isinstance(given, Mapping):
        for key in sorted({*stored, *given}):
            yield from differences(stored.get(key), given.get(key), f"{where}.{key}" if where else key)
    elif stored != given:
        yield f"{where}: {stored!r} there, {given!r} asked for"
