"""Constants of a data set, in float64: one number per class.

Shapes: C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distail.functional.checks import check_number, counts_tensor


def effective_number_weights(class_counts: Sequence[int] | Tensor, beta: float = 0.9999) -> Tensor:
    """Weights by the effective number of samples, larger for rarer classes.

    ``w_c = (1 - beta) / (1 - beta**n_c)``, normalized to sum C [code: BKD, arXiv 2104.10510; Cui et al. 2019, eq. 4].

    Args:
        class_counts: training images per class, (C,), whole numbers of at least 1.
        beta: 0 gives equal weights; towards 1 the weights approach ``1 / n_c``. At least 0, below 1.

    Returns:
        (C,) float64, summing to C.

    Raises:
        MethodError: a class without images, or beta outside [0, 1).

    >>> effective_number_weights([100, 10, 1], beta=0.9).round(decimals=3)
    tensor([0.2390, 0.3670, 2.3930], dtype=torch.float64)
    """
    check_number("beta", beta, least=0.0, below=1.0)
    counts_C = counts_tensor(class_counts)
    # 1 - beta**n, without the cancellation that beta near 1 and small n would bring
    effective_C = -torch.expm1(counts_C * torch.log(torch.tensor(beta, dtype=torch.float64, device=counts_C.device)))
    weights_C = (1.0 - beta) / effective_C
    return weights_C * (len(weights_C) / weights_C.sum())


def class_log_share(class_counts: Sequence[int] | Tensor) -> Tensor:
    """Log of each class's share of the training images: (C,) float64.

    >>> class_log_share([3, 1]).exp()
    tensor([0.7500, 0.2500], dtype=torch.float64)
    """
    counts_C = counts_tensor(class_counts)
    return torch.log(counts_C / counts_C.sum())


def label_margins(class_counts: Sequence[int] | Tensor, largest: float = 0.5) -> Tensor:
    """LDAM's margins, ``n_c**-0.25`` scaled so that the rarest class has `largest` [paper: Cao 2019]. (C,) float64.

    >>> label_margins([16, 1])
    tensor([0.2500, 0.5000], dtype=torch.float64)
    """
    check_number("largest_margin", largest, least=0.0)
    margins_C = counts_tensor(class_counts) ** -0.25
    return margins_C * (largest / margins_C.max())
