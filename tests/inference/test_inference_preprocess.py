"""Images of any size become what a network takes, as they do for training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from distail.data.dataset import LabeledImages, resized
from distail.data.image_file import pixels_of
from distail.data.normalize import Normalize
from distail.inference.preprocess import Preprocess
from distail.models.description import Description


def preprocess(height=32, width=32):
    return Preprocess(Description("m", "conv", "linear", ("a",), 3, height, width, (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)))


def levels(height, width):
    return torch.randint(
        0, 256, (1, 3, height, width), generator=torch.Generator().manual_seed(height), dtype=torch.uint8
    )


# 101 x 64: half a row is left over, which decides where the square is cut out.
@pytest.mark.parametrize("size", [(101, 64), (64, 101), (20, 31), (333, 250), (33, 32)])
def test_other_sizes_are_resized_as_for_training(size):
    given = levels(*size)
    by_torch = resized(LabeledImages(given, torch.tensor([0])), 32).images.float()
    assert (preprocess().resized(given.float(), rounded=False) - by_torch).abs().max() < 0.51  # which rounds at the end
    by_pillow = (
        pixels_of(Image.fromarray(given[0].permute(1, 2, 0).numpy()), 32)[0].transpose(2, 0, 1).astype(np.float32)
    )
    difference = (preprocess().resized(given.float(), rounded=True)[0] - torch.from_numpy(by_pillow)).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.3


def test_images_of_the_right_size_are_only_normalized_bit_for_bit():
    given = levels(32, 32)
    expected = Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.1))(given)
    assert torch.equal(preprocess()(given.float(), rounded=True), expected)
    assert torch.equal(preprocess()(given.float(), rounded=False), expected)


def test_other_shapes_cover_the_networks_and_their_middle_is_kept():
    assert preprocess(16, 24).resized(levels(64, 64).float(), rounded=True).shape == (1, 3, 16, 24)
    stripes = torch.zeros(1, 3, 16, 48)
    stripes[..., 12:36] = 200
    assert torch.equal(preprocess(16, 24).resized(stripes, rounded=True), torch.full((1, 3, 16, 24), 200.0))
