"""Other shares of classes than those of the training images, as numbers that are added to the logits.

Shapes: C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from distail.errors import ConfigError
from distail.functional import remove_prior
from distail.inference.class_numbers import in_class_order, read_class_numbers
from distail.models.array_description import ArrayDescription
from distail.models.description import Description


def adjustment(
    description: Description | ArrayDescription,
    tau: float = 1.0,
    prior: Mapping[str, float] | None = None,
    *,
    from_equal: bool = False,
) -> Tensor:
    """What makes logits of a network those for other shares of classes: (C,) float32.

    `tau * (log expected - log trained)`, by classes: Bayes' rule at `tau` 1, post-hoc logit adjustment (Menon et al.
    2021, arXiv 2007.07314) where all classes are expected equally often [paper].

    Args:
        description: which classes, and on how many images of each the network was trained.
        tau: 0 or above.
        prior: expected share of each class, in any unit; None: equal shares.
        from_equal: whether the network was trained for equal shares, whatever those of its images are.

    Raises:
        ConfigError: the counts are not known, or tau or the shares cannot be used.

    >>> told = Description("resnet8", "conv", "linear", ("cat", "dog"), 1, 8, 8, (0.5,), (0.25,), (30, 10))
    >>> adjustment(told).softmax(0)
    tensor([0.2500, 0.7500])
    >>> adjustment(told, prior={"cat": 3, "dog": 1}).softmax(0)
    tensor([0.5000, 0.5000])
    """
    if not math.isfinite(tau) or tau < 0:
        raise ConfigError(f"--adjust {tau:g}: expected a number of 0 or above; 1 is Bayes' rule")
    counts = description.class_counts
    if counts is None:
        raise ConfigError(
            "the student's file does not contain the number of training images per class (class_counts), so that "
            "it cannot be adjusted; files written by this version of `distail run` do"
        )
    learned = torch.ones(len(counts), dtype=torch.int64) if from_equal else torch.tensor(counts)
    offset_1C = remove_prior(torch.zeros(1, len(counts), dtype=torch.float64), learned, tau)
    if prior is not None:
        offset_1C = offset_1C + tau * _checked_shares(prior, description.class_names).log()
    # Only differences count: around 0 no digits are lost.
    return (offset_1C - offset_1C.mean())[0].float()


def read_prior(path: Path) -> dict[str, float]:
    """Expected shares by class: a JSON mapping, or CSV with the columns `class` and `share`.

    Raises:
        ConfigError: the file cannot be read as one of them.
    """
    return read_class_numbers(path, "--prior", "share")


def _checked_shares(prior: Mapping[str, float], class_names: tuple[str, ...]) -> Tensor:
    """(C,) float64, in the order of the classes."""
    shares = in_class_order(prior, class_names, "share", lambda share: share > 0, "above 0")
    return torch.tensor(shares, dtype=torch.float64)
