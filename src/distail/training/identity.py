"""What a run is: its settings, its data and its teacher. Checkpoints and results carry it, and refuse another's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypedDict

import torch

from distail._version import __version__


class Identity(TypedDict):
    """What decides the weights that a run ends with; hashes are SHA-256.

    Attributes:
        experiment: the settings, as a configuration holds them, with the number format that was chosen.
        training_data, validation_data, test_data: hashes of images and labels; None where nothing is held out.
        data_files: hash of the names, sizes and times of the data's files: while it stays, the others need no look.
        teacher: hash of the teacher's weights; None where there is none, or not yet.
    """

    experiment: dict[str, Any]
    training_data: str
    validation_data: str | None
    test_data: str
    data_files: str | None
    teacher: str | None


DATA_PARTS = ("training_data", "validation_data", "test_data", "data_files")
PART_TITLES = {
    "training_data": "other training images or labels",
    "validation_data": "other validation images or labels",
    "test_data": "other test images or labels",
    "teacher": "another teacher",
}


def changed_parts(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is another one now than when the run began, with both hashes; settings are not looked at.

    >>> changed_parts({"test_data": "a" * 64}, {"test_data": "b" * 64})
    ['other test images or labels (aaaaaaaaaaaa then, bbbbbbbbbbbb now)']
    """
    return [
        f"{title} ({_short(stored[part])} then, {_short(now.get(part))} now)"
        for part, title in PART_TITLES.items()
        if part in stored and stored[part] != now.get(part)
    ]


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]


def arithmetic() -> dict[str, str]:
    """What decides the last digits of a sum besides the numbers: versions, threads and instruction set."""
    found = {
        "distail": __version__,
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "instruction set": torch.backends.cpu.get_cpu_capability(),
    }
    if limit := os.environ.get("ONEDNN_MAX_CPU_ISA"):
        found["ONEDNN_MAX_CPU_ISA"] = limit
    return found
