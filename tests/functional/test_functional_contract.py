"""The public interface of design.md: names, signatures, shapes."""

from __future__ import annotations

import inspect

import pytest
import torch

import distail

SIGNATURES = {
    "swap_rectify": "(teacher_logits, target)",
    "effective_number_weights": "(class_counts, beta=0.9999)",
    "reweigh_targets": "(teacher_logits, weights, temperature)",
    "inverse_propensity": "(kd_logits, cls_logits, target, ratio='kd_over_cls', max_weight=10.0, normalize=True)",
    "balanced_prototypes": "(num_classes, dim, seed=0)",
    "kl_divergence": "(student_logits, target_probs, temperature)",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_the_contract(name):
    signature = inspect.signature(getattr(distail.functional, name))
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
        # what grows is given by keyword, and may be left out
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or parameter.default is inspect.Parameter.empty
    ]
    assert str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)) == SIGNATURES[name]


def test_every_public_name_exists_and_says_what_it_does():
    for name in distail.functional.__all__:
        assert (getattr(distail.functional, name).__doc__ or "").strip()


def test_shapes_of_the_contract():
    logits, target = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    assert distail.functional.swap_rectify(logits, target).shape == (6, 4)
    weights = distail.functional.effective_number_weights([9, 5, 2, 1])
    assert weights.shape == (4,)
    assert distail.functional.reweigh_targets(logits, weights, 2.0).shape == (6, 4)
    assert distail.functional.inverse_propensity(logits, logits, target).shape == (6,)
    assert distail.functional.balanced_prototypes(4, 8).shape == (4, 8)
    assert distail.functional.kl_divergence(logits, logits.softmax(1), 2.0).shape == (6,)


def test_the_functions_hold_no_state_and_are_deterministic():
    logits, target = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    before = torch.get_rng_state()
    for _ in range(2):
        first = distail.functional.inverse_propensity(logits, logits.flip(1), target)
        assert torch.equal(first, distail.functional.inverse_propensity(logits, logits.flip(1), target))
    assert torch.equal(before, torch.get_rng_state())
