"""Random batches for the tests of functional/ and objective/: everything float64, from a seed that a failure prints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor


@dataclass(frozen=True)
class MadeBatch:
    student: Tensor
    teacher: Tensor
    target: Tensor
    counts: list[int]
    temperature: float

    @property
    def labels(self) -> list[int]:
        return self.target.tolist()


def made_batch(
    seed: int, batch_size: int = 5, num_classes: int = 7, scale: float = 3.0, temperature: float = 2.5
) -> MadeBatch:
    random = np.random.default_rng(seed)

    def logits() -> Tensor:
        return torch.from_numpy(random.normal(scale=scale, size=(batch_size, num_classes)))

    return MadeBatch(
        student=logits(),
        teacher=logits(),
        target=torch.from_numpy(random.integers(num_classes, size=batch_size)),
        counts=random.integers(1, 600, size=num_classes).tolist(),
        temperature=temperature,
    )


batches = st.builds(
    made_batch,
    seed=st.integers(0, 2**32 - 1),
    batch_size=st.integers(1, 6),
    num_classes=st.integers(2, 9),
    scale=st.sampled_from([1e-3, 0.3, 3.0, 10.0, 1e3]),
    temperature=st.floats(0.5, 20.0),
)

# several people share the machine that runs the tests: a slow example is no failure
quick = settings(deadline=None, max_examples=20)
