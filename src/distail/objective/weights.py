"""The fourth slot: a weight for each sample's distillation term. No gradient flows through a weight."""

from __future__ import annotations

from torch import nn

SAMPLE_WEIGHTS: dict[str, type[nn.Module]] = {}
