"""Class folders of digits, small and long-tailed, and a run on them: what a user of predict and export has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from helpers.whole_runs import run

NAMES = ("zero", "one", "two", "three")
TRAINING, TEST = (60, 40, 20, 12), 25


def write_folders(root: Path, size: tuple[int, int] = (24, 20)) -> Path:
    """`train/` and `test/`; images are wider than high, and every second one is in color."""
    digits = load_digits()
    for label, name in enumerate(NAMES):
        images = digits.images[digits.target == label]
        for split, part in (("test", images[:TEST]), ("train", images[TEST : TEST + TRAINING[label]])):
            folder = root / split / name
            folder.mkdir(parents=True)
            for row, levels in enumerate(part):
                image = Image.fromarray(np.rint(levels * (255 / 16)).astype(np.uint8)).resize(size)
                (image.convert("RGB") if row % 2 else image).save(folder / f"{row}.png")
    return root


def folder_run(folder: Path, **changes):
    """A quick run on the folders `photos` beside it, which it makes."""
    photos = folder.parent / f"{folder.name}-photos"
    if not photos.exists():
        write_folders(photos)
    return run(
        {
            "name": "quick",
            "output": str(folder),
            "data": {"name": "folder", "root": str(photos), "image_size": 16, "validation": 0.1},
            "student": "resnet8",
            "method": "ce",
            "training": {"epochs": 4, "batch_size": 32, "learning_rate": 0.05, "schedule": "one-cycle"},
            "trainer": {"device": "cpu", "trackers": []},
            **changes,
        }
    )
