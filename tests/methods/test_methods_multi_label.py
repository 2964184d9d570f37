"""Methods on samples of several classes: what they compute, and what they refuse.

Shapes: B batch, C classes.
"""

from __future__ import annotations

import pytest
import torch

from distail import Outputs, create_method, list_methods
from distail.errors import MethodError
from distail.functional import (
    asymmetric_loss,
    binary_cross_entropy,
    class_log_odds,
    sigmoid_divergence,
)
from distail.methods.presets import read_composition
from helpers import multi_label_oracle as oracle

COUNTS, SAMPLES = [60, 20, 4], 100
TAKEN = {"ce", "kd", "bkd", "dive", "distail"}


def made(seed: int = 0, batch_size: int = 6):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(batch_size, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    return Outputs(student), Outputs(teacher), torch.rand(batch_size, 3, generator=generator) > 0.6


def method_of(composition, **parameters):
    return create_method(composition, class_counts=COUNTS, samples=SAMPLES, **parameters)


def test_kd_is_its_counterpart_class_by_class():
    student, teacher, target_BC = made()
    terms = method_of("kd")(student, teacher, target_BC)
    torch.testing.assert_close(terms["supervised"], 0.1 * binary_cross_entropy(student.logits, target_BC).mean())
    expected_B = sigmoid_divergence(student.logits, teacher.logits, 4.0)
    torch.testing.assert_close(terms["distillation"], 0.9 * expected_B.mean())
    assert terms.per_sample.shape == (6,)


def test_slots_left_out_are_those_of_several_classes():
    student, teacher, target_BC = made()
    free, written = (
        method_of(composition)(student, teacher, target_BC).total
        for composition in ({}, {"supervised": "bce", "divergence": "sigmoid", "temperature": 4.0})
    )
    torch.testing.assert_close(free, written)


@pytest.mark.parametrize("side", ["teacher", "student"])
def test_debias_takes_the_log_odds(side):
    student, teacher, target_BC = made()
    odds_C = torch.tensor(oracle.log_odds(COUNTS, SAMPLES), dtype=torch.float64)
    composition = {"targets": [{"name": "debias", "tau": 0.5, "side": side}], "temperature": 2.0}
    terms = method_of(composition)(student, teacher, target_BC)
    pair = (student.logits, teacher.logits - 0.5 * odds_C)
    if side == "student":
        pair = (student.logits + 0.5 * odds_C, teacher.logits)
    expected = oracle.divergence(*(logits.numpy() for logits in pair), 2.0).mean()
    assert terms["distillation"].item() == pytest.approx(expected)


def test_debias_with_tau_0_changes_nothing():
    student, teacher, target_BC = made()
    plain, debiased = (
        method_of({"targets": targets})(student, teacher, target_BC).total
        for targets in ([], [{"name": "debias", "tau": 0}])
    )
    torch.testing.assert_close(plain, debiased)


def test_bce_with_tau_is_bce_of_logits_with_the_log_odds():
    student, _, target_BC = made()
    odds_C = class_log_odds(COUNTS, SAMPLES)
    terms = method_of({"supervised": {"name": "bce", "tau": 1}, "divergence": None})(student, None, target_BC)
    torch.testing.assert_close(terms.total, binary_cross_entropy(student.logits + odds_C, target_BC).mean())


def test_the_other_supervised_terms():
    student, _, target_BC = made()
    terms = method_of({"supervised": "asymmetric", "divergence": None})(student, None, target_BC)
    torch.testing.assert_close(terms.total, asymmetric_loss(student.logits, target_BC).mean())
    balanced = method_of({"supervised": "distribution_balanced", "divergence": None})
    expected = oracle.distribution_balanced(
        student.logits.numpy(), target_BC.numpy(), COUNTS, SAMPLES, (0.1, 10.0, 0.2), 2.0, 0.05, 2.0, 2.0
    )
    assert balanced(student, None, target_BC).total.item() == pytest.approx(expected.mean())
    off = {"rebalance": False, "neg_scale": 1.0, "bias": 0.0, "gamma": 0.0, "balance": 1.0}
    plain = method_of({"supervised": {"name": "distribution_balanced", **off}, "divergence": None})
    bce = binary_cross_entropy(student.logits, target_BC).mean()
    torch.testing.assert_close(plain(student, None, target_BC).total, bce)


@pytest.mark.parametrize("name", list_methods())
def test_which_published_methods_there_are(name):
    if name not in TAKEN:
        with pytest.raises(MethodError, match="single-label"):
            method_of(name, student_dim=4, teacher_dim=4)
        return
    student, teacher, target_BC = made()
    student.logits.requires_grad_()
    method = method_of(name)
    terms = method(student, teacher if method.needs.teacher else None, target_BC)
    terms.total.backward()
    assert bool(student.logits.grad.isfinite().all())
    assert read_composition({"name": name, "labels": "multi_label"}).terms == tuple(terms)


@pytest.mark.parametrize(
    ("composition", "culprit", "expected"),
    [
        ({"supervised": "ce"}, "ce", "'bce'"),
        ({"supervised": "focal"}, "focal", "asymmetric, bce, distribution_balanced"),
        ({"divergence": "kl"}, "kl", "'sigmoid'"),
        ({"targets": ["debias", "swap"]}, "swap", "debias, power, reweigh"),
        ({"teacher": "previous_epoch"}, "previous_epoch", "none"),
    ],
)
def test_entries_for_one_class_are_refused_by_name(composition, culprit, expected):
    for build in (method_of, lambda one: read_composition({**one, "labels": "multi_label"})):
        with pytest.raises(MethodError, match=f"{culprit}.*{expected}"):
            build(composition)


@pytest.mark.parametrize(("supervised", "expected"), [("bce", "'ce'"), ("asymmetric", "focal")])
def test_entries_for_several_classes_are_refused_where_there_is_one(supervised, expected):
    with pytest.raises(MethodError, match=f"{supervised}.*for multi-label data.*{expected}"):
        create_method({"supervised": supervised}, class_counts=COUNTS)


def test_every_wrong_entry_is_told_at_once():
    with pytest.raises(MethodError, match=r"(?s)focal.*swap.*correlation"):
        method_of({"supervised": "focal", "targets": ["swap"], "divergence": "correlation"})


def test_labels_of_another_kind_are_refused():
    student, teacher, target_BC = made()
    with pytest.raises(MethodError, match=r"int64.*\(6,\).*\(6, 3\)"):
        method_of("kd")(student, teacher, target_BC.long().argmax(1))
    with pytest.raises(MethodError, match=r"\(6, 3\)"):
        create_method("kd", class_counts=COUNTS)(student, teacher, target_BC)


@pytest.mark.parametrize(
    ("composition", "expected"),
    [
        ({"name": "kd"}, "natural"),
        ({"name": "distail"}, "balanced"),
        ({"targets": ["debias"]}, "mixed"),
        ({"supervised": {"name": "bce", "tau": 1}, "targets": ["debias"]}, "balanced"),
    ],
)
def test_the_posterior_is_one_as_with_one_class(composition, expected):
    found = read_composition({**composition, "labels": "multi_label"})
    assert found.posterior == expected
    warning = found.posterior_warning("natural")
    assert (warning is not None) == (expected == "mixed")
    assert warning is None or "name: bce, tau: 1" in warning


def test_the_minimum_of_debiased_training_lies_at_the_balanced_logits():
    """A network that sees nothing learns, in place of the log odds, nothing."""
    target_BC = torch.arange(SAMPLES)[:, None] < torch.tensor(COUNTS)
    logits_C = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    method = method_of({"supervised": {"name": "bce", "tau": 1}, "divergence": None})
    for tau, expected_C in ((1.0, torch.zeros(3)), (0.0, class_log_odds(COUNTS, SAMPLES))):
        method.supervised.tau = tau
        logits_C.data = expected_C.double().clone()
        (gradient,) = torch.autograd.grad(method(Outputs(logits_C.expand(SAMPLES, 3)), None, target_BC).total, logits_C)
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)
