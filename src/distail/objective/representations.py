"""The fifth slot: what the student's features learn. One loss a sample."""

from __future__ import annotations

from torch import nn

REPRESENTATIONS: dict[str, type[nn.Module]] = {}
