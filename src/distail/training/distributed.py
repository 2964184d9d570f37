"""The processes that share a run: what decides how it goes on is decided together, so that none waits for another."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

from distail.errors import ConfigError, TrainingError

Value = TypeVar("Value")

# Reading a data set for the first time may take long, and the other processes wait for it.
LONGEST_PREPARATION = timedelta(days=1)
_OF_A_LOST_PROCESS = re.compile(
    r"gloo|connection (was )?(closed|reset)|(?<!launch )timed? ?out|broken pipe|remote (process|error)|"
    r"communicator was aborted",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Processes:
    """This process among those that `torchrun` or `accelerate launch` started; by default it is alone.

    Attributes:
        rank, size: which of how many.
        local_rank: which on this machine.
        control: the group for what hosts tell each other; never waits for a GPU.
        patient: the same, for work that may take one process much longer than the others.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    control: distributed.ProcessGroup | None = None
    patient: distributed.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def gather_errors(self, work: Callable[[], Value]) -> Value:
        """What `work` gives here, which may take long; where it fails in any process, all raise the first's error."""
        if self.size == 1:
            return work()
        value, error = _attempt(work)
        errors: list[Exception | None] = [None] * self.size
        distributed.all_gather_object(errors, error, group=self.patient)
        for first in errors:
            if first is not None:
                raise first
        assert value is not None
        return value[0]

    def broadcast_from_main(self, work: Callable[[], Value]) -> Value:
        """What `work` gives in the main process, in all; its error too."""
        if self.size == 1:
            return work()
        outcome = [_attempt(work) if self.is_main else (None, None)]
        distributed.broadcast_object_list(outcome, src=0, group=self.control)
        value, error = outcome[0]
        if error is not None:
            raise error
        assert value is not None
        return value[0]

    def local_main_first(self, work: Callable[[], Value]) -> Value:
        """What `work` gives here: the first process of each machine does it before the others, who find its files."""
        if self.size == 1:
            return work()
        if self.local_rank == 0:
            value = self.gather_errors(work)
            self.gather_errors(lambda: None)
            return value
        self.gather_errors(lambda: None)
        return self.gather_errors(work)

    def lowest(self, numbers: Sequence[int]) -> list[int]:
        """Of each number the lowest that any process has."""
        if self.size == 1:
            return list(numbers)
        lowest = torch.tensor(numbers, dtype=torch.int64)
        distributed.all_reduce(lowest, distributed.ReduceOp.MIN, group=self.control)
        return lowest.tolist()

    def sum(self, value: Tensor) -> Tensor:
        """A tensor summed over all processes, without gradient."""
        if self.size == 1:
            return value
        total = value.detach().clone(memory_format=torch.contiguous_format)  # NCCL takes no other
        distributed.all_reduce(total)
        return total

    @torch.no_grad()
    def broadcast_parameters(self, module: nn.Module) -> None:
        """Give all processes the main process's parameters and stored buffers, in place.

        What else a module stores, its extra state, may be on the CPU, where NCCL reaches nothing.
        """
        if self.size == 1:
            return
        stored = module.state_dict().keys()
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if name in stored:
                value = tensor.detach().contiguous()
                distributed.broadcast(value, src=0)
                tensor.copy_(value)

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the mean of what they have, in place."""
        if self.size == 1 or not tensors:
            return
        means = self.sum(torch.cat([tensor.flatten() for tensor in tensors])) / self.size
        for tensor, mean in zip(tensors, torch.split(means, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))


SINGLE_PROCESS = Processes()


@contextmanager
def process_group(device: str, minutes: float) -> Iterator[Processes]:
    """Within the block the launched processes can talk to each other.

    The group of all of them (`PartialState`, which another program may have set up before) outlives the block: a second
    one could meet what the first left in the launcher's store.

    Args:
        device: `auto`, or what `torch.device` takes: GPUs talk by NCCL, CPUs by gloo.
        minutes: how long one process may keep the others waiting before it counts as lost.

    Raises:
        ConfigError: this machine has more processes than GPUs, or the CPU is asked for after a run on GPUs.
        TrainingError: the others could not be reached (any more).
    """
    from accelerate import PartialState

    _check_devices(device)
    silence = timedelta(minutes=minutes)
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    try:
        state = PartialState(cpu=runs_on_cpu(device), timeout=silence)
        launched = state.num_processes > 1
        if not launched:
            yield SINGLE_PROCESS
            return
        if runs_on_cpu(device) and distributed.get_backend() == "nccl":
            raise ConfigError(
                f"trainer.device is {device!r}, but these processes have begun on GPUs, and talk by NCCL, which knows "
                "no CPU. Launch the program again for this run"
            )
        control, patient = (distributed.new_group(backend="gloo", timeout=t) for t in (silence, LONGEST_PREPARATION))
        yield Processes(state.process_index, state.num_processes, state.local_process_index, control, patient)
    except RuntimeError as error:
        if not launched or isinstance(error, TrainingError) or not tells_of_a_lost_process(error):
            raise
        detail = str(error).strip().splitlines()[0].rpartition("] ")[2].partition(". ")[0]
        raise TrainingError(
            f"another process of this run has died, or did not respond for {minutes:g} minutes; its last message "
            f"says why. The same command resumes from the newest checkpoint ({detail})"
        ) from error
    # Only after success: while an error is under way the others may have gone, and this would wait for them.
    for group in (control, patient):
        distributed.destroy_process_group(group)


def destroy_process_group() -> None:
    """Say goodbye to the other processes, at the end of a program that succeeded; nothing for a process alone."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def runs_on_cpu(device: str) -> bool:
    """Whether a `trainer.device` means the CPU here."""
    accelerated = torch.cuda.is_available() or torch.backends.mps.is_available()
    return device == "cpu" or (device == "auto" and not accelerated)


def _check_devices(device: str) -> None:
    here, devices = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if not runs_on_cpu(device) and 0 < devices < here:
        raise ConfigError(
            f"{here} processes were started on a machine with {devices} GPU{'s' if devices > 1 else ''}; each needs "
            f"one of its own: --nproc-per-node {devices}, or trainer.device=cpu"
        )


def _attempt(work: Callable[[], Value]) -> tuple[tuple[Value] | None, Exception | None]:
    try:
        return (work(),), None
    except Exception as error:
        return None, _sendable(error)


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return TrainingError(f"{type(error).__name__}: {error}")
    return error


def tells_of_a_lost_process(error: RuntimeError) -> bool:
    """Whether an error says that another process cannot be reached, in torch's words, gloo's or NCCL's.

    Not every error of theirs does: a GPU used twice, or one without memory, is told as it is.
    """
    lost = isinstance(error, distributed.DistNetworkError | distributed.DistStoreError)
    return lost or _OF_A_LOST_PROCESS.search(str(error)) is not None
