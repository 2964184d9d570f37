"""KRDistill's balanced category priors: class directions as even as a space allows. A reconstruction [ours].

Shapes: B batch, C classes, D feature width, R rows of a block (C - 1 in `_simplex`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from distail.errors import MethodError
from distail.functional.checks import FLOOR, at_least_float32, check_same_shape, check_whole

SHARPNESS = 2.0  # t of the Gaussian potential exp(-t * |u - v|^2) (Wang and Isola 2020)
MOST_STEPS = 300
WORK = 3e11  # multiply-adds that all steps together may cost, about ten seconds on one core
ROWS = 1024  # rows of the cosine matrix that exist at a time
EXACT_UP_TO = 2000  # classes; the exact assignment costs their third power


def balanced_prototypes(num_classes: int, dim: int, seed: int = 0) -> Tensor:
    """C unit vectors in R^D, spread as evenly as possible [ours: our reading of KRDistill, arXiv 2409.07694].

    Where ``D >= C - 1``, the simplex equiangular tight frame in closed form, turned by a seeded rotation: all pairwise
    cosines are ``-1 / (C - 1)``. On a line (``D = 1``), half of the classes each way. Else they minimize the
    Gaussian-potential uniformity energy by descent from a seeded start, in blocks of rows. A step costs ``C^2 * D``,
    and all of them about ten seconds: fewer than 50 of the 300 steps from about 2,400 classes on at D 512 (1,200 at
    2048), and none from about 17,200 on (8,600), which leaves random directions. The same for the same (C, D, seed).

    Args:
        num_classes: at least 2.
        dim: at least 1.
        seed: of the rotation or the start.

    Returns:
        (C, D) float64, unit rows.

    Raises:
        MethodError: fewer than two classes, a width below 1, or a negative seed; or any of them is no whole number.

    >>> prototypes = balanced_prototypes(4, 3)
    >>> (prototypes @ prototypes.T).round(decimals=4)[0]
    tensor([ 1.0000, -0.3333, -0.3333, -0.3333], dtype=torch.float64)
    """
    num_classes, dim = check_whole("num_classes", num_classes, least=2), check_whole("dim", dim, least=1)
    seed = check_whole("seed", seed, least=0)
    generator = torch.Generator().manual_seed(seed)
    if dim >= num_classes - 1:
        return _simplex(num_classes, dim, generator)
    if dim == 1:
        return _line(num_classes, generator)
    return _spread(num_classes, dim, generator)


def uniformity_energy(prototypes: Tensor, sharpness: float = SHARPNESS) -> Tensor:
    """Log of the mean of ``exp(-t * |u - v|^2)`` over pairs of rows: lower is more even (Wang and Isola 2020).

    >>> round(uniformity_energy(torch.tensor([[1.0], [-1.0]])).item(), 4)
    -8.0
    """
    return _energy_and_push(prototypes, sharpness)[0].log()


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
    """``1 - cos``, one value per sample: (B, D) features and (B, D) unit rows to (B,).

    >>> cosine_distance(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    tensor([1.])
    """
    check_same_shape(features, direction, "features", "directions")
    features_BD = at_least_float32(features)
    return 1.0 - (normalize(features_BD, dim=1, eps=FLOOR) * direction).sum(dim=1)


def _simplex(num_classes: int, dim: int, generator: torch.Generator) -> Tensor:
    # Helmert's contrasts: an orthonormal basis of the C-vectors that sum to zero; its columns, stretched, are a simplex
    step_R1 = torch.arange(1, num_classes, dtype=torch.float64)[:, None]
    basis_RC = torch.tril(torch.ones(num_classes - 1, num_classes, dtype=torch.float64))
    basis_RC[:, 1:].diagonal().copy_(-step_R1[:, 0])
    basis_RC /= torch.sqrt(step_R1 * (step_R1 + 1))
    simplex_CR = basis_RC.T * math.sqrt(num_classes / (num_classes - 1))
    directions_DR = torch.randn(dim, num_classes - 1, dtype=torch.float64, generator=generator)
    rotation_DR, triangle_RR = torch.linalg.qr(directions_DR)
    # signs as in the unique factorization with a positive diagonal: LAPACK's own choice differs between builds
    return _unit(simplex_CR @ (rotation_DR * triangle_RR.diagonal().sign()).T)


def _line(num_classes: int, generator: torch.Generator) -> Tensor:
    # a sphere of two points has no slope to descend on
    order_C = torch.randperm(num_classes, generator=generator)
    return (1.0 - 2.0 * (order_C % 2)).to(torch.float64)[:, None]


def _spread(num_classes: int, dim: int, generator: torch.Generator) -> Tensor:
    prototypes_CD = _unit(torch.randn(num_classes, dim, dtype=torch.float64, generator=generator))
    steps = int(min(MOST_STEPS, WORK / (2 * num_classes**2 * dim)))
    if steps == 0:
        return prototypes_CD
    energy, push_CD = _energy_and_push(prototypes_CD, SHARPNESS)
    velocity_CD, rate = torch.zeros_like(prototypes_CD), 1.0
    for _ in range(steps):
        move_CD = 0.9 * velocity_CD - rate * push_CD
        moved_CD = _unit(prototypes_CD + move_CD)
        moved_energy, moved_push_CD = _energy_and_push(moved_CD, SHARPNESS)
        if moved_energy <= energy:
            prototypes_CD, energy, push_CD, velocity_CD = moved_CD, moved_energy, moved_push_CD, move_CD
            rate *= 1.1
        else:
            velocity_CD, rate = torch.zeros_like(velocity_CD), rate / 2
    return prototypes_CD


def _energy_and_push(prototypes_CD: Tensor, sharpness: float) -> tuple[Tensor, Tensor]:
    """Mean potential over pairs, and the gradient of its logarithm along the sphere, times C / (4t)."""
    num_classes = len(prototypes_CD)
    energy, push_CD = prototypes_CD.new_zeros(()), torch.zeros_like(prototypes_CD)
    for start in range(0, num_classes, ROWS):
        rows_RD = prototypes_CD[start : start + ROWS]
        potential_RC = torch.exp(2 * sharpness * (rows_RD @ prototypes_CD.T - 1))
        potential_RC[:, start:].fill_diagonal_(0.0)
        energy = energy + potential_RC.sum()
        push_CD[start : start + ROWS] = potential_RC @ prototypes_CD
    push_CD *= num_classes / energy
    push_CD -= (push_CD * prototypes_CD).sum(dim=1, keepdim=True) * prototypes_CD
    return energy / (num_classes * (num_classes - 1)), push_CD


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


def _unit(rows_CD: Tensor) -> Tensor:
    return normalize(rows_CD, dim=1)
