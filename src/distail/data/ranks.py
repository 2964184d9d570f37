"""How processes share a batch: each takes a contiguous slice."""

from __future__ import annotations

# Batch normalisation cannot learn from one value a channel, and nothing can be learnt from none.
FEWEST_A_RANK = 2


def slice_of_rank(length: int, rank: int, world_size: int) -> slice:
    """A rank's slice: sizes differ by one at most, and side by side the slices are the whole.

    >>> [slice_of_rank(7, rank, 2) for rank in range(2)]
    [slice(0, 3, None), slice(3, 7, None)]
    """
    return slice(length * rank // world_size, length * (rank + 1) // world_size)


def training_slice(length: int, rank: int, world_size: int) -> slice:
    """`slice_of_rank`, but a batch of fewer than two images a rank goes whole to every rank.

    >>> training_slice(3, 0, 2)
    slice(0, 3, None)
    """
    return slice(0, length) if length < FEWEST_A_RANK * world_size else slice_of_rank(length, rank, world_size)


def training_share(length: int, rank: int, world_size: int) -> float:
    """How much a mean over `training_slice` counts in the mean over the whole batch; over all ranks they sum to 1.

    >>> [training_share(length, 1, 2) for length in (8, 3)]
    [0.5, 0.5]
    """
    if length < FEWEST_A_RANK * world_size:
        return 1 / world_size
    mine = training_slice(length, rank, world_size)
    return float(mine.stop - mine.start) / length
