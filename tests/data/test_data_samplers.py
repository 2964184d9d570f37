from __future__ import annotations

import numpy as np
import pytest
import torch

from distail.data.samplers import SAMPLERS, epoch_order, epoch_views
from distail.errors import DataError

COUNTS = np.array([400, 90, 10, 1])
LABELS = torch.from_numpy(np.repeat(np.arange(4), COUNTS))


def test_instance_shows_every_image_once() -> None:
    order = epoch_order("instance", LABELS, 4, seed=0, epoch=0)
    assert order.dtype == torch.int64
    assert torch.equal(order.sort().values, torch.arange(len(LABELS)))


@pytest.mark.parametrize(("sampler", "exponent"), [("class_balanced", 0.0), ("square_root", 0.5)])
def test_class_frequencies_follow_the_rule(sampler: str, exponent: float) -> None:
    drawn = torch.cat([epoch_order(sampler, LABELS, 4, seed=1, epoch=epoch) for epoch in range(60)])
    seen = np.bincount(LABELS[drawn].numpy(), minlength=4)
    expected = COUNTS**exponent / (COUNTS**exponent).sum() * len(drawn)
    assert len(drawn) == 60 * len(LABELS)
    assert ((seen - expected) ** 2 / expected).sum() < 18  # chi-square with 3 degrees of freedom: 0.9996


def test_images_of_a_class_are_equally_likely() -> None:
    drawn = torch.cat([epoch_order("class_balanced", LABELS, 4, seed=2, epoch=epoch) for epoch in range(60)])
    within = np.bincount(drawn.numpy(), minlength=len(LABELS))[490:500]
    expected = within.sum() / 10
    assert ((within - expected) ** 2 / expected).sum() < 33  # 9 degrees of freedom: 0.9999


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_order_is_a_pure_function(sampler: str) -> None:
    one = epoch_order(sampler, LABELS, 4, seed=3, epoch=7)
    assert torch.equal(one, epoch_order(sampler, LABELS, 4, seed=3, epoch=7))
    assert not torch.equal(one, epoch_order(sampler, LABELS, 4, seed=3, epoch=8))
    assert not torch.equal(one, epoch_order(sampler, LABELS, 4, seed=4, epoch=7))


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_class_without_images_is_never_drawn(sampler: str) -> None:
    order = epoch_order(sampler, torch.tensor([0, 2, 2]), 3, seed=0, epoch=0)
    assert len(order) == 3
    assert set(order.tolist()) <= {0, 1, 2}


def test_unknown_samplers_name_the_nearest() -> None:
    with pytest.raises(DataError, match=r"'squareroot'.*'square_root'"):
        epoch_order("squareroot", LABELS, 4, seed=0, epoch=0)


@pytest.mark.parametrize("views", [1, 2, 3, 8])
@pytest.mark.parametrize("start", [0, 5])
def test_as_many_epochs_as_views_show_every_sample_each_of_its_views_once(views: int, start: int) -> None:
    seen = np.zeros((len(LABELS), views), dtype=np.int64)
    for epoch in range(start, start + views):
        order = epoch_order("instance", LABELS, 4, seed=3, epoch=epoch)
        shown = epoch_views(order, views, seed=3, epoch=epoch)
        assert shown.dtype == torch.int64
        np.add.at(seen, (order.numpy(), shown.numpy()), 1)
    assert (seen == 1).all()


def test_views_begin_anywhere_so_that_each_epoch_shows_all_of_them_alike() -> None:
    order = torch.arange(4000)
    seen = np.bincount(epoch_views(order, 4, seed=0, epoch=9).numpy(), minlength=4)
    assert ((seen - 1000) ** 2 / 1000).sum() < 18  # chi-square with 3 degrees of freedom: 0.9996
    assert not torch.equal(epoch_views(order, 4, seed=0, epoch=9), epoch_views(order, 4, seed=1, epoch=9))


def test_a_sample_drawn_again_in_one_epoch_shows_its_next_view() -> None:
    order = torch.tensor([7, 3, 7, 7, 3, 7])
    views = epoch_views(order, 3, seed=0, epoch=2).tolist()
    first_of_7, first_of_3 = views[0], views[1]
    expected = [first_of_7, first_of_3, first_of_7 + 1, first_of_7 + 2, first_of_3 + 1, first_of_7 + 3]
    assert views == [view % 3 for view in expected]
    assert views[0] == epoch_views(torch.tensor([7]), 3, seed=0, epoch=2).item()
