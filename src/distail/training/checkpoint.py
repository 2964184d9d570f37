"""Checkpoints that survive a kill: written aside, synced, renamed, hashed; a damaged one is passed over."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from distail import files
from distail.errors import CheckpointError

# Two, so that a damaged newest file still leaves one to go back to.
KEPT = 2
_NAME_OF = "step-{:08d}.safetensors"
_NAME = re.compile(r"step-(\d+)\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a stage needs to go on: tensors by name and plain values, after `step` finished steps."""

    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]


class CheckpointFolder:
    """The checkpoints of one stage (teacher or student), newest kept, the one before as a reserve."""

    def __init__(
        self,
        folder: Path,
        warn: Callable[[str], None] = lambda message: None,
        before_write: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder = folder
        self._warn, self._before_write = warn, before_write

    def save(self, checkpoint: Checkpoint) -> None:
        """Write one checkpoint and drop those that are no longer needed."""
        self.write(checkpoint)
        self.forget_old()

    def write(self, checkpoint: Checkpoint) -> None:
        """Write one checkpoint and drop none."""
        self._before_write()
        metadata = {"step": str(checkpoint.step), "values": json.dumps(checkpoint.values, sort_keys=True)}
        files.write_tensors(self._path(checkpoint.step), checkpoint.tensors, metadata)

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, or None; damaged ones are named in a warning and removed.

        Raises:
            CheckpointError: one may not be read; it is left where it is.
        """
        for step in reversed(self.steps()):
            found = self.at(step)
            if found is not None:
                return found
        return None

    def at(self, step: int) -> Checkpoint | None:
        """The checkpoint after `step`, or None if there is none or it is damaged."""
        path = self._path(step)
        try:
            return self._read(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.EIO:  # it may be whole: only a failing disk is damage
                raise CheckpointError(f"checkpoint {path} cannot be read ({error.strerror or error})") from None
            problem: Exception = error
        except (SafetensorError, ValueError, KeyError) as error:
            problem = error
        self._warn(f"checkpoint {path} is damaged ({problem}); using the previous one")
        self.remove(step)
        return None

    def remove(self, step: int) -> None:
        """Forget one checkpoint."""
        self._path(step).unlink(missing_ok=True)

    def keep(self, steps: Collection[int]) -> None:
        """Forget all others."""
        for step in {*self.steps()} - {*steps}:
            self.remove(step)

    def forget_old(self) -> None:
        """Forget all but the newest ones."""
        self.keep(self.steps()[-KEPT:])

    def newest_values(self) -> dict[str, Any]:
        """The plain values of the newest checkpoint whose header can be read, its tensors unread; or none."""
        for step in reversed(self.steps()):
            with suppress(SafetensorError, OSError, ValueError, KeyError, RecursionError):
                with files.open_tensors(self._path(step)) as file:
                    values: dict[str, Any] = json.loads((file.metadata() or {})["values"])
                return values
        return {}

    def steps(self) -> list[int]:
        """The steps that have a file, rising."""
        if not self.folder.is_dir():
            return []
        return sorted(int(match[1]) for path in self.folder.iterdir() if (match := _NAME.fullmatch(path.name)))

    def _path(self, step: int) -> Path:
        return self.folder / _NAME_OF.format(step)

    @staticmethod
    def _read(path: Path) -> Checkpoint:
        tensors, metadata = files.read_tensors(path)
        step, values = int(metadata["step"]), metadata["values"]
        if path.name != _NAME_OF.format(step):
            raise ValueError(f"it was written after step {step}")
        return Checkpoint(step, tensors, json.loads(values))
