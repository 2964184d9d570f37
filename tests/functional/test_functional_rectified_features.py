from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from distail.errors import MethodError
from distail.functional import assign_prototypes, balanced_prototypes, cosine_distance, rectify_features
from distail.functional import prototypes as module
from helpers import numpy_oracle as oracle
from helpers.made_batches import quick


def random_rows(seed, rows=5, dim=4):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, dim)))


def summed_cosine(means, prototypes, order):
    return (F.normalize(means, dim=1) * prototypes[order]).sum().item()


@quick
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_the_assignment_is_the_best_of_all(seed, num_classes):
    means, prototypes = random_rows(seed, num_classes), F.normalize(random_rows(seed + 1, num_classes), dim=1)
    order = assign_prototypes(means, prototypes)
    best = max(summed_cosine(means, prototypes, list(other)) for other in itertools.permutations(range(num_classes)))
    assert summed_cosine(means, prototypes, order) == pytest.approx(best)
    assert sorted(order.tolist()) == list(range(num_classes))


@quick
@given(st.integers(0, 10_000))
def test_a_permuted_set_of_prototypes_is_found_again(seed):
    prototypes = F.normalize(random_rows(0, 20, 8), dim=1)
    shuffled = torch.from_numpy(np.random.default_rng(seed).permutation(20))
    assert torch.equal(assign_prototypes(3.7 * prototypes[shuffled], prototypes), shuffled)


def test_only_the_direction_of_a_mean_counts():
    means, prototypes = random_rows(3, 6), balanced_prototypes(6, 4)
    scaled = means * torch.tensor([[1e-6], [1e6], [1], [2], [3], [4]])
    assert torch.equal(assign_prototypes(means, prototypes), assign_prototypes(scaled, prototypes))


def test_above_the_limit_classes_choose_in_order_and_each_prototype_is_used_once(monkeypatch):
    monkeypatch.setattr(module, "EXACT_UP_TO", 5)
    monkeypatch.setattr(module, "ROWS", 4)
    means, prototypes = random_rows(1, 11), balanced_prototypes(11, 4)
    order = assign_prototypes(means, prototypes)
    left, expected = list(range(11)), []
    for mean in F.normalize(means, dim=1):
        best = max(left, key=lambda index: float(prototypes[index] @ mean))
        left.remove(best)
        expected.append(best)
    assert order.tolist() == expected


def test_greedy_also_finds_a_permutation_again(monkeypatch):
    monkeypatch.setattr(module, "EXACT_UP_TO", 5)
    prototypes = balanced_prototypes(20, 8)
    shuffled = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    assert torch.equal(assign_prototypes(prototypes[shuffled], prototypes), shuffled)


@quick
@given(st.integers(0, 10_000), st.floats(0.0, 5.0))
def test_the_distance_is_that_of_the_definition(seed, strength):
    student, teacher = random_rows(seed), random_rows(seed + 1)
    priors = F.normalize(random_rows(seed + 2), dim=1)
    losses = cosine_distance(student, rectify_features(teacher, priors, strength))
    expected = oracle.rectified_feature_distance(student.numpy(), teacher.numpy(), priors.numpy(), strength)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-9, atol=1e-12)
    assert ((losses >= -1e-12) & (losses <= 2 + 1e-12)).all()


def test_strength_zero_is_the_teacher_and_a_huge_one_the_prior():
    teacher, priors = random_rows(0), balanced_prototypes(5, 4)
    torch.testing.assert_close(rectify_features(teacher, priors, 0.0), F.normalize(teacher, dim=1))
    torch.testing.assert_close(rectify_features(teacher, priors, 1e9), priors)


def test_features_of_zeros_are_finite():
    """Dead features happen after a ReLU."""
    student = torch.zeros(2, 4, requires_grad=True)
    losses = cosine_distance(student, rectify_features(torch.zeros(2, 4), torch.zeros(2, 4)))
    losses.sum().backward()
    assert torch.equal(losses, torch.ones(2))
    assert torch.isfinite(student.grad).all()


def test_gradcheck_precision_and_no_gradient_for_the_teacher():
    student, teacher, priors = random_rows(0).requires_grad_(), random_rows(1).requires_grad_(), random_rows(2)
    direction = rectify_features(teacher, priors)
    assert not direction.requires_grad
    assert torch.autograd.gradcheck(lambda f: cosine_distance(f, direction), student)
    assert rectify_features(teacher.to(torch.bfloat16), priors).dtype == torch.float32
    assert rectify_features(teacher, priors.float()).dtype == torch.float64


def test_shapes_that_differ_are_refused():
    with pytest.raises(MethodError, match="class means"):
        assign_prototypes(torch.zeros(3, 4), torch.zeros(3, 5))
    with pytest.raises(MethodError, match="priors"):
        rectify_features(torch.zeros(3, 4), torch.zeros(3, 5))
