"""The mathematics of every method in plain float64 numpy, one sample and one class at a time.

Written from the formulas, not from the package: loops where the package has tensors, sums where it has closed forms.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SMALLEST = float(np.finfo(np.float64).tiny)  # a total below it counts as it


def log_softmax(logits: Array) -> Array:
    largest = max(logits)
    total = math.fsum(math.exp(value - largest) for value in logits)
    return np.array([value - largest - math.log(total) for value in logits])


def log_sum(logs: Array) -> float:
    """The logarithm of the sum of numbers of which the logarithms are given: some are too small to be numbers."""
    largest = max(logs)
    return float(largest + math.log(math.fsum(math.exp(value - largest) for value in logs)))


def softmax(logits: Array, temperature: float = 1.0) -> Array:
    return np.exp(log_softmax(np.asarray(logits, dtype=np.float64) / temperature))


def kl(q: Array, log_p: Array) -> float:
    return math.fsum(float(a) * (math.log(a) - b) for a, b in zip(q, log_p, strict=True) if a > 0)


def kl_losses(student: Array, target: Array, temperature: float) -> Array:
    """T^2 * KL of given target distributions to the student's."""
    return np.array(
        [temperature**2 * kl(q, log_softmax(z / temperature)) for z, q in zip(student, target, strict=True)]
    )


def cross_entropies(logits: Array, labels: list[int]) -> Array:
    return np.array([-log_softmax(z)[y] for z, y in zip(logits, labels, strict=True)])


def smoothed_cross_entropies(logits: Array, labels: list[int], smoothing: float) -> Array:
    losses = []
    for row, label in zip(logits, labels, strict=True):
        log_p, classes = log_softmax(row), len(row)
        soft = [(1 - smoothing) * (c == label) + smoothing / classes for c in range(classes)]
        losses.append(-sum(soft[c] * log_p[c] for c in range(classes)))
    return np.array(losses)


def effective_number_weights(counts: list[int], beta: float) -> Array:
    """1 / (1 + beta + ... + beta^(n-1)), which is (1 - beta) / (1 - beta^n), scaled to sum C."""
    weights = np.array([1.0 / math.fsum(beta**power for power in range(count)) for count in counts])
    return weights * len(counts) / math.fsum(weights)


def shares(counts: list[int]) -> Array:
    return np.array(counts, dtype=np.float64) / sum(counts)


def swap(teacher: Array, labels: list[int]) -> Array:
    rows = []
    for z, y in zip(teacher.tolist(), labels, strict=True):
        best = z.index(max(z))
        z[best], z[y] = z[y], z[best]
        rows.append(z)
    return np.array(rows)


def reweigh(teacher: Array, weights: Array, temperature: float) -> Array:
    raw = [softmax(z, temperature) * weights for z in teacher]
    return np.array([q / math.fsum(q) for q in raw])


def power(teacher: Array, exponent: float, temperature: float) -> Array:
    return np.array([softmax(exponent * log_softmax(z / temperature)) for z in teacher])


def decoupled(student: Array, teacher: Array, labels: list[int], temperature: float) -> tuple[Array, Array]:
    target_class, non_target = [], []
    for z_s, z_t, y in zip(student, teacher, labels, strict=True):
        log_s, log_t = log_softmax(z_s / temperature), log_softmax(z_t / temperature)
        others = [c for c in range(len(z_s)) if c != y]
        rest_s, rest_t = log_sum(log_s[others]), log_sum(log_t[others])
        target_class.append(math.exp(log_t[y]) * (log_t[y] - log_s[y]) + math.exp(rest_t) * (rest_t - rest_s))
        within_s, within_t = log_s[others] - rest_s, log_t[others] - rest_t
        non_target.append(math.fsum(math.exp(t) * (t - s) for t, s in zip(within_t, within_s, strict=True)))
    return np.array(target_class), np.array(non_target)


def thirds(counts: list[int]) -> list[list[int]]:
    ranked = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    a, b = round(len(counts) / 3), round(2 * len(counts) / 3)
    return [ranked[:a], ranked[a:b], ranked[b:]]


def rebalanced(log_masses: Array, log_totals: Array) -> Array:
    """A sample's group masses, each times (mean total / its group's total), made to sum to 1."""
    masses, totals = np.exp(log_masses), np.exp(log_totals)
    if min(masses.min(), totals.min()) < 1e-200:  # where the products leave float64: the same in logarithms
        return softmax(log_masses - log_totals)
    scaled = masses * (totals.mean() / totals)
    result: Array = scaled / scaled.sum()
    return result


