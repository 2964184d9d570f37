"""The student as its own teacher: what it said about each sample in the epoch before."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from distail.errors import CheckpointError, MethodError, listed
from distail.functional.checks import check_number, check_range, check_whole
from distail.objective.context import Needs, Progress, Reduce, Setup
from distail.objective.exact import Exact

SETTLED = frozenset({"completed", "in_completed"})  # what changes between epochs only
LEAST_PROBABILITY = 1e-12  # stands for the zeros of half precision, whose logarithm is infinite
ROWS = 65_536  # samples that are committed at a time


class PreviousEpoch(nn.Module):
    """The teacher is the student's own prediction in the epoch before [paper: IPWD's one-stage form, built on PS-KD].

    ``L_e = (1 - a_e) * supervised + a_e * distillation``, ``a_e = final_weight * (e + 1) / E``; a sample that was never
    seen before keeps the plain supervised loss, so that epoch 0 is plain. `begin_epoch` must be called every epoch.

    Predictions are float16 probabilities at temperature 1, (N, C), in two buffers: an epoch reads the one that the
    epochs before completed and writes the other, so that a sample drawn twice reads the same twice. `begin_epoch` of
    another epoch completes: samples that were not drawn keep their older prediction.

    Of a sample that is drawn several times in an epoch the latest write counts, and within a batch the later row. In
    distributed training what the processes wrote is merged by that rule, through `Method.reduce`; where several wrote
    in the same step, their mean counts. What a checkpoint held is older than every write after it, so that a resumed
    epoch ends with the very bits of one that was not interrupted. Every process must take the same number of steps.

    Args:
        final_weight: a at the end of training.
        num_samples: N, one more than the largest index; by default the sum of the class counts.
    """

    needs = Needs(index=True, memory=True)
    composition_defaults: ClassVar[dict[str, Any]] = {
        "temperature": 1.0,
        "supervised_weight": 1.0,
        "distillation_weight": 1.0,
        "start": 0.5,
    }

    def __init__(self, setup: Setup, *, final_weight: float = 0.8, num_samples: int | None = None) -> None:
        super().__init__()
        size = check_whole("num_samples", sum(setup.class_counts) if num_samples is None else num_samples, least=1)
        self.final_weight = check_number("final_weight", final_weight, least=0.0, most=1.0)
        self.share = Exact(torch.tensor(self.final_weight, dtype=torch.float64), persistent=False)
        shape = (size, setup.num_classes)
        self.completed = Exact(torch.zeros(shape, dtype=torch.float16), persistent=False)
        self.running = Exact(torch.zeros(shape, dtype=torch.float16), persistent=False)
        self.in_completed = Exact(torch.zeros(size, dtype=torch.bool), persistent=False)
        # When each sample was last written in the running epoch: at which write, counted from 1; 0 for never.
        self.written = Exact(torch.zeros(size, dtype=torch.int64), persistent=False)
        self.writes = Exact(torch.zeros((), dtype=torch.int64), persistent=False)
        self.latest_row = Exact(torch.zeros(size, dtype=torch.int64), persistent=False)
        self.running_epoch = -1

    def begin_epoch(self, progress: Progress) -> None:
        self.share.value.fill_(self.final_weight * progress.fraction_with_this_epoch)

    def check(self, index: Tensor | None, target: Tensor, reader: str) -> None:
        if index is None:
            raise MethodError(f"{reader} remembers every sample; expected their indices, index=")
        if index.shape != target.shape or index.dtype != torch.int64:
            raise MethodError(f"index is {index.dtype} of shape {tuple(index.shape)}; expected int64 of shape (B,)")
        check_range(index, len(self.written.value), "sample index")
        if not torch.compiler.is_compiling() and self.training and self.running_epoch < 0:
            warnings.warn(
                "begin_epoch(epoch, epochs) was never called: without an epoch before, every sample keeps its plain "
                "supervised loss",
                stacklevel=5,
            )

    def recall(self, index: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Log-probabilities (B, C) of the epoch before, and the share (B,) of the loss that they take over."""
        log_p_BC = self.completed.value[index].to(dtype).clamp_min(LEAST_PROBABILITY).log()
        return log_p_BC, self.share.value.to(dtype) * self.in_completed.value[index]

    @torch.no_grad()
    def remember(self, index: Tensor, log_p_BC: Tensor) -> None:
        """Keep this epoch's predictions; of a sample that is twice in a batch, the later row, on every device."""
        rows_B = torch.arange(len(index), device=index.device)
        latest_N = self.latest_row.value
        latest_N.scatter_reduce_(0, index, rows_B, "amax", include_self=False)
        self.running.value[index] = log_p_BC.exp().to(torch.float16)[latest_N[index]]
        self.writes.value.add_(1)
        self.written.value[index] = self.writes.value

    @torch.no_grad()
    def advance(self, epoch: int, reduce: Reduce) -> None:
        """Complete the running epoch when another begins; beginning the same one again, to resume, changes nothing."""
        if epoch == self.running_epoch:
            return
        if self.running_epoch >= 0:
            for rows, predictions_RC, written_R in self._merged(reduce):
                self.completed.value[rows] = torch.where(written_R[:, None], predictions_RC, self.completed.value[rows])
                self.in_completed.value[rows] |= written_R
            self.written.value.zero_()
            self.writes.value.zero_()
        self.running_epoch = epoch

    def _merged(self, reduce: Reduce) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """What all processes wrote in the running epoch, in blocks of rows: the latest, or the mean of the latest."""
        bits = int(reduce(self.writes.value)).bit_length()  # of the sum, which no process's number exceeds
        for start in range(0, len(self.written.value), ROWS):
            rows = slice(start, start + ROWS)
            latest_R1 = _is_latest(self.written.value[rows], bits, reduce)[:, None]
            sums_RC = reduce(torch.where(latest_R1, self.running.value[rows], 0).float())
            writers_R1 = reduce(latest_R1.float())
            yield rows, (sums_RC / writers_R1.clamp_min(1)).to(torch.float16), writers_R1[:, 0] > 0

    def memory_state(self, reduce: Reduce) -> dict[str, Tensor]:
        blocks = list(self._merged(reduce))
        return {
            "completed": self.completed.value.clone(),
            "in_completed": self.in_completed.value.clone(),
            "running": torch.cat([predictions_RC for _, predictions_RC, _ in blocks]),
            "in_running": torch.cat([written_R for _, _, written_R in blocks]),
            "running_epoch": torch.tensor(self.running_epoch),
        }

    def load_memory_state(self, state: Mapping[str, Tensor]) -> None:
        buffers = {name: getattr(self, name).value for name in ("completed", "in_completed", "running")}
        buffers["in_running"] = self.written.value  # all of it is one write, before those to come
        problems = [f"{name} is missing" for name in (*buffers, "running_epoch") if name not in state]
        problems += [
            f"{name} has shape {tuple(state[name].shape)}; expected {tuple(buffer.shape)}"
            for name, buffer in buffers.items()
            if name in state and state[name].shape != buffer.shape
        ]
        if problems:
            raise CheckpointError(listed(problems, "this memory does not fit the method:"))
        for name, buffer in buffers.items():
            buffer.copy_(state[name])
        self.writes.value.fill_(1)
        self.running_epoch = int(state["running_epoch"])


def _is_latest(written_R: Tensor, bits: int, reduce: Reduce) -> Tensor:
    """Whether this process wrote a row last of all, or together with others; found bit by bit, since `reduce` sums."""
    among_R = written_R > 0
    for bit in reversed(range(bits)):
        has_R = among_R & ((written_R >> bit) % 2 == 1)
        among_R = torch.where(reduce(has_R.float()) > 0, has_R, among_R)
    return among_R


TEACHERS: dict[str, type[nn.Module]] = {"previous_epoch": PreviousEpoch}
