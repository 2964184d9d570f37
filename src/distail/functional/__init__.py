"""Pure tensor functions: no state, no I/O; every formula of the package lives here once."""

from __future__ import annotations

from distail.functional.class_weights import class_log_share, effective_number_weights, label_margins
from distail.functional.divergence import kl_divergence, kl_of_log_probabilities
from distail.functional.repairs import power_logits, reweigh_logits, reweigh_targets, swap_rectify
from distail.functional.supervised import (
    adjust_logits,
    cross_entropy,
    focal_loss,
    focal_of_cross_entropy,
    subtract_margin,
    weighted_by_label,
)

__all__ = [
    "adjust_logits",
    "class_log_share",
    "cross_entropy",
    "effective_number_weights",
    "focal_loss",
    "focal_of_cross_entropy",
    "kl_divergence",
    "kl_of_log_probabilities",
    "label_margins",
    "power_logits",
    "reweigh_logits",
    "reweigh_targets",
    "subtract_margin",
    "swap_rectify",
    "weighted_by_label",
]
