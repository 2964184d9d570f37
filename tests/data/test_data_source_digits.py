from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from distail.data.long_tail import class_counts
from distail.errors import DataError
from helpers.sources import load


def test_all_images_are_there_once_with_a_stratified_fifth_for_the_test() -> None:
    source = load("digits")
    assert source.class_names == tuple("0123456789")
    assert (len(source.train), len(source.test)) == (1438, 359)
    assert source.train.images.shape[1:] == (1, 8, 8)
    original = load_digits()
    counts = np.bincount(original.target)
    for count, held_out in zip(counts, class_counts(source.test.labels, 10), strict=True):
        assert held_out == int(count * 0.2 + 0.5)
    together = torch.cat([source.train.images, source.test.images]).flatten(1).numpy()
    expected = np.rint(original.data * 255 / 16).astype(np.uint8)
    np.testing.assert_array_equal(np.sort(together.sum(1)), np.sort(expected.sum(1)))
    assert sorted(map(bytes, together)) == sorted(map(bytes, expected))
    assert together.max() == 255


def test_labels_belong_to_their_images() -> None:
    original = load_digits()
    label_of = {
        bytes(np.rint(row * 255 / 16).astype(np.uint8)): label
        for row, label in zip(original.data, original.target, strict=True)
    }
    source = load("digits")
    for data in (source.train, source.test):
        for image, label in zip(data.images, data.labels, strict=True):
            assert label_of[bytes(image.flatten().numpy())] == label


def test_the_test_set_is_always_the_same() -> None:
    assert torch.equal(load("digits").test.images, load("digits").test.images)


def test_it_can_be_resized() -> None:
    source = load("digits", image_size=16)
    assert source.train.images.shape == (1438, 1, 16, 16)
    assert source.test.images.shape == (359, 1, 16, 16)


def test_it_has_no_root() -> None:
    with pytest.raises(DataError, match=r"data\.root is /x"):
        load("digits", "/x")


def test_groups_that_the_data_do_not_have_are_refused() -> None:
    with pytest.raises(DataError, match=r"data\.group: 'patient'.*'digits' has no groups"):
        load("digits", group="patient")
