"""Torch's generators, left as they were found."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


def kept_random_state() -> AbstractContextManager[None]:
    """Within the block torch may draw and be seeded; afterwards the caller's generators stand where they stood.

    >>> torch.manual_seed(0).initial_seed()
    0
    >>> with kept_random_state():
    ...     _ = torch.manual_seed(1)
    >>> torch.initial_seed()
    0
    """
    # Named one by one: torch warns of many GPUs where none are named.
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()))
