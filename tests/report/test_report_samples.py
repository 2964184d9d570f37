"""The few test images that a run keeps: the right ones, small enough, read back or refused."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from distail.data.dataset import LabeledImages
from distail.errors import CheckpointError
from distail.report.samples import BUDGET_BYTES, delta_order, load_samples, sample_images, save_samples


def images(classes, per_class, channels, side):
    labels = torch.arange(classes).repeat(per_class)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (len(labels), channels, side, side), generator=generator, dtype=torch.uint8)
    return LabeledImages(pixels, labels)


def test_small_images_are_kept_exactly_as_they_are():
    test = images(classes=10, per_class=5, channels=1, side=8)
    kept = sample_images(test, list(range(10)))
    assert kept.label.tolist() == [c for c in range(10) for _ in range(3)]
    assert torch.equal(kept.images, test.images[kept.index])
    assert torch.equal(kept.label, test.labels[kept.index])


@pytest.mark.parametrize(
    ("classes", "channels", "side", "expected_side", "per_class"),
    [(5, 3, 200, 64, 3), (40, 3, 64, 48, 3), (100, 3, 32, 32, 3), (150, 3, 32, 32, 2), (300, 3, 40, 32, 1)],
)
def test_the_file_stays_below_a_megabyte(tmp_path, classes, channels, side, expected_side, per_class):
    kept = sample_images(images(classes, 3, channels, side), list(range(classes)))
    assert kept.images.shape[2:] == (expected_side, expected_side)
    assert torch.bincount(kept.label).max() == per_class
    assert len(kept.label) == classes * per_class
    save_samples(tmp_path / "samples.safetensors", kept)
    assert (tmp_path / "samples.safetensors").stat().st_size < 1_000_000


def test_with_too_many_classes_those_that_changed_most_are_kept():
    classes = 400
    order = list(range(classes))[::-1]
    kept = sample_images(images(classes, 1, 3, 32), order)
    fitting = BUDGET_BYTES // (3 * 32 * 32)
    assert kept.label.tolist() == list(range(classes - fitting, classes))


def test_shrinking_takes_the_mean_of_the_pixels_and_keeps_the_proportions():
    pixels = torch.zeros(1, 1, 128, 64, dtype=torch.uint8)
    pixels[..., ::2] = 200
    kept = sample_images(LabeledImages(pixels, torch.zeros(1, dtype=torch.int64)), [0])
    assert kept.images.shape == (1, 1, 64, 32)
    assert kept.images.unique().tolist() == [100]


def test_a_class_without_test_images_has_no_sample():
    test = images(classes=3, per_class=2, channels=1, side=4)
    assert sample_images(test, [0, 1, 2, 3]).label.unique().tolist() == [0, 1, 2]


def test_classes_are_ordered_by_how_much_they_changed():
    assert delta_order([10.0, 50.0, None, 20.0], [10.0, 20.0, 1.0, 60.0]) == [3, 1, 0, 2]


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8)},
        {
            "images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
            "index": torch.zeros(3, dtype=torch.int64),
            "label": torch.zeros(2, dtype=torch.int64),
        },
        {
            "images": torch.zeros(2, 3, 4, 4),
            "index": torch.zeros(2, dtype=torch.int64),
            "label": torch.zeros(2, dtype=torch.int64),
        },
        {
            "images": torch.zeros(2, 0, 4, 4, dtype=torch.uint8),
            "index": torch.zeros(2, dtype=torch.int64),
            "label": torch.zeros(2, dtype=torch.int64),
        },
    ],
)
def test_other_content_is_refused(tmp_path, tensors):
    save_file(tensors, tmp_path / "s.safetensors")
    with pytest.raises(CheckpointError, match="expected uint8 images"):
        load_samples(tmp_path / "s.safetensors")


def test_a_damaged_or_missing_file_is_refused(tmp_path):
    (tmp_path / "s.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_samples(tmp_path / "s.safetensors")
    with pytest.raises(CheckpointError, match="no sample images"):
        load_samples(tmp_path / "nowhere")
