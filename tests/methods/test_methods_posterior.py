"""Which posterior each method aims at, and that the training minimum is where it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from distail import Outputs, create_method, list_methods
from distail.methods.presets import read_composition

SHARES = [0.7, 0.2, 0.1]
COUNTS = [70, 20, 10]
BALANCED_OPTIMUM = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 1.5], [2.0, 2.0, 2.0], [-0.5, 0.3, 0.1]])

EXPECTED = {
    "ce": "natural",
    "kd": "natural",
    "bkd": "mixed",
    "drkd": "natural",
    "ipwd": "natural",
    "krdistill": "balanced",
    "ltkd": "natural",
    "dive": "balanced",
    "dkd": "natural",
    "wsld": "natural",
    "dist": "natural",
    "distail": "balanced",
    "ls": "natural",
}


@pytest.mark.parametrize("name", list_methods())
def test_every_method_says_which(name):
    assert read_composition(name).posterior == EXPECTED[name]


@pytest.mark.parametrize(
    ("composition", "expected"),
    [
        ({"name": "bkd", "beta": 0.0}, "natural"),
        ({"name": "bkd", "defer_until": 1.0}, "natural"),
        ({"name": "bkd", "supervised": "balanced_softmax"}, "balanced"),
        ({"name": "bkd", "supervised_weight": 0.0}, "balanced"),
        ({"name": "kd", "targets": [{"name": "debias", "tau": 0.0}]}, "natural"),
        ({"name": "kd", "distillation_weight": 0.0, "targets": ["debias"]}, "natural"),
        ({"name": "ce", "supervised": {"name": "logit_adjusted", "tau": 0.0}}, "natural"),
        ({"name": "ce", "supervised": "logit_adjusted"}, "balanced"),
        ({"name": "ce", "supervised": {"name": "class_balanced", "beta": 0.0}}, "natural"),
        ({"name": "ce", "supervised": "ldam"}, None),
        ({"name": "ipwd", "kd_head_ce": False, "targets": ["debias"]}, "balanced"),
        ({"name": "kd", "teacher": "previous_epoch", "supervised": "balanced_softmax"}, "balanced"),
        ({"supervised": "balanced_softmax", "targets": [{"name": "debias", "side": "student"}]}, "balanced"),
        # Less than all of the prior is removed.
        ({"name": "ce", "supervised": {"name": "logit_adjusted", "tau": 0.25}}, "mixed"),
        ({"name": "ce", "supervised": {"name": "logit_adjusted", "tau": 1.5}}, "balanced"),
        ({"supervised": "balanced_softmax", "targets": [{"name": "debias", "tau": 0.5}]}, "mixed"),
        (
            {"supervised": {"name": "logit_adjusted", "tau": 0.5}, "supervised_weight": 0, "targets": ["debias"]},
            "balanced",
        ),
        ({"name": "ce", "labels": "multi_label", "supervised": {"name": "bce", "tau": 0.5}}, "mixed"),
        ({"name": "ce", "supervised": {"name": "class_balanced", "beta": 0.9}}, "mixed"),
        # A gate has labels learned where it is shut, whatever the supervised term weighs.
        ({"name": "kd", "targets": ["debias"], "weights": "gate", "supervised_weight": 0}, "mixed"),
        (
            {
                "name": "kd",
                "targets": ["debias"],
                "weights": {"name": "gate", "label_weight": 0},
                "supervised_weight": 0,
            },
            "balanced",
        ),
        # What scales the logits scales the priors, of which debias then removes more or less than there is.
        ({"supervised": "balanced_softmax", "targets": ["power", "debias"]}, "mixed"),
        ({"supervised": "balanced_softmax", "targets": ["debias", "power"]}, "balanced"),
        ({"supervised": "balanced_softmax", "targets": [{"name": "power", "exponent": 1}, "debias"]}, "balanced"),
    ],
)
def test_parameters_that_switch_an_entry_off_count(composition, expected):
    assert read_composition(composition).posterior == expected


def test_a_mixture_is_told_with_both_entries_and_depends_on_the_teacher():
    words = read_composition("bkd").posterior_warning("natural")
    assert words is not None
    assert "supervised: ce" in words
    assert "targets: reweigh" in words
    assert read_composition("kd").posterior_warning("natural") is None
    assert read_composition("dive").posterior_warning("balanced") is None
    assert "its teacher" in (read_composition("dive").posterior_warning("natural") or "")
    assert read_composition("dive").posterior_warning(None) is None  # a teacher of whom nobody knows
    # Nothing is left to take off a teacher that aims at equal shares already.
    assert "debias" not in (read_composition("kd").posterior_warning("balanced") or "debias")


@pytest.mark.parametrize(
    ("composition", "teacher", "told"),
    [
        ("distail", "balanced", True),
        ("bkd", "balanced", True),
        ("distail", "natural", False),
        ("distail", None, False),
        ("dive", "balanced", False),
        ({"name": "distail", "targets": [{"name": "debias", "tau": 0.0}]}, "balanced", False),
        ({"name": "distail", "teacher": "previous_epoch"}, None, True),
        ({"name": "kd", "teacher": "previous_epoch", "supervised": "balanced_softmax"}, None, False),
        ({"name": "kd", "teacher": "previous_epoch", "targets": ["debias"]}, None, False),
        ("distail", "mixed", True),
        ({"name": "distail", "targets": [{"name": "debias", "tau": 0.5}]}, "mixed", False),
        ({"name": "distail", "targets": [{"name": "debias", "tau": 0.5}]}, "balanced", True),
        ({"supervised": "balanced_softmax", "targets": ["debias", "reweigh"]}, "natural", True),
        ({"supervised": "balanced_softmax", "targets": ["debias", {"name": "debias", "side": "student"}]}, None, True),
        *((name, "natural", False) for name in list_methods()),
    ],
)
def test_class_shares_that_are_taken_off_twice_are_told(composition, teacher, told):
    assert bool(read_composition(composition).correction_warning(teacher)) == told


@pytest.mark.parametrize(
    ("counts", "beta", "expected"),
    [
        ((500, 50, 5), 0.9999, "balanced"),
        ((500, 50, 5), 0.99, "mixed"),
        ((100_000, 3000, 200), 0.9999, "mixed"),
        ((100_000, 3000, 200), 1 - 1e-7, "balanced"),
        ((500, 500, 500), 0.9999, "balanced"),
    ],
)
@pytest.mark.parametrize("slot", ["supervised", "targets"])
def test_effective_numbers_that_leave_much_of_the_imbalance_correct_in_part(slot, counts, beta, expected):
    own = {
        "supervised": {"name": "ce", "supervised": {"name": "class_balanced", "beta": beta}},
        "targets": {"supervised": "balanced_softmax", "targets": [{"name": "reweigh", "beta": beta}]},
    }
    assert replace(read_composition(own[slot]), class_counts=counts).posterior == expected


def test_targets_that_are_scaled_before_priors_are_removed_are_told_with_the_order():
    for scaling in ("power", "standardize"):
        told = read_composition({"targets": [scaling, "swap", "debias"]}).order_warning()
        assert told is not None
        assert f"expected debias before {scaling}" in told
        assert read_composition({"targets": ["debias", scaling]}).order_warning() is None


@pytest.mark.parametrize("side", ["teacher", "student"])
def test_balanced_softmax_and_debias_have_their_minimum_at_the_balanced_posterior(side):
    """Labels drawn from the natural posterior, a teacher that knows it: the expected loss is least at one place."""
    method = create_method(
        {"supervised": "balanced_softmax", "targets": [{"name": "debias", "side": side}], "temperature": 2.0},
        class_counts=COUNTS,
    )
    natural = BALANCED_OPTIMUM + torch.tensor(SHARES).log()
    student = BALANCED_OPTIMUM.clone().requires_grad_()
    losses = []
    for label in range(3):
        target = torch.full((len(student),), label)
        losses.append(method(Outputs(student), Outputs(natural), target).per_sample)
    expected_loss = (torch.stack(losses, dim=1) * natural.softmax(1)).sum()
    (gradient,) = torch.autograd.grad(expected_loss, student)
    assert gradient.abs().max() < 1e-5
