"""Entries for samples of several classes: supervised terms and the divergence, each class by itself.

Shapes: B batch, C classes.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from distail.functional import (
    adjust_logits,
    asymmetric_loss,
    binary_cross_entropy,
    class_log_odds,
    distribution_balanced_loss,
    rebalancing_weights,
    sigmoid_divergence,
)
from distail.functional.checks import check_number, check_switch
from distail.methods.context import BALANCED, BatchContext, SlotOutput, SlotSetup
from distail.methods.modules import FixedDtypeBuffer
from distail.outputs import MULTI_LABEL


class BinaryCrossEntropy(nn.Module):
    """The sum over classes of ``BCE(z_s + tau * log odds, y)``; at tau 0 plain binary cross-entropy.

    Args:
        tau: how much of each class's log odds in the training data is added in training, so that the logits learn
            without it: logit adjustment (Menon et al. 2021), class by class [ours].
    """

    label_kinds = (MULTI_LABEL,)
    posterior = BALANCED
    neutral: ClassVar[dict[str, float]] = {"tau": 0.0}

    def __init__(self, setup: SlotSetup, *, tau: float = 0.0) -> None:
        super().__init__()
        self.tau = check_number("tau", tau, least=0.0)
        self.log_odds = FixedDtypeBuffer(_log_odds(setup))

    def forward(self, context: BatchContext) -> SlotOutput:
        logits_BC = context.student.logits
        if self.tau:
            logits_BC = adjust_logits(logits_BC, self.log_odds(logits_BC), self.tau)
        return SlotOutput(binary_cross_entropy(logits_BC, context.target))


class Asymmetric(nn.Module):
    """Easy negatives count less, and the easiest nothing [paper: ASL, Ridnik et al. 2021].

    Args:
        gamma_pos: focusing of the classes that a sample has.
        gamma_neg: of those that it has not.
        clip: negatives with a probability below it count nothing.
    """

    label_kinds = (MULTI_LABEL,)
    posterior = None

    def __init__(self, setup: SlotSetup, *, gamma_pos: float = 0.0, gamma_neg: float = 4.0, clip: float = 0.05) -> None:
        super().__init__()
        self.gamma_pos = check_number("gamma_pos", gamma_pos, least=0.0)
        self.gamma_neg = check_number("gamma_neg", gamma_neg, least=0.0)
        self.clip = check_number("clip", clip, least=0.0, below=1.0)

    def forward(self, context: BatchContext) -> SlotOutput:
        return SlotOutput(
            asymmetric_loss(context.student.logits, context.target, self.gamma_pos, self.gamma_neg, self.clip)
        )


class DistributionBalanced(nn.Module):
    """Binary cross-entropy rebalanced and tolerant of negatives [paper, code: DB loss, Wu et al. 2020].

    Args:
        rebalance: whether samples are weighted by how often their classes bring them, as resampling asks.
        alpha: what every weight is at least: ``alpha + sigmoid(beta * (r - mu))``.
        beta: how steeply the weight rises with r, the share of a sample that is due to a class.
        mu: at which r it is half way up.
        neg_scale: the paper's lambda: how much steeper, and how much lighter, negatives are.
        bias: the paper's kappa: of the log odds of a class, added to its logit in training.
        gamma: focusing.
        balance: a factor of the whole.
    """

    label_kinds = (MULTI_LABEL,)
    posterior = None

    def __init__(
        self,
        setup: SlotSetup,
        *,
        rebalance: bool = True,
        alpha: float = 0.1,
        beta: float = 10.0,
        mu: float = 0.2,
        neg_scale: float = 2.0,
        bias: float = 0.05,
        gamma: float = 2.0,
        balance: float = 2.0,
    ) -> None:
        super().__init__()
        self.rebalance = check_switch("rebalance", rebalance)
        self.alpha, self.beta = check_number("alpha", alpha, least=0.0), check_number("beta", beta, least=0.0)
        self.mu = check_number("mu", mu)
        self.neg_scale = check_number("neg_scale", neg_scale, above=0.0)
        self.bias = check_number("bias", bias, least=0.0)
        self.gamma = check_number("gamma", gamma, least=0.0)
        self.balance = check_number("balance", balance, above=0.0)
        self.log_odds = FixedDtypeBuffer(_log_odds(setup))
        self.counts = FixedDtypeBuffer(torch.tensor(setup.class_counts, dtype=torch.float64))

    def forward(self, context: BatchContext) -> SlotOutput:
        logits_BC, weights_BC = context.student.logits, None
        if self.rebalance:
            target_BC = context.target.to(logits_BC.dtype)
            weights_BC = rebalancing_weights(target_BC, self.counts.value, self.alpha, self.beta, self.mu)
        return SlotOutput(
            distribution_balanced_loss(
                logits_BC,
                context.target,
                self.log_odds(logits_BC),
                weights_BC,
                neg_scale=self.neg_scale,
                bias=self.bias,
                gamma=self.gamma,
                balance=self.balance,
            )
        )


class Sigmoid(nn.Module):
    """``T^2 * sum_c KL(sigmoid(z_t / T) || sigmoid(z_s / T))``, each class by itself [paper: MLD, Yang et al. 2023]."""

    label_kinds = (MULTI_LABEL,)

    def __init__(self, setup: SlotSetup) -> None:
        super().__init__()

    def forward(self, context: BatchContext, logits_BC: Tensor) -> SlotOutput:
        return SlotOutput(sigmoid_divergence(context.student.logits, logits_BC, context.temperature))


def _log_odds(setup: SlotSetup) -> Tensor:
    assert setup.samples is not None, "the composition checks the kind of labels"
    return class_log_odds(setup.class_counts, setup.samples)
