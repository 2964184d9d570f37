"""The checkpoints of a stage and, where its method remembers every sample, the memories that belong to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from distail.methods.method import Method
from distail.training.checkpoint import Checkpoint, CheckpointFolder
from distail.training.state import check_origin


class StageCheckpoints:
    """Checkpoints with their memories, which are stored apart, in files of the same step: only what has both counts."""

    def __init__(self, folder: CheckpointFolder, method: Method, warn: Callable[[str], None]) -> None:
        self._folder, self._warn = folder, warn
        self._memories = CheckpointFolder(folder.folder / "memory", warn) if method.needs.memory else None

    def newest(self, identity: Mapping[str, Any]) -> tuple[Checkpoint | None, dict[str, Tensor]]:
        """The newest checkpoint that is whole, with its memory; None where there is none.

        Raises:
            CheckpointError: it belongs to another run, or may not be read.
        """
        while (found := self._folder.latest()) is not None:
            memory = Checkpoint(found.step, {}, {}) if self._memories is None else self._memories.at(found.step)
            if memory is not None:
                for remark in check_origin(found, identity):
                    self._warn(remark)
                self._forget_old()
                return found, memory.tensors
            self._warn(f"the stored predictions of step {found.step} are missing; using the previous checkpoint")
            self._folder.remove(found.step)
        self._forget_old()
        return None, {}

    def save(self, checkpoint: Checkpoint, memory: dict[str, Tensor]) -> None:
        """Write both, and drop what is no longer needed."""
        # The memory first: a checkpoint without its memory could not be resumed, a memory too many does no harm.
        if self._memories is not None:
            self._memories.write(Checkpoint(checkpoint.step, memory, {}))
        self._folder.write(checkpoint)
        self._forget_old()

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, rising."""
        return self._folder.steps()

    def _forget_old(self) -> None:
        self._folder.forget_old()
        if self._memories is not None:
            self._memories.keep(self._folder.steps())
