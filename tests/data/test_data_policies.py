"""Policies: which operation, how often, how strongly; and that draws alone decide."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distail.config.augment import ColorJitter, RandAugment
from distail.data import policies
from distail.data.augment import in_order
from distail.data.operations import OPERATIONS
from distail.data.policies import CIFAR_POLICY, magnitudes, wide_magnitudes
from helpers.augmented import augmented, drawn

POLICIES = ["auto_augment", "rand_augment", "trivial_augment", "color_jitter"]


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, np.ndarray]]:
    """What each call was asked to apply, in place of applying it."""
    seen = []

    def record(images, names, strengths):  # type: ignore[no-untyped-def]
        seen.append((names.copy(), strengths.copy()))
        return images

    monkeypatch.setattr(policies, "apply_operations", record)
    return seen


def run(entry, count: int = 20_000) -> None:  # type: ignore[no-untyped-def]
    draws = drawn([entry], count, seed=3, epoch=1, step=2)
    name = entry if isinstance(entry, str) else entry.name
    in_order([entry])[name].apply(
        torch.zeros(count, 1, 1, 1, dtype=torch.uint8).expand(-1, -1, 32, 32), draws.bits[name]
    )


def test_magnitudes_are_the_published_ones() -> None:
    narrow, wide = magnitudes(32, 64, 31), wide_magnitudes(64, 32)
    assert {name: values[-1] for name, values in narrow.items()} == pytest.approx(
        {
            "shear_x": 0.3,
            "shear_y": 0.3,
            "translate_x": 150 / 331 * 32,
            "translate_y": 150 / 331 * 64,
            "rotate": 30,
            "brightness": 0.9,
            "color": 0.9,
            "contrast": 0.9,
            "sharpness": 0.9,
            "posterize": 4,
            "solarize": 0,
        }
    )
    assert {name: values[-1] for name, values in wide.items()} == pytest.approx(
        {
            **dict.fromkeys(("shear_x", "shear_y", "brightness", "color", "contrast", "sharpness"), 0.99),
            "translate_x": 32,
            "translate_y": 32,
            "rotate": 135,
            "posterize": 2,
            "solarize": 0,
        }
    )
    for table in (narrow, wide):
        assert all(len(values) == 31 for values in table.values())
        assert table["posterize"][0] == 8
        assert table["solarize"][0] == 255
        assert table["rotate"][0] == 0
        assert np.allclose(np.diff(table["rotate"]), table["rotate"][-1] / 30)
    # torchvision: 8 - round(arange(10) / (9 / 4)), halves to even
    assert magnitudes(32, 32, 10)["posterize"].tolist() == [8, 8, 7, 7, 6, 6, 5, 5, 4, 4]


@pytest.mark.parametrize("side", [8, 28, 32])
def test_trivial_augment_leaves_something_of_small_images(side: int) -> None:
    images = torch.full((4000, 1, 1, 1), 200, dtype=torch.uint8).expand(-1, -1, side, side)
    moved = in_order(["trivial_augment"])["trivial_augment"].apply(
        images, drawn(["trivial_augment"], 4000, seed=0, epoch=0, step=0).bits["trivial_augment"]
    )
    black = (moved.flatten(1).amax(1) == 0).float().mean().item()
    assert black < 0.01


def test_trivial_augment_draws_every_operation_and_magnitude_evenly(applied) -> None:  # type: ignore[no-untyped-def]
    run("trivial_augment")
    [(names, strengths)] = applied
    found, counts = np.unique(names, return_counts=True)
    assert set(found) == set(OPERATIONS) - {"invert", "hue"}
    assert np.abs(counts / len(names) - 1 / 14).max() < 0.008
    turns = strengths[names == "rotate"]
    assert set(np.round(np.abs(turns) / 4.5).astype(int)) == set(range(31))
    assert abs((turns > 0).mean() - (turns < 0).mean()) < 0.09
    for name in ("posterize", "solarize"):
        assert strengths[names == name].min() >= 0
    for name in ("autocontrast", "equalize", "identity"):
        assert not strengths[names == name].any()


def test_rand_augment_applies_so_many_at_one_magnitude(applied) -> None:  # type: ignore[no-untyped-def]
    run(RandAugment(num_ops=3, magnitude=12), 3000)
    assert len(applied) == 3
    for names, strengths in applied:
        assert np.abs(strengths[names == "rotate"]) == pytest.approx(12.0)
        assert (strengths[names == "posterize"] == 6).all()  # 8 - round(12 / 7.5)
        assert strengths[names == "solarize"] == pytest.approx(255 * 18 / 30)
    first, second = applied[0][0], applied[1][0]
    assert abs((first == second).mean() - 1 / 14) < 0.02


def test_auto_augment_applies_the_published_pairs_as_often_as_published(applied) -> None:  # type: ignore[no-untyped-def]
    assert len(CIFAR_POLICY) == 25
    run("auto_augment")
    expected = [{}, {}]  # type: ignore[var-annotated]
    for pair in CIFAR_POLICY:
        for place, (name, share, _) in enumerate(pair):
            expected[place][name] = expected[place].get(name, 0) + share / 25
    for (names, strengths), shares in zip(applied, expected, strict=True):
        for name, share in shares.items():
            assert abs((names == name).mean() - share) < 0.012, name
        assert set(names) <= {*shares, "identity"}
        assert {round(abs(one), 6) for one in strengths[names == "rotate"]} <= {round(30 * 2 / 9, 6)}
    second_names, second = applied[1]
    # translate_x occurs second only, at levels 9 and 8.
    assert {round(abs(one), 4) for one in second[second_names == "translate_x"]} == {
        round(150 / 331 * 32 * level / 9, 4) for level in (8, 9)
    }


def test_color_jitter_draws_each_factor_evenly_in_every_order(applied) -> None:  # type: ignore[no-untyped-def]
    run(ColorJitter(brightness=0.2, contrast=0.3, saturation=2.0, hue=0.1))
    assert len(applied) == 4
    orders = np.stack([names for names, _ in applied], axis=1)
    assert len(np.unique(orders, axis=0)) == 24
    for name, low, high in (
        ("brightness", -0.2, 0.2),
        ("contrast", -0.3, 0.3),
        ("color", -1.0, 2.0),
        ("hue", -0.1, 0.1),
    ):
        values = np.concatenate([strengths[names == name] for names, strengths in applied])
        assert len(values) == len(orders)
        assert (low <= values.min(), values.max() <= high) == (True, True)
        assert np.histogram(values, 10, (low, high))[0].min() > 0.08 * len(values)
    applied.clear()
    run(ColorJitter(brightness=0, contrast=0, saturation=0), 10)
    assert not applied


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_slices_apply_as_the_whole_does(name: str, channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (30, channels, 12, 12), dtype=torch.uint8, generator=generator)
    draws = drawn([name], 30, 0, 1, 2)
    whole = augmented(images, draws)
    assert whole.dtype == torch.uint8
    assert not torch.equal(whole, images)
    for part in (slice(0, 11), slice(11, 30), slice(5, 5)):
        assert torch.equal(augmented(images[part], draws[part]), whole[part])
