"""The 1,797 handwritten digits that come with scikit-learn: 8x8, gray."""

from __future__ import annotations

import numpy as np
import torch

from distail.config.schema import Data
from distail.data.dataset import LabeledImages, Source
from distail.data.splits import fixed_test_split
from distail.errors import DataError


def load_digits(options: Data) -> Source:
    """Gray levels 0 to 16 become 0 to 255; a stratified fifth, the same for every run's seed, is the test set."""
    from sklearn.datasets import load_digits as load_from_sklearn

    if options.root is not None:
        raise DataError(
            f"data set 'digits' comes with scikit-learn and has no files; data.root is {options.root}: leave it out"
        )
    digits = load_from_sklearn()
    images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    everything = LabeledImages(images, torch.from_numpy(digits.target.astype(np.int64)))
    train, test = fixed_test_split(everything.labels)
    return Source(everything.subset(train), everything.subset(test), tuple(str(digit) for digit in range(10)))
