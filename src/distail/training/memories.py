"""A method's memory of every sample, beside the step checkpoints: it grows with the data, they stay small."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from torch import Tensor

from distail.training.checkpoint import Checkpoint, CheckpointFolder


class MemoryFolder:
    """The memories that belong to the checkpoints of one stage.

    What changes with every step is stored for every checkpoint, by its step; what is settled for a whole epoch once an
    epoch, by the epoch.

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
        self._by_epoch = CheckpointFolder(folder / "by-epoch", warn)
        self._settled, self._steps_per_epoch = settled, steps_per_epoch
        # Only what this process wrote or read is known to belong to it: a file of that name may be of a future that a
        # resumed run has left behind.
        self._known_epoch: int | None = None

    def save(self, step: int, memory: dict[str, Tensor]) -> None:
        """Write what belongs to the checkpoint after `step`, which is to be written afterwards."""
        epoch = self._epoch(step)
        if epoch != self._known_epoch:
            self._by_epoch.write(Checkpoint(epoch, {n: t for n, t in memory.items() if n in self._settled}, {}))
            self._known_epoch = epoch
        self._by_step.write(Checkpoint(step, {n: t for n, t in memory.items() if n not in self._settled}, {}))

    def at(self, step: int) -> dict[str, Tensor] | None:
        """The memory that belongs to the checkpoint after `step`, or None if it is damaged or gone."""
        running = self._by_step.at(step)
        settled = self._by_epoch.at(self._epoch(step)) if running is not None else None
        if running is None or settled is None:
            return None
        self._known_epoch = self._epoch(step)
        return {**running.tensors, **settled.tensors}

    def keep(self, steps: Collection[int]) -> None:
        """Drop what belongs to none of these checkpoints."""
        self._by_step.keep(steps)
        self._by_epoch.keep({self._epoch(step) for step in steps})

    def _epoch(self, step: int) -> int:
        return (step - 1) // self._steps_per_epoch
