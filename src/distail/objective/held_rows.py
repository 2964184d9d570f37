"""The rows of a memory that one process holds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distail.objective.exact import Exact


class HeldRows(nn.Module):
    """Of S of N samples: what was completed (S, C) float16, and what the epoch under way writes.

    Args:
        is_held_N: (N,) bool, whose rows these are.
    """

    def __init__(self, is_held_N: Tensor, num_classes: int) -> None:
        super().__init__()
        sample_S = is_held_N.nonzero()[:, 0]
        place_N = torch.full_like(is_held_N, -1, dtype=torch.int64)
        place_N[sample_S] = torch.arange(len(sample_S), device=sample_S.device)

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Exact:
            return Exact(torch.zeros(len(sample_S), *shape, dtype=dtype, device=sample_S.device), persistent=False)

        self.sample = Exact(sample_S, persistent=False)
        self.place = Exact(place_N, persistent=False)
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
