"""What was last predicted of every sample, held whole or shared out over the processes of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distail.errors import CheckpointError, MethodError, listed
from distail.functional.checks import check_range
from distail.methods.context import Reduce
from distail.methods.modules import FixedDtypeBuffer

SETTLED = frozenset({"completed", "in_completed"})  # what changes between epochs only
BLOCK = 2**23  # predicted numbers that are looked at, and sent, at a time


class MemoryShard(nn.Module):
    """Of S of N samples: what was completed (S, C) float16, and what the epoch under way writes.

    Args:
        is_held_N: (N,) bool, whose rows these are.
    """

    def __init__(self, is_held_N: Tensor, num_classes: int) -> None:
        super().__init__()
        sample_S = is_held_N.nonzero()[:, 0]
        place_N = torch.full_like(is_held_N, -1, dtype=torch.int64)
        place_N[sample_S] = torch.arange(len(sample_S), device=sample_S.device)

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> FixedDtypeBuffer:
            return FixedDtypeBuffer(
                torch.zeros(len(sample_S), *shape, dtype=dtype, device=sample_S.device), persistent=False
            )

        self.sample = FixedDtypeBuffer(sample_S, persistent=False)
        self.place = FixedDtypeBuffer(place_N, persistent=False)
        self.completed, self.running = (zeros(num_classes, dtype=torch.float16) for _ in range(2))
        self.in_completed = zeros(dtype=torch.bool)
        self.written = zeros()  # at which write of the running epoch each was written last, from 1; 0 for never
        self.latest_row = zeros()

    def __len__(self) -> int:
        return len(self.sample.value)

    def read(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """What was completed of samples (B,): (B, C), and whether anything was, (B,)."""
        place_B = self.place.value[index]
        return self.completed.value[place_B], self.in_completed.value[place_B]

    def write(self, index: Tensor, probabilities_BC: Tensor, number: Tensor) -> None:
        """The write of this number; of a sample that is twice in a batch the later row, on every device."""
        place_B, rows_B = self.place.value[index], torch.arange(len(index), device=index.device)
        latest_S = self.latest_row.value
        latest_S.scatter_reduce_(0, place_B, rows_B, "amax", include_self=False)
        self.running.value[place_B] = probabilities_BC.to(torch.float16)[latest_S[place_B]]
        self.written.value[place_B] = number

    def within(self, block: slice) -> tuple[slice, Tensor]:
        """Which rows are of a block of samples, and where in the block they belong."""
        ends = torch.tensor([block.start, block.stop], device=self.sample.value.device)
        rows = slice(*torch.searchsorted(self.sample.value, ends).tolist())
        return rows, self.sample.value[rows] - block.start


@dataclass(frozen=True)
class _Block:
    """What all processes together remember of R samples: of the epochs before, and of the one under way.

    Attributes:
        completed, running: (R, C) float16.
        in_completed, in_running: (R,) bool, whether anything is.
    """

    samples: slice
    completed: Tensor
    in_completed: Tensor
    running: Tensor
    in_running: Tensor


class MemoryBank(nn.Module):
    """Predictions (N, C), in float16, in two buffers: an epoch reads the completed one and writes the running one.

    Of a sample that is written several times in an epoch the latest write counts, and within a batch the later row.
    What the processes of a run wrote is merged by that rule, through `reduce`; where several wrote in the same step,
    their mean counts. What a checkpoint held is older than every write after it, so that a resumed epoch ends with the
    very bits of one that was not interrupted. Every process must take the same number of steps.

    Shared out, a process holds the rows of its block of the samples, by their index, and of those that it draws in the
    epoch: ``2/P - 1/P^2`` of all, in P processes that draw each sample once. Rows change hands when an epoch begins, so
    that no step waits for another process.
    """

    def __init__(self, num_samples: int, num_classes: int) -> None:
        super().__init__()
        self.num_samples, self.num_classes = num_samples, num_classes
        self.rank, self.processes = 0, 1
        self.running_epoch = -1
        self.rows = MemoryShard(torch.ones(num_samples, dtype=torch.bool), num_classes)
        self.writes = FixedDtypeBuffer(torch.zeros((), dtype=torch.int64), persistent=False)
        # A state that waits until it is known who draws what: all of it in the main process, nothing in the others.
        self._loaded: Mapping[str, Tensor] | None = None

    def split(self, rank: int, processes: int) -> None:
        """Hold a part only, and until the first `advance` nothing.

        Raises:
            MethodError: something is remembered already, or the rank is out of range.
        """
        if not 0 <= rank < processes:
            raise MethodError(f"rank is {rank} of {processes} processes; expected 0 to processes - 1")
        if self.running_epoch >= 0:
            raise MethodError("the memory is to be shared out before anything is remembered")
        if processes > 1:
            self.rank, self.processes = rank, processes
            self.rows = MemoryShard(torch.zeros_like(self.rows.place.value, dtype=torch.bool), self.num_classes)

    @property
    def is_new(self) -> bool:
        """Whether no epoch has begun, and nothing was loaded."""
        return self.running_epoch < 0 and self._loaded is None

    def check(self, index: Tensor) -> None:
        """Whether this process can look these samples up; on a GPU, where that would cost a wait, it is taken as said.

        Raises:
            MethodError: there are no such samples, or this process did not say that it would draw them.
        """
        check_range(index, self.num_samples, "sample index")
        if self.processes == 1 or not len(self.rows) or index.device.type != "cpu" or torch.compiler.is_compiling():
            return
        others = index[self.rows.place.value[index] < 0]
        if len(others):
            raise MethodError(
                f"sample {int(others[0])} is not among those of begin_epoch(..., drawn=): this process does not hold "
                "what is remembered of it"
            )

    def read(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Of samples (B,) what the epochs before said last, (B, C) float16, and whether they said anything, (B,)."""
        if not len(self.rows):
            nothing_BC = self.rows.completed.value.new_zeros((len(index), self.num_classes))
            return nothing_BC, torch.zeros_like(index, dtype=torch.bool)
        return self.rows.read(index)

    @torch.no_grad()
    def write(self, index: Tensor, probabilities_BC: Tensor) -> None:
        """Keep predictions (B, C) of the epoch under way.

        Raises:
            MethodError: the memory is shared out, and no epoch has begun.
        """
        if not len(self.rows):
            raise MethodError("the memory is shared out: call begin_epoch(epoch, epochs, drawn=) first")
        self.writes.value.add_(1)
        self.rows.write(index, probabilities_BC, self.writes.value)

    @torch.no_grad()
    def advance(self, epoch: int, reduce: Reduce, drawn: Tensor | None = None) -> None:
        """Complete the running epoch when another begins; beginning the same one again, to resume, changes nothing.

        Args:
            drawn: (D,) int64: where the memory is shared out, the samples that this process draws in the epoch.

        Raises:
            MethodError: the memory is shared out, and `drawn` is missing or no indices of samples.
        """
        drawn = self._checked(drawn)
        if self._loaded is not None:
            known = self.running_epoch + 1 if self.rank == 0 else 0
            self.running_epoch = int(reduce(torch.full_like(self.writes.value, known))) - 1
        elif epoch == self.running_epoch:
            return
        if epoch == 0 < self.running_epoch:  # another training with the same method
            self._forget()
        goes_on = epoch == self.running_epoch
        # Shared out, rows move: what is still to be read may lie where others are to be written.
        rows = self.rows if self.processes == 1 else MemoryShard(self._needed(drawn), self.num_classes)
        for block in self._blocks(reduce) if self.running_epoch >= 0 else ():
            _put(block, rows, goes_on)
        if not goes_on:
            rows.written.value.zero_()
        self.writes.value.fill_(1 if goes_on else 0)  # all that was loaded is one write, before those to come
        self.rows, self.running_epoch, self._loaded = rows, epoch, None

    @torch.no_grad()
    def state(self, reduce: Reduce) -> dict[str, Tensor]:
        """All that is remembered, on the CPU; shared out, in the main process only, and nothing in the others."""
        blocks = []
        for block in self._blocks(reduce):
            if self.processes == 1 or self.rank == 0:
                held = (block.completed, block.in_completed, block.running, block.in_running)
                blocks.append([part.cpu() for part in held])  # at once: a GPU holds one block more, not all of them
        if not blocks:
            return {}
        names = ("completed", "in_completed", "running", "in_running")
        # A copy even of a single block: what it was made of goes on changing.
        joined = {name: torch.cat(parts) for name, parts in zip(names, zip(*blocks, strict=True), strict=True)}
        return {**joined, "running_epoch": torch.tensor(self.running_epoch)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up a `state`; shared out, that of the main process.

        Raises:
            CheckpointError: entries are missing or have other shapes.
        """
        if self.rank > 0:
            self._loaded = {}
            return
        size = (self.num_samples,)
        shapes = {"completed": (*size, self.num_classes), "in_completed": size}
        shapes |= {"running": (*size, self.num_classes), "in_running": size}
        problems = [f"{name} is missing" for name in (*shapes, "running_epoch") if name not in state]
        problems += [
            f"{name} has shape {tuple(state[name].shape)}; expected {shape}"
            for name, shape in shapes.items()
            if name in state and tuple(state[name].shape) != shape
        ]
        if problems:
            raise CheckpointError(listed(problems, "this memory does not fit the method:"))
        self.running_epoch = int(state["running_epoch"])
        self._loaded = dict(state)
        if self.processes == 1:
            for block in self._blocks(lambda own: own):
                _put(block, self.rows, goes_on=True)
            self.writes.value.fill_(1)
            self._loaded = None

    def _forget(self) -> None:
        self.running_epoch, self._loaded = -1, None
        self.rows.in_completed.value.zero_()

    def _checked(self, drawn: Tensor | None) -> Tensor:
        if drawn is None:
            if self.processes > 1:
                raise MethodError(
                    "the memory is shared out over processes; expected begin_epoch(epoch, epochs, drawn=), the indices "
                    "of the samples that this process draws in the epoch"
                )
            return torch.empty(0, dtype=torch.int64)
        if drawn.dtype != torch.int64 or drawn.dim() != 1:
            raise MethodError(f"drawn is {drawn.dtype} of shape {tuple(drawn.shape)}; expected int64 of shape (D,)")
        check_range(drawn, self.num_samples, "sample index in drawn")
        return drawn

    def _needed(self, drawn: Tensor) -> Tensor:
        needed_N = torch.zeros_like(self.rows.place.value, dtype=torch.bool)
        needed_N[self._own(slice(0, self.num_samples))] = True
        needed_N[drawn.to(needed_N.device)] = True
        return needed_N

    def _own(self, samples: slice) -> slice:
        """Those of a block of samples for which this process answers, counted from the start of the block."""
        first, stop = (self.num_samples * rank // self.processes for rank in (self.rank, self.rank + 1))
        first = min(max(first, samples.start), samples.stop)
        return slice(first - samples.start, max(first, min(stop, samples.stop)) - samples.start)

    def _blocks(self, reduce: Reduce) -> Iterator[_Block]:
        bits = (
            0 if self._loaded is not None else int(reduce(self.writes.value)).bit_length()
        )  # no number exceeds the sum
        size = max(1, BLOCK // self.num_classes)
        for start in range(0, self.num_samples, size):
            samples = slice(start, min(start + size, self.num_samples))
            if self._loaded is not None:
                yield self._loaded_block(samples, reduce)
            else:
                yield self._block(samples, bits, reduce)

    def _block(self, samples: slice, bits: int, reduce: Reduce) -> _Block:
        rows, places = self.rows.within(samples)

        def whole(held: FixedDtypeBuffer) -> Tensor:
            value = held.value[rows]
            return value.new_zeros((samples.stop - samples.start, *value.shape[1:])).index_copy_(0, places, value)

        latest_R = _is_latest(whole(self.rows.written), bits, reduce)
        sums_RC = reduce(torch.where(latest_R[:, None], whole(self.rows.running), 0).float())
        writers_R = reduce(latest_R.float())
        running_RC = (sums_RC / writers_R[:, None].clamp_min(1)).to(torch.float16)
        completed_RC, in_completed_R = whole(self.rows.completed), whole(self.rows.in_completed)
        if self.processes > 1:
            own, others = self._own(samples), torch.ones_like(in_completed_R)
            others[own] = False
            completed_RC = reduce(completed_RC.masked_fill(others[:, None], 0).float()).to(torch.float16)
            in_completed_R = reduce(in_completed_R.masked_fill(others, False).float()) > 0
        return _Block(samples, completed_RC, in_completed_R, running_RC, writers_R > 0)

    def _loaded_block(self, samples: slice, reduce: Reduce) -> _Block:
        def broadcast_from_main(name: str, *shape: int) -> Tensor:
            assert self._loaded is not None
            numbers = self.rows.completed.value.new_zeros((samples.stop - samples.start, *shape), dtype=torch.float32)
            if self.rank == 0:
                numbers.copy_(self._loaded[name][samples])
            return reduce(numbers)

        classes = self.num_classes
        return _Block(
            samples,
            broadcast_from_main("completed", classes).to(torch.float16),
            broadcast_from_main("in_completed") > 0,
            broadcast_from_main("running", classes).to(torch.float16),
            broadcast_from_main("in_running") > 0,
        )


def _put(block: _Block, rows: MemoryShard, goes_on: bool) -> None:
    """Into the rows of a process what belongs there; where the epoch does not go on, it is completed."""
    held, of_block = rows.within(block.samples)
    if goes_on:
        rows.completed.value[held] = block.completed[of_block]
        rows.in_completed.value[held] = block.in_completed[of_block]
        rows.running.value[held] = block.running[of_block]
        rows.written.value[held] = block.in_running[of_block].long()
    else:
        completed_RC = torch.where(block.in_running[:, None], block.running, block.completed)
        rows.completed.value[held] = completed_RC[of_block]
        rows.in_completed.value[held] = (block.in_completed | block.in_running)[of_block]


def _is_latest(written_R: Tensor, bits: int, reduce: Reduce) -> Tensor:
    """Whether this process wrote a row last of all, or together with others; found bit by bit, since `reduce` sums."""
    among_R = written_R > 0
    for bit in reversed(range(bits)):
        has_R = among_R & ((written_R >> bit) % 2 == 1)
        among_R = torch.where(reduce(has_R.float()) > 0, has_R, among_R)
    return among_R
