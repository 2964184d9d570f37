"""The 1,797 handwritten digits that come with scikit-learn: 8x8, grey."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from distail.data.images import LabelledImages, Source
from distail.data.sources.options import SourceOptions
from distail.data.splits import stratified_split

TEST_FRACTION = 0.2
TEST_SEED = 20230101


def load_digits(root: Path | None, options: SourceOptions) -> Source:
    """Grey levels 0 to 16 become 0 to 255; a stratified fifth, the same for every run's seed, is the test set."""
    from sklearn.datasets import load_digits as load_from_sklearn

    digits = load_from_sklearn()
    images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    everything = LabelledImages(images, torch.from_numpy(digits.target.astype(np.int64)))
    train, test = stratified_split(everything.labels, TEST_FRACTION, TEST_SEED)
    return Source(everything.subset(train), everything.subset(test), tuple(str(digit) for digit in range(10)))
