"""Pure tensor functions: no state, no I/O; every formula of the package lives here once."""

from __future__ import annotations

from distail.functional.class_weights import class_log_share, effective_number_weights, label_margins
from distail.functional.divergences import (
    class_thirds,
    correlation_divergence,
    decoupled_divergence,
    grouped_divergence,
    kl_divergence,
    kl_of_log_probabilities,
)
from distail.functional.multi_label import (
    asymmetric_loss,
    binary_cross_entropy,
    class_log_odds,
    distribution_balanced_loss,
    rebalancing_weights,
    sigmoid_divergence,
)
from distail.functional.prototypes import (
    assign_prototypes,
    balanced_prototypes,
    cosine_distance,
    rectify_features,
    uniformity_energy,
)
from distail.functional.sample_weights import inverse_propensity, loss_ratio, standardize
from distail.functional.supervised import adjust_logits, cross_entropy, focal_loss, subtract_margin, weighted_by_label
from distail.functional.targets import power_logits, remove_prior, reweigh_logits, reweigh_targets, swap_rectify
from distail.functional.top_k import expand_top_k

__all__ = [
    "adjust_logits",
    "assign_prototypes",
    "asymmetric_loss",
    "balanced_prototypes",
    "binary_cross_entropy",
    "class_log_odds",
    "class_log_share",
    "class_thirds",
    "correlation_divergence",
    "cosine_distance",
    "cross_entropy",
    "decoupled_divergence",
    "distribution_balanced_loss",
    "effective_number_weights",
    "expand_top_k",
    "focal_loss",
    "grouped_divergence",
    "inverse_propensity",
    "kl_divergence",
    "kl_of_log_probabilities",
    "label_margins",
    "loss_ratio",
    "power_logits",
    "rebalancing_weights",
    "rectify_features",
    "remove_prior",
    "reweigh_logits",
    "reweigh_targets",
    "sigmoid_divergence",
    "standardize",
    "subtract_margin",
    "swap_rectify",
    "uniformity_energy",
    "weighted_by_label",
]
