"""Logits and labels as they were found in a file."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LogitsTable:
    """Logits (N, C), labels (N,), the classes' names where the file names them, and what it calls the logits."""

    logits: Tensor
    target: Tensor
    class_names: tuple[str, ...] | None = None
    source: str = "logits"
