"""What was last predicted of every sample, the same in every process of a run.

Shapes: B batch, C classes, N samples, R samples of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from distail.errors import CheckpointError, listed
from distail.files import MEGABYTE
from distail.functional.checks import check_range
from distail.methods.context import Reduce
from distail.methods.modules import FixedDtypeBuffer

BLOCK = 2**23  # predicted numbers that are merged at a time


class MemoryBank(nn.Module):
    """Predictions (N, C), in float16, in two buffers: an epoch reads the completed one and writes the running one.

    Of a sample that is written several times in an epoch the latest write counts, and within a batch the later row.
    What the processes of a run wrote is merged by that rule, through `reduce`, when an epoch ends and for a checkpoint;
    where several wrote in the same step, their mean counts. What was merged is older than every write after it, so that
    a resumed epoch ends with the very bits of one that was not interrupted. Every process must take the same number of
    steps.
    """

    def __init__(self, num_samples: int, num_classes: int) -> None:
        super().__init__()
        self.num_samples, self.num_classes = num_samples, num_classes
        self.running_epoch = -1

        def zeros(*shape: int, dtype: torch.dtype) -> FixedDtypeBuffer:
            return FixedDtypeBuffer(torch.zeros(shape, dtype=dtype), persistent=False)

        self.completed, self.running = (zeros(num_samples, num_classes, dtype=torch.float16) for _ in range(2))
        self.in_completed = zeros(num_samples, dtype=torch.bool)
        self.written = zeros(num_samples, dtype=torch.int32)  # at which write of the epoch, from 1; 0 for never
        self.writes = zeros(dtype=torch.int32)

    @property
    def is_new(self) -> bool:
        """Whether no epoch has begun, and nothing was loaded."""
        return self.running_epoch < 0

    def check(self, index: Tensor) -> None:
        """Refuse indices of samples that there are not; not on a GPU, where looking would make the host wait.

        Raises:
            MethodError: an index is out of range.
        """
        check_range(index, self.num_samples, "sample index")

    def read(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Of samples (B,) the last prediction in the epochs before, (B, C) float16, and whether there is any, (B,)."""
        return self.completed.value[index], self.in_completed.value[index]

    @torch.no_grad()
    def write(self, index: Tensor, probabilities_BC: Tensor) -> None:
        """Keep predictions (B, C) of the epoch under way."""
        self.writes.value.add_(1)
        # All rows of a sample write the last one's prediction: no device promises which of them it writes last.
        sorted_B, order_B = index.sort(stable=True)
        latest_B = order_B[torch.searchsorted(sorted_B, index, right=True) - 1]
        self.running.value[index] = probabilities_BC.to(torch.float16)[latest_B]
        self.written.value[index] = self.writes.value

    @torch.no_grad()
    def advance(self, epoch: int, reduce: Reduce) -> None:
        """Complete the running epoch when another begins; beginning the same one again, to resume, changes nothing."""
        if epoch == self.running_epoch:
            return
        if epoch == 0:  # another training with the same method
            self.in_completed.value.zero_()
        elif self.running_epoch >= 0:
            self._merge(reduce)
            for rows in self._blocks():
                written_R, completed_RC = self.written.value[rows] > 0, self.completed.value[rows]
                torch.where(written_R[:, None], self.running.value[rows], completed_RC, out=completed_RC)
                self.in_completed.value[rows] |= written_R
        self.written.value.zero_()
        self.writes.value.zero_()
        self.running_epoch = epoch

    @torch.no_grad()
    def state(self, reduce: Reduce) -> dict[str, Tensor]:
        """All that is remembered, on the CPU: copies, the same in every process."""
        self._merge(reduce)
        held = {
            "completed": self.completed.value,
            "in_completed": self.in_completed.value,
            "running": self.running.value,
            "in_running": self.written.value > 0,
        }
        state = {name: value.to("cpu", copy=True) for name, value in held.items()}
        return {**state, "running_epoch": torch.tensor(self.running_epoch)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up a `state`, the same in every process.

        Raises:
            CheckpointError: entries are missing or have other shapes.
        """
        rows = (self.num_samples, self.num_classes)
        shapes = {"completed": rows, "in_completed": rows[:1], "running": rows, "in_running": rows[:1]}
        problems = [f"{name} is missing" for name in (*shapes, "running_epoch") if name not in state]
        problems += [
            f"{name} has shape {tuple(state[name].shape)}; expected {shape}"
            for name, shape in shapes.items()
            if name in state and tuple(state[name].shape) != shape
        ]
        if problems:
            raise CheckpointError(listed(problems, "this memory does not fit the method:"))
        self.completed.value.copy_(state["completed"])
        self.in_completed.value.copy_(state["in_completed"])
        self.running.value.copy_(state["running"])
        self.written.value.copy_(state["in_running"])
        self.writes.value.fill_(1)
        self.running_epoch = int(state["running_epoch"])

    def _merge(self, reduce: Reduce) -> None:
        """Have every process hold what all wrote in the running epoch, as one write before those to come."""
        bits = int(reduce(self.writes.value.float())).bit_length()  # no number of a write is larger than the sum
        for rows in self._blocks():
            running_RC, written_R = self.running.value[rows], self.written.value[rows]
            is_latest_R = _is_latest(written_R, bits, reduce)
            sums_RC = reduce(torch.where(is_latest_R[:, None], running_RC, 0).float())
            writers_R = reduce(is_latest_R.float())
            running_RC.copy_(sums_RC / writers_R[:, None].clamp_min(1))
            written_R.copy_(writers_R > 0)
        self.writes.value.fill_(1)

    def _blocks(self) -> Iterator[slice]:
        size = max(1, BLOCK // self.num_classes)
        for start in range(0, self.num_samples, size):
            yield slice(start, start + size)


def memory_megabytes(num_samples: int, num_classes: int) -> float:
    """What a `MemoryBank` takes in every process: two rows of float16 a sample, and when they were written.

    >>> round(memory_megabytes(num_samples=50_000, num_classes=100), 1)
    19.3
    """
    return num_samples * (2 * 2 * num_classes + 5) / MEGABYTE


def _is_latest(written_R: Tensor, bits: int, reduce: Reduce) -> Tensor:
    """Whether this process wrote a row last of all, or together with others; found bit by bit, since `reduce` sums."""
    among_R = written_R > 0
    for bit in reversed(range(bits)):
        has_R = among_R & ((written_R >> bit) % 2 == 1)
        among_R = torch.where(reduce(has_R.float()) > 0, has_R, among_R)
    return among_R
