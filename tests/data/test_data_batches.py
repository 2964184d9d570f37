"""Batches in order, by view and by rank, and how processes share a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distail.config.augment import AUGMENTATIONS
from distail.data import pixels
from distail.data.batches import (
    Batch,
    TrainingBatches,
    batch_places,
    evaluation_batches,
    slice_of_rank,
    steps_an_epoch,
    training_share,
    training_slice,
)
from distail.data.dataset import LabeledImages
from distail.data.samplers import epoch_order, epoch_views
from distail.errors import DataError
from helpers.augmented import augmented, drawn, drawn_views, normalized

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
MakeImages = Callable[..., LabeledImages]


def batches_of(data: LabeledImages, **options: object) -> TrainingBatches:
    settings = {"batch_size": 8, "mean": MEAN, "std": STD, "num_classes": 3, "seed": 0, **options}
    return TrainingBatches(data, **settings)  # type: ignore[arg-type]


def same(one: Batch, other: Batch) -> bool:
    return all(left is right is None or torch.equal(left, right) for left, right in zip(one, other, strict=True))


def joined(parts: Sequence[Batch]) -> Batch:
    return Batch(*(None if tensors[0] is None else torch.cat(tensors) for tensors in zip(*parts, strict=True)))


@pytest.mark.parametrize(
    "augment",
    [
        [],
        ["crop"],
        ["flip"],
        ["crop", "flip"],
        ["crop", "flip", "rotate"],
        ["crop", "flip", "auto_augment"],
        ["random_resized_crop", "color_jitter", "rand_augment"],
    ],
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_batches_are_order_then_draws_then_normalization(
    random_images: MakeImages, augment: list[str], channels_last: bool
) -> None:
    data = random_images(21, height=8, width=16)
    order = epoch_order("instance", data.labels, 3, 4, 2)
    batches = batches_of(data, augment=augment, seed=4, channels_last=channels_last)
    for step, batch in enumerate(batches.epoch(2)):
        rows = order[step * 8 : step * 8 + 8]
        draws = drawn(augment, len(rows), 4, 2, step)
        expected = normalized(augmented(data.images[rows], draws), MEAN, STD)
        assert torch.equal(batch.index, rows)
        assert torch.equal(batch.labels, data.labels[rows])
        torch.testing.assert_close(batch.inputs, expected, rtol=0, atol=1e-6)
        if channels_last and "rotate" not in augment:
            assert batch.inputs.is_contiguous(memory_format=torch.channels_last)


def test_an_epoch_shows_every_image_once_and_keeps_the_last_batch(random_images: MakeImages) -> None:
    batches = batches_of(random_images(21), augment=["crop"])
    epoch = list(batches.epoch(0))
    assert batches.steps_per_epoch == 3
    assert [len(batch.labels) for batch in epoch] == [8, 8, 5]
    assert sorted(torch.cat([batch.index for batch in epoch]).tolist()) == list(range(21))


@given(num_images=st.integers(1, 2000), batch_size=st.integers(2, 200))
def test_no_batch_is_too_small_to_learn_from(num_images: int, batch_size: int) -> None:
    steps = steps_an_epoch(num_images, batch_size)
    places = [batch_places(step, num_images, batch_size) for step in range(steps)]
    assert [place for whole in places for place in range(num_images)[whole]] == list(range(num_images))
    sizes = [whole.stop - whole.start for whole in places]
    # One image that is left over can make a batch larger by one.
    assert max(sizes) <= batch_size + 1
    assert min(sizes) >= min(num_images, batch_size / 4)
    if num_images % batch_size >= max(2, batch_size / 4):
        assert sizes[:-1] == [batch_size] * (steps - 1)


@pytest.mark.parametrize("options", [{}, {"views": 2}, {"sampler": "class_balanced"}])
@pytest.mark.parametrize(("images", "sizes"), [(17, [8, 9]), (9, [9]), (16, [8, 8]), (18, [8, 8, 2]), (1, [1])])
def test_a_single_image_left_over_joins_the_batch_before_it(
    random_images: MakeImages, images: int, sizes: list[int], options: dict[str, object]
) -> None:
    data = random_images(images)
    batches = batches_of(data, augment=["crop"], **options)
    epoch = list(batches.epoch(1))
    assert [len(batch.labels) for batch in epoch] == sizes
    assert batches.steps_per_epoch == len(sizes)
    order = epoch_order(str(options.get("sampler", "instance")), data.labels, 3, 0, 1)
    assert torch.equal(torch.cat([batch.index for batch in epoch]), order)
    ranks = [list(batches_of(data, augment=["crop"], rank=rank, world_size=2, **options).epoch(1)) for rank in (0, 1)]
    for step, whole in enumerate(epoch):
        if len(whole.labels) >= 4:
            assert torch.equal(torch.cat([rank[step].inputs for rank in ranks]), whole.inputs)
    assert same(next(batches.epoch(1, len(sizes) - 1)), epoch[-1])


@pytest.mark.parametrize("sampler", ["instance", "class_balanced", "square_root"])
def test_an_epoch_can_be_entered_at_any_step(random_images: MakeImages, sampler: str) -> None:
    augment = ["crop", "flip", "trivial_augment", "random_erasing"]
    batches = batches_of(random_images(30), augment=augment, sampler=sampler)
    whole = list(batches.epoch(5))
    for first in range(len(whole) + 1):
        rest = list(batches_of(random_images(30), augment=augment, sampler=sampler).epoch(5, first))
        assert len(rest) == len(whole) - first
        assert all(same(one, other) for one, other in zip(whole[first:], rest, strict=True))


@pytest.mark.parametrize("augment", [[], ["crop", "flip"], ["random_resized_crop", "auto_augment", "cutout"]])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_images_that_a_gpu_has_no_room_for_give_the_same_batches(
    random_images: MakeImages, monkeypatch: pytest.MonkeyPatch, augment: list[str], rank: int
) -> None:
    def epoch() -> list[Batch]:
        return list(batches_of(random_images(31), augment=augment, rank=rank, world_size=3, views=2).epoch(1))

    held = epoch()
    monkeypatch.setattr("distail.data.pixels.fits_on_device", lambda *given: False)
    for one, other in zip(held, epoch(), strict=True):
        assert same(one, other)


def test_a_gpu_keeps_half_of_its_room(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.zeros(100, 3, 4, 4, dtype=torch.uint8)
    for free, fits in ((8 * 4800, True), (8 * 4800 - 2, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10 * free))
        assert pixels.fits_on_device(images, "cuda") is fits
    assert pixels.fits_on_device(images, "cpu")


def test_epochs_and_seeds_differ(random_images: MakeImages) -> None:
    data = random_images(24)
    first = next(batches_of(data).epoch(0))
    assert same(first, next(batches_of(data).epoch(0)))
    assert not same(first, next(batches_of(data).epoch(1)))
    assert not same(first, next(batches_of(data, seed=1).epoch(0)))


@pytest.mark.parametrize("world_size", [2, 3, 8, 11])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("views", [0, 2])
def test_slices_of_all_ranks_are_the_global_batch(
    random_images: MakeImages, world_size: int, channels_last: bool, views: int
) -> None:
    data = random_images(19)
    augment = ["crop", "flip", "color_jitter", "rand_augment", "cutout"]
    options = {"augment": augment, "channels_last": channels_last, "views": views}
    ranks = [batches_of(data, rank=rank, world_size=world_size, **options) for rank in range(world_size)]
    for whole, *parts in zip(batches_of(data, **options).epoch(1), *(rank.epoch(1) for rank in ranks), strict=True):
        if len(whole.labels) < 2 * world_size:
            assert all(same(whole, part) for part in parts)
            continue
        sizes = [len(part.labels) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert same(whole, joined(parts))


@pytest.mark.parametrize("augment", [[], ["crop"], ["crop", "flip"], ["flip", "trivial_augment"]])
@pytest.mark.parametrize("sampler", ["instance", "class_balanced"])
def test_with_views_an_epoch_shows_the_stored_draws_of_each_sample(
    random_images: MakeImages, augment: list[str], sampler: str
) -> None:
    data = random_images(21, height=8, width=16)
    batches = batches_of(data, augment=augment, seed=4, views=3, sampler=sampler)
    order = epoch_order(sampler, data.labels, 3, 4, 5)
    views = epoch_views(order, 3, 4, 5)
    for step, batch in enumerate(batches.epoch(5)):
        part = slice(step * 8, step * 8 + 8)
        draws = drawn_views(augment, order[part], views[part], 4)
        expected = normalized(augmented(data.images[order[part]], draws), MEAN, STD)
        assert torch.equal(batch.index, order[part])
        assert torch.equal(batch.row, views[part] * 21 + order[part])
        torch.testing.assert_close(batch.inputs, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_every_view_holds_the_very_pixels_that_training_shows(
    random_images: MakeImages, world_size: int, channels_last: bool
) -> None:
    data = random_images(13)
    augment = ["crop", "flip", "trivial_augment", "cutout"]
    options = {"augment": augment, "views": 3, "channels_last": channels_last}
    ranks = [batches_of(data, rank=rank, world_size=world_size, **options) for rank in range(world_size)]
    parts = [part for parts in zip(*(rank.every_view(6) for rank in ranks), strict=True) for part in parts]
    stored = joined([part for part in parts if len(part.labels)])
    assert torch.equal(stored.row, torch.arange(39))
    assert torch.equal(stored.index, torch.arange(39) % 13)
    for epoch in range(4):
        for batch in batches_of(data, **options).epoch(epoch):
            assert torch.equal(stored.inputs[batch.row], batch.inputs)
            assert torch.equal(stored.labels[batch.row], batch.labels)
            assert torch.equal(stored.index[batch.row], batch.index)


def test_views_change_no_order_and_can_be_entered_at_any_step(random_images: MakeImages) -> None:
    data = random_images(21)
    whole = list(batches_of(data, augment=["crop"], views=2).epoch(3))
    live = list(batches_of(data, augment=["crop"]).epoch(3))
    assert all(torch.equal(one.index, other.index) for one, other in zip(whole, live, strict=True))
    assert all(torch.equal(batch.row, batch.index) for batch in live)
    rest = list(batches_of(data, augment=["crop"], views=2).epoch(3, 1))
    assert all(same(one, other) for one, other in zip(whole[1:], rest, strict=True))


@pytest.mark.parametrize("world_size", [1, 2, 5])
@pytest.mark.parametrize("channels_last", [False, True])
def test_evaluation_is_in_order(random_images: MakeImages, world_size: int, channels_last: bool) -> None:
    data = random_images(11)
    options = {"batch_size": 4, "mean": MEAN, "std": STD, "channels_last": channels_last}
    ranks = [list(evaluation_batches(data, rank=rank, world_size=world_size, **options)) for rank in range(world_size)]
    together = [joined(parts) for parts in zip(*ranks, strict=True)]
    assert [len(batch.labels) for batch in together] == [4, 4, 3]
    whole = joined(together)
    assert torch.equal(whole.index, torch.arange(11))
    assert torch.equal(whole.labels, data.labels)
    assert torch.equal(whole.inputs, normalized(data.images, MEAN, STD))
    assert ranks[0][0].inputs.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_yielded_batches_are_the_callers_own(random_images: MakeImages) -> None:
    data = random_images(8)
    for options in ({}, {"augment": ["crop"]}, {"channels_last": True}):
        batches = batches_of(data, **options)
        before = next(batches.epoch(0)).inputs.clone()
        next(batches.epoch(0)).inputs.zero_()
        assert torch.equal(next(batches.epoch(0)).inputs, before)
    next(evaluation_batches(data, batch_size=8, mean=MEAN, std=STD)).inputs.zero_()
    assert data.images.sum() > 0


def test_one_batch_larger_than_the_data(random_images: MakeImages) -> None:
    batches = batches_of(random_images(5), batch_size=64)
    assert batches.steps_per_epoch == 1
    assert len(next(batches.epoch(0)).labels) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size.* 0"),
        ({"sampler": "class_balance"}, "'class_balance'.*'class_balanced'"),
        ({"augment": ["crp"]}, "'crp'.*'crop'"),
        ({"rank": 2, "world_size": 2}, "rank.* 2"),
        ({"views": -1}, "views.* -1"),
        ({"mean": (0.5,), "std": (0.5, 0.5)}, "1 mean.* 2"),
    ],
)
def test_bad_arguments(random_images: MakeImages, options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        batches_of(random_images(5), **options)


def test_bad_arguments_of_evaluation_are_raised_at_once(random_images: MakeImages) -> None:
    with pytest.raises(DataError, match=r"batch_size.* 0"):
        evaluation_batches(random_images(5), batch_size=0, mean=MEAN, std=STD)
    with pytest.raises(DataError, match="no images"):
        evaluation_batches(random_images(5).subset(torch.arange(0)), batch_size=2, mean=MEAN, std=STD)


@pytest.mark.gpu
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("views", [0, 2])
def test_a_gpu_gives_the_same_and_the_host_never_waits(
    random_images: MakeImages, channels_last: bool, views: int
) -> None:
    data = random_images(30, height=32, width=32)
    options = {"augment": ["crop", "flip"], "channels_last": channels_last, "views": views}
    on_cpu = list(batches_of(data, **options).epoch(1))
    epoch = batches_of(data, device="cuda", **options).epoch(1)
    on_gpu = [next(epoch)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        on_gpu += list(epoch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one, other in zip(on_cpu, on_gpu, strict=True):
        assert torch.equal(one.index, other.index.cpu())
        torch.testing.assert_close(one.inputs, other.inputs.cpu())


WORLDS = st.integers(1, 9)


def parts(cut, length, world_size):
    return [list(range(length))[cut(length, rank, world_size)] for rank in range(world_size)]


@given(st.integers(0, 40), WORLDS)
def test_slices_side_by_side_are_the_whole_and_differ_by_one_at_most(length, world_size):
    shares = parts(slice_of_rank, length, world_size)
    assert [row for share in shares for row in share] == list(range(length))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.integers(1, 40), WORLDS)
def test_training_leaves_no_rank_with_fewer_than_two_unless_all_have_the_whole(length, world_size):
    shares = parts(training_slice, length, world_size)
    if length >= 2 * world_size:
        assert shares == parts(slice_of_rank, length, world_size)
        assert min(map(len, shares)) >= 2
    else:
        assert shares == [list(range(length))] * world_size


@given(st.integers(1, 40), WORLDS)
def test_the_shares_make_means_of_slices_the_mean_of_the_whole(length, world_size):
    shares = [training_share(length, rank, world_size) for rank in range(world_size)]
    means = [sum(part) / len(part) for part in parts(training_slice, length, world_size)]
    assert sum(shares) == pytest.approx(1)
    assert sum(s * m for s, m in zip(shares, means, strict=True)) == pytest.approx((length - 1) / 2)


def test_what_is_erased_is_the_mean_color(random_images: MakeImages) -> None:
    data = random_images(16, height=8, width=8)
    [plain, _], [erased, _] = (
        list(batches_of(data, augment=augment).epoch(0)) for augment in (["flip"], ["flip", "cutout"])
    )
    changed = plain.inputs != erased.inputs
    assert 0.05 < changed.float().mean() < 0.3
    assert (erased.inputs[changed] == 0).all()


@pytest.mark.parametrize("channels_last", [False, True])
def test_gray_images_take_every_augmentation(channels_last: bool) -> None:
    images = torch.randint(0, 256, (12, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = LabeledImages(images, torch.arange(12) % 3)
    settings = {"mean": [0.5], "std": [0.25], "channels_last": channels_last}
    for name in AUGMENTATIONS:
        assert all(batch.inputs.isfinite().all() for batch in batches_of(data, augment=[name], **settings).epoch(0))
    [batch, _] = batches_of(data, augment=list(AUGMENTATIONS), **settings).epoch(0)
    assert batch.inputs.shape == (8, 1, 8, 8)
