from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distail.errors import MethodError
from distail.functional import balanced_prototypes, prototypes, uniformity_energy
from helpers.made_batches import quick


def cosines(rows):
    gram = rows @ rows.T
    return gram[~torch.eye(len(rows), dtype=torch.bool)]


@quick
@given(st.integers(2, 40), st.integers(0, 30), st.integers(0, 5))
def test_with_room_they_are_the_simplex_frame(num_classes, extra, seed):
    rows = balanced_prototypes(num_classes, num_classes - 1 + extra, seed)
    assert rows.shape == (num_classes, num_classes - 1 + extra)
    assert rows.dtype == torch.float64
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(num_classes, dtype=torch.float64))
    expected = torch.full((num_classes * (num_classes - 1),), -1 / (num_classes - 1), dtype=torch.float64)
    torch.testing.assert_close(cosines(rows), expected, rtol=0, atol=1e-12)
    assert rows.sum(dim=0).abs().max() < 1e-11


@pytest.mark.parametrize(("num_classes", "dim"), [(10, 3), (100, 64), (50, 2), (300, 16)])
def test_without_room_they_are_unit_rows_more_even_than_chance(num_classes, dim):
    rows = balanced_prototypes(num_classes, dim)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(num_classes, dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        chance = torch.randn(num_classes, dim, dtype=torch.float64, generator=generator)
        chance /= chance.norm(dim=1, keepdim=True)
        assert uniformity_energy(rows) <= uniformity_energy(chance) + 1e-12
    assert rows.mean(dim=0).norm() < 1e-2


@quick
@given(st.integers(3, 60), st.integers(0, 5))
def test_on_a_line_half_of_the_classes_point_each_way(num_classes, seed):
    rows = balanced_prototypes(num_classes, 1, seed)
    assert rows.shape == (num_classes, 1)
    assert rows.dtype == torch.float64
    assert set(rows.flatten().tolist()) == {-1.0, 1.0}
    assert rows.sum().item() == num_classes % 2


def test_twelve_directions_in_space_are_the_icosahedron():
    allowed = torch.tensor([-1.0, -1 / math.sqrt(5), 1 / math.sqrt(5)], dtype=torch.float64)
    off = (cosines(balanced_prototypes(12, 3))[:, None] - allowed).abs().min(dim=1).values
    assert off.max() < 1e-5


def test_directions_in_the_plane_are_a_regular_polygon():
    angles = torch.atan2(*balanced_prototypes(9, 2).T).sort().values
    torch.testing.assert_close(angles.diff(), torch.full((8,), 2 * math.pi / 9, dtype=torch.float64), rtol=1e-4, atol=0)


def test_a_hundred_classes_in_64_dimensions_are_nearly_orthogonal_at_worst():
    assert cosines(balanced_prototypes(100, 64)).max() < 0.02


def test_energy_is_the_mean_over_pairs():
    rows = balanced_prototypes(6, 3, seed=1)
    pairs = [math.exp(-2 * (rows[i] - rows[j]).square().sum()) for i in range(6) for j in range(6) if i != j]
    assert uniformity_energy(rows).item() == pytest.approx(math.log(sum(pairs) / len(pairs)))


@pytest.mark.parametrize("sharpness", [0.5, 2.0, 3.0])
def test_the_push_is_the_gradient_of_the_energy_along_the_sphere(sharpness):
    rows = balanced_prototypes(8, 5, seed=2) @ torch.diag(torch.tensor([1.0, 2, 1, 1, 3], dtype=torch.float64))
    rows = (rows / rows.norm(dim=1, keepdim=True)).requires_grad_()
    distances = (rows[:, None] - rows[None]).square().sum(dim=2)
    energy = torch.exp(-sharpness * distances)[~torch.eye(8, dtype=torch.bool)].mean().log()
    (gradient,) = torch.autograd.grad(energy, rows)
    along = gradient - (gradient * rows).sum(dim=1, keepdim=True) * rows
    push = prototypes._energy_and_push(rows.detach(), sharpness)[1]
    torch.testing.assert_close(along, 4 * sharpness / 8 * push)


@pytest.mark.parametrize(("num_classes", "dim"), [(10, 3), (10, 20), (10, 1)])
def test_the_same_seed_gives_the_same_and_another_seed_others(num_classes, dim):
    first = balanced_prototypes(num_classes, dim, seed=3)
    torch.manual_seed(1)
    assert torch.equal(first, balanced_prototypes(num_classes, dim, seed=3))
    assert not torch.allclose(first, balanced_prototypes(num_classes, dim, seed=4))


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    balanced_prototypes(10, 3)
    balanced_prototypes(10, 20)
    assert torch.equal(before, torch.get_rng_state())


def test_blocks_of_rows_change_nothing(monkeypatch):
    whole = balanced_prototypes(30, 4)
    monkeypatch.setattr(prototypes, "ROWS", 7)
    torch.testing.assert_close(balanced_prototypes(30, 4), whole, rtol=1e-6, atol=1e-6)


def test_no_array_of_classes_by_classes_exists(monkeypatch):
    sizes = []
    true_exp = torch.exp
    monkeypatch.setattr(torch, "exp", lambda tensor: (sizes.append(tensor.numel()), true_exp(tensor))[1])
    monkeypatch.setattr(prototypes, "WORK", 2 * 1000**2 * 2)
    monkeypatch.setattr(prototypes, "ROWS", 64)
    assert balanced_prototypes(1000, 2).shape == (1000, 2)
    assert max(sizes) == 64 * 1000


def test_a_hundred_thousand_classes_are_not_waited_for():
    prototypes = balanced_prototypes(100_000, 64)
    assert prototypes.shape == (100_000, 64)
    torch.testing.assert_close(prototypes.norm(dim=1), torch.ones(100_000, dtype=torch.float64))
    assert prototypes.mean(dim=0).norm() < 0.01


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((1, 3), "num_classes is 1; expected a whole number of at least 2"),
        ((0, 3), "num_classes is 0"),
        ((3.0, 2), "num_classes is 3.0"),
        ((3, 0), "dim is 0; expected a whole number of at least 1"),
        ((3, -1), "dim is -1"),
        ((3, 2, 1.5), "seed is 1.5; expected a whole number of at least 0"),
        ((3, 2, -1), "seed is -1"),
    ],
)
def test_sizes_that_are_none_are_refused(sizes, said):
    with pytest.raises(MethodError, match=said):
        balanced_prototypes(*sizes)
