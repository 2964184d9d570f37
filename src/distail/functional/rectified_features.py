"""KRDistill's representation term: which class owns which prior, and the teacher's feature pulled towards it. Ours."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from distail.errors import MethodError
from distail.functional.checks import check_same_shape
from distail.functional.numerics import FLOOR, at_least_float32

EXACT_UP_TO = 2000  # classes; the exact assignment costs their third power
ROWS = 1024  # rows of cosines that exist at a time in the greedy assignment


def assign_prototypes(class_means: Tensor, prototypes: Tensor) -> Tensor:
    """The prototype of each class, each used once, so that the summed cosine with the class means is large [ours].

    The maximum (Hungarian method) up to 2,000 classes; above, greedily: in order, each class takes the nearest left.

    Args:
        class_means: (C, D) mean teacher feature of each class.
        prototypes: (C, D).

    Returns:
        (C,) int64, on the CPU: a permutation.

    >>> assign_prototypes(torch.tensor([[0.0, 2.0], [3.0, 0.1]]), torch.eye(2))
    tensor([1, 0])
    """
    check_same_shape(class_means, prototypes, "class means", "prototypes")
    means_CD = normalize(class_means.detach().double().cpu(), dim=1)
    prototypes_CD = prototypes.detach().double().cpu()
    if len(means_CD) > EXACT_UP_TO:
        return _greedy(means_CD, prototypes_CD)
    from scipy.optimize import linear_sum_assignment

    return torch.from_numpy(linear_sum_assignment((means_CD @ prototypes_CD.T).numpy(), maximize=True)[1])


def _greedy(means_CD: Tensor, prototypes_CD: Tensor) -> Tensor:
    taken_C = torch.zeros(len(prototypes_CD), dtype=torch.bool)
    chosen = []
    for start in range(0, len(means_CD), ROWS):
        cosines_RC = means_CD[start : start + ROWS] @ prototypes_CD.T
        for cosines_C in cosines_RC:
            best = cosines_C.masked_fill(taken_C, -torch.inf).argmax()
            taken_C[best] = True
            chosen.append(best)
    return torch.stack(chosen)


def class_mean_features(sums_CD: Tensor, counts_C: Tensor) -> Tensor:
    """Feature sums over sample counts.

    Raises:
        MethodError: a class without a sample, by name; or features that are not finite.
    """
    empty = torch.nonzero(counts_C == 0).flatten().tolist()
    if empty:
        raise MethodError(
            f"no sample of class {', '.join(map(str, empty[:10]))} was seen; expected all of the training data"
        )
    means_CD = sums_CD / counts_C[:, None]
    if not bool(means_CD.isfinite().all()):
        raise MethodError("the teacher's features are not finite; its class means cannot be used")
    return means_CD


def rectify_features(teacher_features: Tensor, priors: Tensor, prior_strength: float = 1.0) -> Tensor:
    """``normalize(normalize(f_t) + prior_strength * v_y)`` [ours]. Features and the labels' priors, (B, D), to (B, D).

    >>> rectify_features(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    tensor([[0.7071, 0.7071]])
    """
    check_same_shape(teacher_features, priors, "teacher features", "priors")
    features_BD = at_least_float32(teacher_features.detach())
    return normalize(
        normalize(features_BD, dim=1, eps=FLOOR) + prior_strength * priors.to(features_BD.dtype), dim=1, eps=FLOOR
    )


def cosine_distance(features: Tensor, direction: Tensor) -> Tensor:
    """``1 - cos``, one value a sample: (B, D) features and (B, D) unit rows to (B,).

    >>> cosine_distance(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    tensor([1.])
    """
    check_same_shape(features, direction, "features", "directions")
    features_BD = at_least_float32(features)
    return 1.0 - (normalize(features_BD, dim=1, eps=FLOOR) * direction).sum(dim=1)
