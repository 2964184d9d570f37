"""Every test of this room has its own cache and its own working directory, and sees no data set of the machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distail.data.dataset import LabeledImages


@pytest.fixture(autouse=True)
def _own_places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTAIL_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("DISTAIL_DATA", raising=False)
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def write_image() -> Callable[..., np.ndarray]:
    """Writes an image of random pixels and returns them; the suffix chooses the format, PNG keeps every pixel."""

    def write(path: Path, *, height: int = 6, width: int = 6, channels: int = 3, seed: int = 0) -> np.ndarray:
        shape = (height, width) if channels == 1 else (height, width, channels)
        pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return pixels

    return write


@pytest.fixture
def random_images() -> Callable[..., LabeledImages]:
    """A data set of random pixels whose labels run 0, 1, ... over and over."""

    def make(count: int, *, num_classes: int = 3, channels: int = 3, height: int = 8, width: int = 8) -> LabeledImages:
        generator = torch.Generator().manual_seed(count)
        images = torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)
        return LabeledImages(images, torch.arange(count) % num_classes)

    return make
