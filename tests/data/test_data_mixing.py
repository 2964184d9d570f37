"""CutMix and mixup against loops over images; shares, places, ranks and resumption."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from distail.config.training import Mix
from distail.data.batches import Batch, TrainingBatches
from distail.data.dataset import LabeledImages
from distail.data.mixing import part_of, plan_mix
from distail.errors import DataError

MakeImages = Callable[..., LabeledImages]


def batches_of(data: LabeledImages, mix: Mix | None, **options: object) -> TrainingBatches:
    settings = {"batch_size": 8, "mean": [0.5] * 3, "std": [0.25] * 3, "num_classes": 3, "seed": 0, **options}
    return TrainingBatches(data, mix=mix, **settings)  # type: ignore[arg-type]


def same(one: Batch, other: Batch) -> bool:
    flat = [[*batch[:3], *(batch.mixed or ())] for batch in (one, other)]
    return len(flat[0]) == len(flat[1]) and all(torch.equal(a, b) for a, b in zip(*flat, strict=True))


@pytest.mark.parametrize("name", ["cutmix", "mixup"])
@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("channels_last", [False, True])
def test_images_and_labels_are_mixed_as_planned(
    random_images: MakeImages, name: str, share: float, channels_last: bool
) -> None:
    data, mix = random_images(24, height=12, width=16), Mix(name=name, share=share)
    options = {"augment": ["crop", "flip", "trivial_augment"], "channels_last": channels_last}
    plain, mixed = (batches_of(data, each, **options).epoch(2) for each in (None, mix))
    for step, (before, after) in enumerate(zip(plain, mixed, strict=True)):
        assert after.mixed is not None
        plan = plan_mix(mix, 8, 12, 16, 0, 2, step)
        images, labels, own = before.inputs.clone(), before.labels.clone(), torch.ones(8)
        assert len(set(plan.rows.tolist())) == len(plan.rows) == round(8 * share)
        for row, partner in zip(plan.rows.tolist(), plan.partners.tolist(), strict=True):
            assert row != partner
            labels[row], own[row] = before.labels[partner], plan.own
            if plan.box is None:
                images[row] = plan.own * before.inputs[row] + (1 - plan.own) * before.inputs[partner]
            else:
                top, left, bottom, right = plan.box
                images[row, :, top:bottom, left:right] = before.inputs[partner, :, top:bottom, left:right]
        torch.testing.assert_close(after.inputs, images, rtol=0, atol=1e-6)
        assert torch.equal(after.labels, before.labels)
        assert torch.equal(after.mixed.labels, labels)
        torch.testing.assert_close(after.mixed.own, own)
        assert after.inputs.is_contiguous(memory_format=torch.channels_last) == channels_last


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    shares = np.array([plan_mix(Mix(name="mixup", alpha=alpha), 4, 8, 8, 0, 0, step).own for step in range(4000)])
    assert abs(shares.mean() - 0.5) < 0.03
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)


def test_the_box_is_the_share_that_is_pasted() -> None:
    plans = [plan_mix(Mix(name="cutmix"), 4, 32, 24, 0, 0, step) for step in range(2000)]
    pasted = np.zeros((32, 24))
    for plan in plans:
        assert plan.box is not None
        top, left, bottom, right = plan.box
        assert (0 <= top <= bottom <= 32, 0 <= left <= right <= 24) == (True, True)
        assert plan.own == pytest.approx(1 - (bottom - top) * (right - left) / (32 * 24))
        pasted[top:bottom, left:right] += 1
    assert pasted.min() > 0.1 * len(plans)
    assert 0.5 < np.mean([plan.own for plan in plans]) < 0.7  # boxes are cut off at the border


def test_every_image_is_mixed_as_often_and_with_every_other() -> None:
    mixed, pairs = np.zeros(6), np.zeros((6, 6))
    for step in range(3000):
        plan = plan_mix(Mix(name="mixup", share=0.5), 6, 8, 8, 0, 0, step)
        mixed[plan.rows] += 1
        pairs[plan.rows, plan.partners] += 1
    assert np.abs(mixed / 3000 - 0.5).max() < 0.03
    assert np.diag(pairs).max() == 0
    assert pairs[~np.eye(6, dtype=bool)].min() > 0.7 * 1500 / 5


@pytest.mark.parametrize("name", ["cutmix", "mixup"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_side_by_side_are_the_whole(random_images: MakeImages, name: str, world_size: int) -> None:
    data, mix = random_images(21), Mix(name=name, share=0.7)
    options = {"augment": ["crop", "rand_augment", "cutout"], "channels_last": True}
    whole = list(batches_of(data, mix, **options).epoch(1))
    ranks = [
        list(batches_of(data, mix, rank=rank, world_size=world_size, **options).epoch(1)) for rank in range(world_size)
    ]
    for step, batch in enumerate(whole):
        parts = [rank[step] for rank in ranks]
        if len(batch.labels) < 2 * world_size:  # goes whole to every rank
            assert all(same(part, batch) for part in parts)
            continue
        together = [torch.cat(tensors) for tensors in zip(*([*part[:3], *part.mixed] for part in parts), strict=True)]
        assert all(torch.equal(a, b) for a, b in zip(together, [*batch[:3], *batch.mixed], strict=True))


def test_a_rank_looks_up_no_image_in_vain() -> None:
    plan = plan_mix(Mix(name="cutmix", share=0.5), 64, 8, 8, 0, 0, 0)
    assert part_of(plan, 64, slice(0, 64))[1].tolist() == list(range(64))
    part, places = part_of(plan, 64, slice(16, 32))
    assert len(set(places.tolist())) == len(places) <= 16 + len(part.rows)


def test_an_epoch_can_be_entered_at_any_step(random_images: MakeImages) -> None:
    data, mix = random_images(30), Mix(name="cutmix", share=0.5)
    whole = list(batches_of(data, mix, augment=["crop"]).epoch(5))
    for first in range(len(whole) + 1):
        rest = list(batches_of(data, mix, augment=["crop"]).epoch(5, first))
        assert all(same(one, other) for one, other in zip(whole[first:], rest, strict=True))


def test_a_share_of_nothing_is_no_mix(random_images: MakeImages) -> None:
    data = random_images(21)
    plain, mixed = (batches_of(data, mix, augment=["crop"]).epoch(0) for mix in (None, Mix(name="mixup", share=0)))
    for one, other in zip(plain, mixed, strict=True):
        assert other.mixed is None
        assert same(one, other)


def test_stored_views_are_not_mixed(random_images: MakeImages) -> None:
    with pytest.raises(DataError, match=r"views is 2.*mixed"):
        batches_of(random_images(8), Mix(name="mixup"), views=2)


def test_a_single_image_has_no_partner(random_images: MakeImages) -> None:
    [batch] = batches_of(random_images(1), Mix(name="mixup", share=1)).epoch(0)
    assert batch.mixed is not None
    assert batch.mixed.own.tolist() == [1.0]
