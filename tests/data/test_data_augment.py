"""Augmentation against one loop over images, rows and columns in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distail.data.augment import (
    Draws,
    as_images,
    as_pixels,
    crop_padding,
    crop_pixels,
    in_order,
)
from distail.errors import DataError
from helpers.augmented import all_bits, augmented, drawn, drawn_views


def images_of(count: int, channels: int = 3, height: int = 8, width: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def cropped_by_loop(image: np.ndarray, bits: list[int]) -> np.ndarray:
    _, height, width = image.shape
    pad_y, pad_x = max(1, height // 8), max(1, width // 8)
    top, left = bits[0] * (2 * pad_y + 1) // 2**32, bits[1] * (2 * pad_x + 1) // 2**32
    out = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            source_y, source_x = y + top - pad_y, x + left - pad_x
            if 0 <= source_y < height and 0 <= source_x < width:
                out[:, y, x] = image[:, source_y, source_x]
    return out


def flipped_by_loop(image: np.ndarray, bits: list[int]) -> np.ndarray:
    return image[:, :, ::-1] if bits[0] >= 2**31 else image


def rotated_by_loop(image: np.ndarray, bits: list[int]) -> np.ndarray:
    """Each pixel from where a rotation about the center takes it; -1 where rounding could go either way."""
    _, height, width = image.shape
    angle = math.radians((bits[0] / 2**31 - 1) * 15)
    out = np.zeros(image.shape, dtype=np.int64)
    for y in range(height):
        for x in range(width):
            right, down = x - (width - 1) / 2, y - (height - 1) / 2
            source_x = math.cos(angle) * right - math.sin(angle) * down + (width - 1) / 2
            source_y = math.sin(angle) * right + math.cos(angle) * down + (height - 1) / 2
            if any(abs(value - math.floor(value) - 0.5) < 1e-3 for value in (source_x, source_y)):
                out[:, y, x] = -1
                continue
            nearest_x, nearest_y = round(source_x), round(source_y)
            if 0 <= nearest_y < height and 0 <= nearest_x < width:
                out[:, y, x] = image[:, nearest_y, nearest_x]
    return out


def by_loop(images: torch.Tensor, draws: Draws) -> torch.Tensor:
    loops = {"crop": cropped_by_loop, "flip": flipped_by_loop}
    out = images.numpy().copy()
    for row in range(len(out)):
        for name in draws.bits:
            out[row] = loops[name](out[row], draws.bits[name][row].tolist())
    return torch.from_numpy(out)


@pytest.mark.parametrize("names", [["crop"], ["flip"], ["crop", "flip"], []])
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 8), (3, 16, 24), (2, 3, 5), (3, 1, 1)])
def test_crop_and_flip_against_the_loop(names: list[str], shape: tuple[int, int, int]) -> None:
    images = images_of(40, *shape)
    before = images.clone()
    draws = drawn(names, 40, seed=0, epoch=0, step=0)
    result = augmented(images, draws)
    assert result.dtype == torch.uint8
    assert torch.equal(result, by_loop(images, draws))
    assert torch.equal(images, before)


@pytest.mark.parametrize("shape", [(3, 9, 9), (1, 12, 12), (3, 8, 20)])
def test_rotation_against_the_loop(shape: tuple[int, int, int]) -> None:
    images = images_of(12, *shape)
    draws = drawn(["rotate"], 12, seed=0, epoch=0, step=0)
    result = augmented(images, draws).numpy()
    moved = 0
    for row in range(12):
        expected = rotated_by_loop(images[row].numpy(), draws.bits["rotate"][row].tolist())
        certain = expected >= 0
        assert certain.mean() > 0.9
        np.testing.assert_array_equal(result[row][certain], expected[certain])
        moved += (result[row] != images[row].numpy()).any()
    assert moved >= 4


def test_rotation_by_nothing_changes_nothing() -> None:
    images = images_of(3)
    assert torch.equal(augmented(images, Draws(3, {"rotate": torch.full((3, 1), 2**31)})), images)


@pytest.mark.parametrize("bits", [0, 2**32 - 1])
def test_rotation_goes_to_fifteen_degrees_either_way(bits: int) -> None:
    column = torch.zeros(1, 1, 41, 41, dtype=torch.uint8)
    column[..., 20] = 255
    result = augmented(column, Draws(1, {"rotate": torch.tensor([[bits]])}))[0, 0]
    shift = result[5].nonzero().float().mean() - 20
    assert abs(shift.item()) == pytest.approx(15 * math.tan(math.radians(15)), abs=0.8)


def test_crop_reaches_every_offset_equally() -> None:
    bits = torch.cat([drawn(["crop"], 500, seed=0, epoch=0, step=step).bits["crop"] for step in range(20)])
    offsets = (bits * 9) >> 32
    table = torch.bincount(offsets[:, 0] * 9 + offsets[:, 1], minlength=81)
    expected = len(bits) / 81
    assert len(table) == 81
    assert ((table - expected) ** 2 / expected).sum() < 128  # 80 degrees of freedom: 0.9995


def test_the_extreme_draws_are_the_corners() -> None:
    images = torch.full((2, 1, 16, 16), 7, dtype=torch.uint8)
    corners = Draws(2, {"crop": torch.tensor([[0, 0], [2**32 - 1, 2**32 - 1]])})
    first, last = augmented(images, corners)
    assert (first[0, 2:, 2:] == 7).all()
    assert first[0, :2].sum() + first[0, :, :2].sum() == 0
    assert (last[0, :-2, :-2] == 7).all()
    assert last[0, -2:].sum() + last[0, :, -2:].sum() == 0


def test_the_border_of_cifar_is_the_published_one() -> None:
    assert crop_padding(32, 32) == (4, 4)


def test_draws_are_32_bit_and_fair() -> None:
    bits = drawn(["flip"], 20_000, seed=5, epoch=1, step=3).bits["flip"]
    assert bits.dtype == torch.int64
    assert bits.min() >= 0
    assert bits.max() < 2**32
    assert abs((bits >= 2**31).double().mean().item() - 0.5) < 0.015


def test_draws_are_a_pure_function_of_seed_epoch_and_step() -> None:
    base = drawn(["crop", "flip"], 64, 1, 2, 3)
    assert torch.equal(all_bits(base), all_bits(drawn(["crop", "flip"], 64, 1, 2, 3)))
    for other in [(2, 2, 3), (1, 3, 3), (1, 2, 4), (1, 3, 2), (12, 2, 3), (1, 22, 3)]:
        bits = all_bits(drawn(["crop", "flip"], 64, *other))
        assert (bits == all_bits(base)).sum() == 0
        correlation = np.corrcoef(bits.flatten().numpy(), all_bits(base).flatten().numpy())[0, 1]
        assert abs(correlation) < 0.25  # 192 pairs: deviation 0.07


def test_an_augmentation_draws_the_same_beside_others() -> None:
    alone, together = (drawn(names, 9, 0, 0, 0) for names in (["flip"], ["rotate", "flip", "crop"]))
    assert torch.equal(alone.bits["flip"], together.bits["flip"])
    assert all_bits(together).shape == (9, 4)
    assert len(set(all_bits(together).flatten().tolist())) == 36


@given(st.integers(0, 30), st.integers(0, 30))
@settings(deadline=None)
def test_slices_apply_as_the_whole_does(one: int, other: int) -> None:
    first, last = sorted((one, other))
    images = images_of(30)
    draws = drawn(["crop", "flip"], 30, 0, 1, 2)
    part = draws[first:last]
    assert len(part) == last - first
    assert torch.equal(augmented(images[first:last], part), augmented(images, draws)[first:last])


@given(
    st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 50)), min_size=1, max_size=20),
    st.integers(0, 1000),
    st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=30)
def test_views_depend_on_sample_and_view_alone(points: list[tuple[int, int]], seed: int, random) -> None:  # type: ignore[no-untyped-def]
    index, view = (torch.tensor(values) for values in zip(*points, strict=True))
    draws = drawn_views(["crop", "flip", "rotate"], index, view, seed)
    assert all_bits(draws).shape == (len(points), 4)
    order = list(range(len(points)))
    random.shuffle(order)
    shuffled = drawn_views(["crop", "flip", "rotate"], index[order], view[order], seed)
    assert torch.equal(all_bits(shuffled), all_bits(draws)[order])


def test_views_differ_in_sample_view_seed_and_from_training_draws() -> None:
    index = torch.arange(500)
    sets = [
        drawn_views(["crop"], index, 0, 0),
        drawn_views(["crop"], index, 1, 0),
        drawn_views(["crop"], index, 0, 1),
        drawn(["crop"], 500, 0, 0, 0),
    ]
    assert len({value for draws in sets for value in all_bits(draws).flatten().tolist()}) > 3990
    flips = torch.stack(
        [drawn_views(["flip"], index, view, 0).bits["flip"][:, 0] >= 2**31 for view in range(40)]
    ).double()
    assert abs(flips.mean().item() - 0.5) < 0.015
    assert (flips.mean(0) - 0.5).abs().max() < 0.36
    assert (flips.mean(1) - 0.5).abs().max() < 0.1


def test_a_view_of_one_number_is_that_of_every_sample() -> None:
    index = torch.tensor([4, 9])
    assert torch.equal(
        all_bits(drawn_views(["flip"], index, 3, 0)),
        all_bits(drawn_views(["flip"], index, torch.tensor([3, 3]), 0)),
    )


def test_names_are_ordered_and_checked() -> None:
    assert list(in_order(["cutout", "trivial_augment", "flip", "rotate", "crop"])) == [
        "crop",
        "flip",
        "rotate",
        "trivial_augment",
        "cutout",
    ]
    with pytest.raises(DataError, match=r"'flp'.*'flip'"):
        drawn(["flp"], 2, 0, 0, 0)
    with pytest.raises(DataError, match="twice"):
        in_order(["flip", "flip"])
    with pytest.raises(DataError, match=r"'flip'.*list"):
        in_order("flip")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("channels_last", [False, True])
def test_rows_are_cropped_alike_in_both_formats(channels: int, channels_last: bool) -> None:
    images = images_of(10, channels, 8, 12)
    rows = torch.tensor([7, 7, 0, 3])
    draws = drawn(["crop"], 4, 0, 0, 0)
    pixels = as_pixels(images, channels_last=channels_last, border=True)
    result = as_images(crop_pixels(pixels, rows, draws.bits["crop"], 8, 12))
    assert torch.equal(result, by_loop(images[rows], draws))
    if channels_last:
        assert result.is_contiguous(memory_format=torch.channels_last)
    else:
        assert result.is_contiguous()
