"""Plain mistakes in calls of the formulas are told, instead of broadcast or turned into nan."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distail import functional
from distail.errors import MethodError

LOGITS, TARGET = torch.tensor([[2.0, -1.0, 0.5]] * 3), torch.tensor([0, 1, 2])
ONES = torch.ones(3)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("cross_entropy", (LOGITS.numpy(), TARGET), "logits: got numpy.ndarray; expected a floating-point tensor"),
        (
            "cross_entropy",
            (LOGITS, TARGET.numpy()),
            "target.*numpy.ndarray.*int64",
        ),
        ("swap_rectify", (LOGITS, [0, 1, 2]), "target.*list"),
        (
            "reweigh_targets",
            (LOGITS, [1.0, 1.0, 1.0], 1.0),
            "weights.*list.*tensor",
        ),
        ("reweigh_targets", (LOGITS, torch.ones(3, 1), 1.0), r"weights.*\(3, 1\).*3 classes"),
        ("kl_divergence", (LOGITS, LOGITS, 2.0), "probabilities.*-1 to 2"),
        ("kl_divergence", (LOGITS, torch.full((3, 3), np.nan), 2.0), "probabilities.*nan"),
        ("kl_divergence", (LOGITS, LOGITS.numpy(), 2.0), "probabilities.*numpy.ndarray"),
        ("decoupled_divergence", (LOGITS[:, :1], LOGITS[:, :1], TARGET * 0, 1.0), "one class.*at least 2"),
        ("balanced_prototypes", ("3", 2), "num_classes is '3'"),
    ],
)
def test_what_does_not_fit_is_said(name, given, said):
    with pytest.raises(MethodError, match=said):
        getattr(functional, name)(*given)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: functional.weighted_by_label(torch.ones(3, 1), ONES, TARGET),
            r"losses.*\(3, 1\).*target",
        ),
        (lambda: functional.adjust_logits(LOGITS, torch.ones(3, 1)), r"log shares.*\(3, 1\).*3 classes"),
        (lambda: functional.reweigh_logits(LOGITS, torch.ones(1), 1.0), r"log weights.*\(1,\).*3 classes"),
        (lambda: functional.reweigh_logits(LOGITS, ONES, -1.0), "temperature is -1.0"),
        (lambda: functional.subtract_margin(LOGITS, TARGET, ONES, 30.0, 0.0), "classifier_scale is 0.0"),
        (lambda: functional.subtract_margin(LOGITS, TARGET, ONES[:2], 30.0, 30.0), "margins"),
        (lambda: functional.power_logits(LOGITS.long()), "teacher logits are int64"),
        (lambda: functional.cosine_distance(LOGITS, LOGITS[0]), "features"),
    ],
)
def test_what_would_be_broadcast_is_said(call, said):
    with pytest.raises(MethodError, match=said):
        call()


def test_targets_that_were_made_for_inference_teach():
    with torch.inference_mode():
        targets = functional.reweigh_targets(LOGITS, ONES, 2.0)
    student = torch.zeros(3, 3, requires_grad=True)
    functional.kl_divergence(student, targets, 2.0).mean().backward()
    expected = torch.zeros(3, 3, requires_grad=True)
    functional.kl_divergence(expected, targets.clone(), 2.0).mean().backward()
    assert torch.equal(student.grad, expected.grad)


def test_cosines_of_large_half_precision_features_are_those_of_float32():
    features = torch.full((1, 4), 60_000.0)
    direction = torch.full((1, 4), 0.5)
    torch.testing.assert_close(
        functional.cosine_distance(features.half(), direction), torch.zeros(1), atol=1e-6, rtol=0
    )


def test_counts_in_the_order_of_their_frequency_are_refused():
    """As pandas' `value_counts` gives them."""

    class Series:
        def __init__(self, values, index):
            self.values, self.index = values, index

        def tolist(self):
            return self.values

    with pytest.raises(MethodError, match=r"order of its index, 2, 0, 1; .*sort_index"):
        functional.effective_number_weights(Series([500, 60, 5], [2, 0, 1]))
    given = functional.effective_number_weights(Series([500, 60, 5], range(3)))
    assert torch.equal(given, functional.effective_number_weights([500, 60, 5]))