def grouped(
    student: Array, teacher: Array, groups: list[list[int]], temperature: float
) -> tuple[Array, Array, Array, Array]:
    """Cross with rebalanced masses, within with weight 1, cross and within as in the exact decomposition of KL."""
    groups = [group for group in groups if group]
    log_s = np.array([log_softmax(z / temperature) for z in student])
    log_t = np.array([log_softmax(z / temperature) for z in teacher])
    mass_s = np.array([[log_sum(row[group]) for group in groups] for row in log_s])
    mass_t = np.array([[log_sum(row[group]) for group in groups] for row in log_t])
    totals = np.array([max(log_sum(column), math.log(SMALLEST)) for column in mass_t.T])
    balanced = np.array([rebalanced(row, totals) for row in mass_t])
    cross, within, exact_cross, exact_within = [], [], [], []
    for b in range(len(student)):
        by_group = [
            kl(np.exp(log_t[b][group] - mass_t[b][g]), log_s[b][group] - mass_s[b][g]) for g, group in enumerate(groups)
        ]
        cross.append(kl(balanced[b], mass_s[b]))
        within.append(math.fsum(by_group))
        exact_cross.append(kl(np.exp(mass_t[b]), mass_s[b]))
        exact_within.append(math.fsum(math.exp(m) * d for m, d in zip(mass_t[b], by_group, strict=True)))
    return np.array(cross), np.array(within), np.array(exact_cross), np.array(exact_within)


def debias(logits: Array, counts: list[int], tau: float) -> Array:
    return np.array(
        [[value - tau * math.log(n / sum(counts)) for value, n in zip(z, counts, strict=True)] for z in logits]
    )


def pearson(a: Array, b: Array) -> float:
    """The correlation of two rows; 0 where one is constant."""
    a, b = a - math.fsum(a) / len(a), b - math.fsum(b) / len(b)
    norms = [math.sqrt(math.fsum(value**2 for value in row)) for row in (a, b)]
    return math.fsum(a * b) / (max(norms[0], 1e-8) * max(norms[1], 1e-8))


def correlations(student: Array, teacher: Array, temperature: float) -> tuple[Array, float]:
    """One less the correlation, of each sample over classes; and of each class over samples, their mean."""
    p_s, p_t = (np.array([softmax(z, temperature) for z in logits]) for logits in (student, teacher))
    inter = [1 - pearson(a, b) for a, b in zip(p_s, p_t, strict=True)]
    intra = [1 - pearson(a, b) for a, b in zip(p_s.T, p_t.T, strict=True)]
    return np.array(inter), math.fsum(intra) / len(intra)


def standardize(logits: Array, correction: int = 0) -> Array:
    rows = []
    for z in logits:
        mean = math.fsum(z) / len(z)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in z) / (len(z) - correction))
        rows.append([(value - mean) / max(deviation, 1e-6) for value in z])
    return np.array(rows)


def inverse_propensity(
    kd: Array, cls: Array, labels: list[int], ratio: str, max_weight: float | None, normalize: bool, raw: bool = False
) -> Array:
    h_kd, h_cls = (cross_entropies(logits if raw else standardize(logits), labels) for logits in (kd, cls))
    above, below = (h_kd, h_cls) if ratio == "kd_over_cls" else (h_cls, h_kd)
    weights = np.array([1 + a / max(b, 1e-6) for a, b in zip(above, below, strict=True)])
    if max_weight is not None:
        weights = np.minimum(weights, max_weight)
    return weights / weights.mean() if normalize else weights


def loss_ratio(student: Array, teacher: Array, labels: list[int]) -> Array:
    pairs = zip(cross_entropies(student, labels), cross_entropies(teacher, labels), strict=True)
    return np.array([1 - math.exp(-s / max(t, 1e-6)) for s, t in pairs])


def class_balanced(logits: Array, labels: list[int], counts: list[int], beta: float) -> Array:
    weights = effective_number_weights(counts, beta)[labels]
    return weights * cross_entropies(logits, labels) / (math.fsum(weights) / len(labels))


def focal(logits: Array, labels: list[int], gamma: float) -> Array:
    return np.array([(1 - softmax(z)[y]) ** gamma * -log_softmax(z)[y] for z, y in zip(logits, labels, strict=True)])


def ldam(logits: Array, labels: list[int], counts: list[int], largest: float, scale: float, own_scale: float) -> Array:
    raw = [count**-0.25 for count in counts]
    losses = []
    for z, y in zip(logits, labels, strict=True):
        cosines = z / own_scale
        cosines[y] -= raw[y] * largest / max(raw)
        losses.append(-log_softmax(scale * cosines)[y])
    return np.array(losses)


def logit_adjusted(logits: Array, labels: list[int], counts: list[int], tau: float) -> Array:
    return cross_entropies(logits + tau * np.log(shares(counts)), labels)


def unit(vector: Array) -> Array:
    return vector / math.sqrt(math.fsum(value * value for value in vector))


def rectified_feature_distance(projected: Array, teacher: Array, priors_of_label: Array, strength: float) -> Array:
    losses = []
    for f_s, f_t, v in zip(projected, teacher, priors_of_label, strict=True):
        direction = unit(unit(f_t) + strength * v)
        losses.append(1 - math.fsum(unit(f_s) * direction))
    return np.array(losses)
