"""Boxes that are resized or erased: against Pillow, and by their shares, ratios and places."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image

from distail.config.augment import Augment, Cutout, RandomErasing, RandomResizedCrop
from distail.data import boxes
from distail.data.augment import in_order
from distail.data.dataset import LabeledImages
from distail.data.image_inputs import check_augment
from distail.errors import DataError
from helpers.augmented import drawn


def apply(entry, images: torch.Tensor, step: int = 0) -> torch.Tensor:  # type: ignore[no-untyped-def]
    name = entry if isinstance(entry, str) else entry.name
    draws = drawn([entry], len(images), seed=0, epoch=0, step=step)
    return in_order([entry])[name].apply(images, draws.bits[name])


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_resized_crop_is_pillows(monkeypatch, size, channels_last) -> None:  # type: ignore[no-untyped-def]
    found = []
    draw = boxes._drawn_boxes
    monkeypatch.setattr(
        boxes, "_drawn_boxes", lambda *given, **options: found.append(draw(*given, **options)) or found[-1]
    )
    smooth = torch.rand(20, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    images = (torch.nn.functional.interpolate(smooth, size=size, mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    result = apply("random_resized_crop", images)
    assert result.dtype == torch.uint8
    assert result.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    for row, (top, left, bottom, right) in enumerate(zip(*found[0], strict=True)):
        image = Image.fromarray(images[row].permute(1, 2, 0).contiguous().numpy())
        expected = image.crop((left, top, right, bottom)).resize(size[::-1], Image.Resampling.BILINEAR)
        off = np.abs(result[row].permute(1, 2, 0).numpy().astype(int) - np.asarray(expected).astype(int))
        assert off.max() <= 1


def test_boxes_have_the_published_shares_and_ratios_and_lie_everywhere() -> None:
    draws = drawn(["random_resized_crop"], 20_000, 0, 0, 0).bits["random_resized_crop"].numpy()
    top, left, bottom, right = boxes._drawn_boxes(draws, (0.08, 1.0), (3 / 4, 4 / 3), 64, 64, fallback=True)
    area, ratio = (bottom - top) * (right - left) / 64**2, (right - left) / (bottom - top)
    assert (top.min(), left.min(), bottom.max(), right.max()) == (0, 0, 64, 64)
    assert area.min() == pytest.approx(0.08, abs=0.005)
    assert area.max() > 0.95
    assert (ratio.min(), ratio.max()) == (pytest.approx(0.75, abs=0.06), pytest.approx(1.333, abs=0.1))
    assert abs(np.log(ratio).mean()) < 0.01
    small = area < 0.5  # of these every try fits, so that the area is even
    assert np.histogram(area[small], 6, (0.08, 0.5))[0].min() > 0.14 * small.sum()


def test_where_no_box_fits_the_middle_is_taken() -> None:
    draws = (
        drawn([RandomResizedCrop(scale=(1.0, 1.0), ratio=(2.0, 2.0))], 5, 0, 0, 0).bits["random_resized_crop"].numpy()
    )
    top, left, bottom, right = boxes._drawn_boxes(draws, (1.0, 1.0), (2.0, 2.0), 30, 30, fallback=True)
    assert {*zip(top, left, bottom, right, strict=True)} == {(7, 0, 22, 30)}
    top, _, bottom, _ = boxes._drawn_boxes(draws, (1.0, 1.0), (2.0, 2.0), 30, 30, fallback=False)
    assert (top == bottom).all()


@pytest.mark.parametrize(("length", "side"), [(None, 16), (8, 8), (5, 5)])
def test_cutout_is_a_square_cut_off_at_the_border(length: int | None, side: int) -> None:
    result = apply(Cutout(length=length), torch.ones(4000, 2, 32, 32))
    erased = result == 0
    assert torch.equal(erased[:, 0], erased[:, 1])
    high, wide = erased[:, 0].any(2).sum(1), erased[:, 0].any(1).sum(1)
    assert torch.equal(erased[:, 0].sum((1, 2)), high * wide)
    assert (int(high.max()), int(wide.max())) == (side, side)
    assert int(high.min()) == side - side // 2  # its middle is a pixel of the image
    middle = erased[:, 0].float().mean(0)
    assert middle.max() / middle[16, 16] < 1.7  # every place about equally often, but for the border
    assert abs(high.float().mean().item() / side - (1 - (side / 4) / 32)) < 0.02


@pytest.mark.parametrize(
    ("entry", "height", "width", "fits"),
    [
        ("cutout", 8, 8, True),
        ("cutout", 1, 8, False),
        (Cutout(length=16), 8, 8, False),
        (Cutout(length=8), 8, 16, False),
        (Cutout(length=7), 16, 8, True),
        (RandomErasing(probability=1, scale=(0.9, 1.0)), 8, 8, True),
        ("crop", 1, 1, True),
    ],
)
def test_a_square_as_large_as_the_images_is_refused(
    entry: Augment, height: int, width: int, *, fits: bool, random_images: Callable[..., LabeledImages]
) -> None:
    data = random_images(4, height=height, width=width)
    with nullcontext() if fits else pytest.raises(DataError, match=rf"data\.augment: cutout .* {height} x {width}"):
        check_augment(["flip", entry], data)


def test_erasing_takes_half_of_the_images_and_the_published_share_of_each() -> None:
    erased = apply("random_erasing", torch.ones(4000, 1, 64, 64))[:, 0] == 0
    share = erased.float().mean((1, 2))
    some = share > 0
    assert abs(some.float().mean().item() - 0.5) < 0.03
    assert share[some].min() == pytest.approx(0.02, abs=0.004)
    assert share[some].max() == pytest.approx(0.33, abs=0.01)
    high, wide = erased[some].any(2).sum(1), erased[some].any(1).sum(1)
    assert (int(high.max()) < 64, int(wide.max()) < 64) == (True, True)
    always = apply(RandomErasing(probability=1.0, scale=(0.1, 0.1), ratio=(1.0, 1.0)), torch.ones(50, 1, 64, 64))
    assert (always == 0).sum((1, 2, 3)).tolist() == [20 * 20] * 50
    assert (apply(RandomErasing(probability=0.0), torch.ones(50, 1, 8, 8)) == 1).all()
    tall = apply(RandomErasing(probability=1.0, scale=(0.1, 0.1), ratio=(4.0, 4.0)), torch.ones(50, 1, 64, 64))
    assert (tall == 0).any(3).sum((1, 2)).tolist() == [40] * 50  # rows: the paper's ratio is of height to width


@pytest.mark.parametrize("name", ["cutout", "random_erasing", "random_resized_crop"])
def test_slices_apply_as_the_whole_does(name: str) -> None:
    images = torch.randint(0, 256, (20, 3, 9, 13), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    augmentation, draws = in_order([name])[name], drawn([name], 20, 0, 1, 2)
    given = images.float() if augmentation.normalized else images
    whole = augmentation.apply(given.clone(), draws.bits[name])
    assert not torch.equal(given, whole)
    for part in (slice(0, 7), slice(7, 20), slice(3, 3)):
        assert torch.equal(augmentation.apply(given[part].clone(), draws[part].bits[name]), whole[part])


@pytest.mark.parametrize("name", ["random_resized_crop", "trivial_augment"])
def test_large_images_are_changed_as_one_by_one(name: str) -> None:
    images = torch.randint(0, 256, (5, 3, 300, 200), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    augmentation, draws = in_order([name])[name], drawn([name], 5, 0, 1, 2)
    whole = augmentation.apply(images, draws.bits[name])
    for row in range(5):
        part = slice(row, row + 1)
        assert torch.equal(augmentation.apply(images[part], draws[part].bits[name]), whole[part])
