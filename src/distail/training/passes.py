"""What of a batch goes through the network at a time, and whether that is recorded."""

from __future__ import annotations

from distail.config.schema import Training
from distail.data.batches import FEWEST_A_RANK, slice_of_rank, training_slice
from distail.training.distributed import Processes
from distail.training.stage import Stage


def parts_of_batch(training: Training, processes: Processes, mine: int, whole: int) -> list[slice]:
    """This process's images of a batch in the parts that go through the network one after the other.

    All processes have as many, since some layers and methods talk in every forward pass, and none has fewer than two
    images, from which batch normalization can learn.
    """
    fewest = min(mine, whole // processes.size)
    count = max(1, min(training.accumulation_steps, fewest // FEWEST_A_RANK))
    return [slice_of_rank(mine, place, count) for place in range(count)]


def records(stage: Stage) -> bool:
    """Whether its batches go through a recorded pass: on one GPU, where no gradients of several passes add up."""
    runtime = stage.runtime
    return stage.cuda_graph and runtime.device.type == "cuda" and is_one_pass(stage.training, runtime.processes)


def is_one_pass(training: Training, processes: Processes) -> bool:
    """Whether every batch goes through one network, in one process, as a whole."""
    return processes.size == 1 and training.accumulation_steps == 1


def images_a_pass(training: Training, processes: Processes) -> int:
    """How many images of a full batch go through this process's network at a time."""
    mine = training_slice(training.batch_size, processes.rank, processes.size)
    part = parts_of_batch(training, processes, int(mine.stop - mine.start), training.batch_size)[-1]
    return int(part.stop - part.start)
