from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distail.errors import MethodError
from distail.functional import class_thirds, grouped_divergence, kl_divergence
from distail.functional.divergences import order_by_group
from helpers import numpy_oracle as oracle
from helpers.made_batches import batches, made_batch, quick


@quick
@given(st.lists(st.integers(1, 20), min_size=2, max_size=40))
def test_thirds_hold_every_class_once_and_fall_in_count(counts):
    thirds = class_thirds(counts)
    assert [list(group) for group in thirds] == oracle.thirds(counts)
    assert sorted(index for group in thirds for index in group) == list(range(len(counts)))


@pytest.mark.parametrize(("classes", "sizes"), [(100, [33, 34, 33]), (10, [3, 4, 3]), (2, [1, 0, 1]), (3, [1, 1, 1])])
def test_thirds_of_the_usual_sizes(classes, sizes):
    assert [len(group) for group in class_thirds(range(classes, 0, -1))] == sizes


def test_ties_go_by_index():
    assert class_thirds([5] * 6) == ((0, 1), (2, 3), (4, 5))


@quick
@given(batches)
def test_cross_and_within_are_those_of_the_definition(batch):
    groups = class_thirds(batch.counts)
    cross, within = grouped_divergence(batch.student, batch.teacher, groups, batch.temperature)
    expected = oracle.grouped(
        batch.student.numpy(), batch.teacher.numpy(), [list(group) for group in groups], batch.temperature
    )
    np.testing.assert_allclose(cross.numpy(), expected[0], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(within.numpy(), expected[1], rtol=1e-6, atol=1e-9)


@quick
@given(batches)
def test_unweighted_they_are_the_whole_divergence(batch):
    groups = [list(group) for group in class_thirds(batch.counts)]
    _, _, cross, within = oracle.grouped(batch.student.numpy(), batch.teacher.numpy(), groups, batch.temperature)
    whole = kl_divergence(batch.student, torch.softmax(batch.teacher / batch.temperature, dim=1), batch.temperature)
    np.testing.assert_allclose((cross + within) * batch.temperature**2, whole.numpy(), rtol=1e-7, atol=1e-9)


def test_one_group_has_no_cross_term_and_classes_alone_have_no_within_term():
    batch = made_batch(0)
    cross, within = grouped_divergence(batch.student, batch.teacher, [range(7)], 2.0)
    torch.testing.assert_close(cross, torch.zeros_like(cross))
    torch.testing.assert_close(4 * within, kl_divergence(batch.student, torch.softmax(batch.teacher / 2, dim=1), 2.0))
    _, within = grouped_divergence(batch.student, batch.teacher, [[index] for index in range(7)], 2.0)
    torch.testing.assert_close(within, torch.zeros_like(within))


def test_groups_that_had_equal_totals_stay_as_they_are():
    """Then the cross term is the plain divergence of the group masses."""
    masses = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
    cross, _ = grouped_divergence(torch.zeros(2, 2, dtype=torch.float64), masses.log(), [[0], [1]], temperature=1.0)
    torch.testing.assert_close(cross, kl_divergence(torch.zeros_like(masses), masses, temperature=1.0))


def test_a_favored_group_loses():
    """The cross term is least for a student that gives it less than the teacher does."""
    masses = torch.tensor([[0.7, 0.2, 0.1], [0.8, 0.1, 0.1]], dtype=torch.float64)
    balanced = masses / masses.sum(dim=0)
    balanced = balanced / balanced.sum(dim=1, keepdim=True)
    assert (balanced[:, 0] < masses[:, 0]).all()
    of_balanced, of_teacher = (
        grouped_divergence(student.log(), masses.log(), [[0], [1], [2]], temperature=1.0)[0]
        for student in (balanced, masses)
    )
    torch.testing.assert_close(of_balanced, torch.zeros(2, dtype=torch.float64))
    assert (of_teacher > 0.1).all()


def test_reduce_gives_the_totals_of_the_global_batch():
    batch = made_batch(1, batch_size=8)
    groups = class_thirds(batch.counts)
    whole, _ = grouped_divergence(batch.student, batch.teacher, groups, 2.0)
    parts = [(batch.student[rows], batch.teacher[rows]) for rows in (slice(0, 3), slice(3, 8))]
    totals = []
    for student, teacher in parts:
        grouped_divergence(student, teacher, groups, 2.0, reduce=lambda own: (totals.append(own), own)[1])
    cross = [grouped_divergence(*part, groups, 2.0, reduce=lambda _: sum(totals))[0] for part in parts]
    torch.testing.assert_close(torch.cat(cross), whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saturated_logits_are_finite_in_value_and_gradient(dtype):
    rows = [[1e4, 0, 0, -1e4], [-1e4, -1e4, 1e4, 1e4], [0, 0, 0, 0]]
    student = torch.tensor(rows, dtype=dtype, requires_grad=True)
    teacher = torch.tensor(rows[1:] + rows[:1], dtype=dtype)
    for groups in ([[0, 1], [2, 3]], [[0], [1, 2, 3]], [[0], [1], [2], [3]]):
        cross, within = grouped_divergence(student, teacher, groups, 1.0)
        (gradient,) = torch.autograd.grad((cross + within).sum(), student)
        assert torch.isfinite(cross).all()
        assert torch.isfinite(within).all()
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("gap", [50.0, 100.0, 400.0])
def test_a_single_saturated_row_is_balanced_too(gap):
    """One row's totals are its own masses: rebalanced, every group has the same, however small it was."""
    teacher = torch.tensor([[gap, 0.0, 0.0]])
    cross, _ = grouped_divergence(torch.zeros(1, 3), teacher, [[0], [1], [2]], temperature=1.0)
    torch.testing.assert_close(cross, torch.zeros(1), atol=1e-5, rtol=0)


def test_a_group_that_no_teacher_row_believes_in_is_finite():
    """Its batch total underflows to zero in float32."""
    teacher = torch.tensor([[1e4, 0.0], [1e4, 0.0]])
    cross, _ = grouped_divergence(torch.zeros(2, 2), teacher, [[0], [1]], 1.0)
    torch.testing.assert_close(cross, torch.full((2,), 0.693147))


def test_gradcheck_and_no_gradient_for_the_teacher():
    batch = made_batch(2, batch_size=3, num_classes=5)
    groups, teacher = class_thirds(batch.counts), batch.teacher.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: torch.stack(grouped_divergence(z, teacher.detach(), groups, 2.0)), batch.student.requires_grad_()
    )
    torch.stack(grouped_divergence(batch.student, teacher, groups, 2.0)).sum().backward()
    assert teacher.grad is None


@pytest.mark.parametrize("groups", [[[0, 1]], [[0, 1], [1, 2]], [[0, 1, 2, 3]], [[]]])
def test_groups_that_are_no_partition_are_refused(groups):
    with pytest.raises(MethodError, match="each of 0 to 2 exactly once"):
        grouped_divergence(torch.zeros(2, 3), torch.zeros(2, 3), groups, 1.0)


def test_a_known_order_of_the_classes_changes_nothing():
    batch = made_batch(0)
    groups = class_thirds(batch.counts)
    known = grouped_divergence(batch.student, batch.teacher, groups, 2.0, order=order_by_group(groups, 7))
    assert all(map(torch.equal, known, grouped_divergence(batch.student, batch.teacher, groups, 2.0)))
