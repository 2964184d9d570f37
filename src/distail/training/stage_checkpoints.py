"""The checkpoints of a stage and, where its method remembers every sample, the memories that belong to them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from torch import Tensor

from distail.methods.method import Method
from distail.training.checkpoint import Checkpoint, CheckpointFolder
from distail.training.state import check_origin


class MemoryFolder:
    """The memories that belong to the checkpoints of one stage.

    What changes with every step is stored for every checkpoint, by its step; what is settled for a whole epoch once an
    epoch, by the epoch, twice: all checkpoints of the epoch need it, and no one before could stand in for it.

    Args:
        settled: names of the tensors that change between epochs only.
    """

    def __init__(
        self,
        folder: Path,
        settled: Collection[str],
        steps_per_epoch: int,
        warn: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._by_step = CheckpointFolder(folder, warn)
        self._by_epoch = [
            CheckpointFolder(folder / name, warn, instead="looking for its copy")
            for name in ("by-epoch", "by-epoch-copy")
        ]
        self._settled, self._steps_per_epoch = settled, steps_per_epoch
        # Only what this process wrote or read is known to belong to it: a file of that name may be of a future that a
        # resumed run has left behind.
        self._known_epoch: int | None = None

    def save(self, step: int, memory: dict[str, Tensor]) -> None:
        """Write what belongs to the checkpoint after `step`, which is to be written afterwards."""
        epoch = self._epoch(step)
        if epoch != self._known_epoch:
            for copy in self._by_epoch:
                copy.write(Checkpoint(epoch, {n: t for n, t in memory.items() if n in self._settled}, {}))
            self._known_epoch = epoch
        self._by_step.write(Checkpoint(step, {n: t for n, t in memory.items() if n not in self._settled}, {}))

    def at(self, step: int) -> dict[str, Tensor] | None:
        """The memory that belongs to the checkpoint after `step`, or None if it is damaged or gone."""
        running, epoch = self._by_step.at(step), self._epoch(step)
        if running is None:
            return None
        copies = [found for copy in self._by_epoch if (found := copy.at(epoch)) is not None]
        if not copies:
            return None
        self._known_epoch = epoch if len(copies) == len(self._by_epoch) else None
        return {**running.tensors, **copies[0].tensors}

    def keep(self, steps: Collection[int]) -> None:
        """Drop what belongs to none of these checkpoints."""
        self._by_step.keep(steps)
        for copy in self._by_epoch:
            copy.keep({self._epoch(step) for step in steps})

    def _epoch(self, step: int) -> int:
        return (step - 1) // self._steps_per_epoch


class StageCheckpoints:
    """Checkpoints with their memories, which are stored apart: only what has both counts."""

    def __init__(
        self, folder: CheckpointFolder, method: Method, steps_per_epoch: int, warn: Callable[[str], None]
    ) -> None:
        self._folder, self._warn = folder, warn
        self._memories = (
            MemoryFolder(folder.folder / "memory", method.settled_memory, steps_per_epoch, warn)
            if method.needs.memory
            else None
        )

    def newest(self, data_sha256: str) -> tuple[Checkpoint | None, dict[str, Tensor]]:
        """The newest checkpoint that is whole, with its memory; None where there is none.

        Raises:
            CheckpointError: it was trained on other data, or may not be read.
        """
        while (found := self._folder.latest()) is not None:
            memory = self._memories.at(found.step) if self._memories is not None else {}
            if memory is not None:
                for remark in check_origin(found, data_sha256):
                    self._warn(remark)
                self._forget_old()
                return found, memory
            self._warn(f"no memory of step {found.step}; going back to the one before it")
            self._folder.remove(found.step)
        self._forget_old()
        return None, {}

    def save(self, checkpoint: Checkpoint, memory: dict[str, Tensor]) -> None:
        """Write both, and drop what is no longer needed."""
        # The memory first: a checkpoint without its memory could not be resumed, a memory too many does no harm.
        if self._memories is not None:
            self._memories.save(checkpoint.step, memory)
        self._folder.write(checkpoint)
        self._forget_old()

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, rising."""
        return self._folder.steps()

    def _forget_old(self) -> None:
        self._folder.forget_old()
        if self._memories is not None:
            self._memories.keep(self._folder.steps())
