"""The multi-label formulas in plain float64 numbers, one class at a time, written from the papers and their code."""

from __future__ import annotations

import math

import numpy as np

from helpers.numpy_oracle import Array


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def log_sigmoid(z: float) -> float:
    return min(z, 0.0) - math.log1p(math.exp(-abs(z)))


def over_samples(loss, logits: Array, labels: Array) -> Array:
    """The sum over classes of a loss of a logit, a label, the class and the sample's labels, for each sample."""
    rows = zip(logits.tolist(), labels.tolist(), strict=True)
    return np.array(
        [
            math.fsum(loss(z, y, c, row_y) for c, (z, y) in enumerate(zip(z_C, row_y, strict=True)))
            for z_C, row_y in rows
        ]
    )


def bce(logits: Array, labels: Array) -> Array:
    return over_samples(lambda z, y, c, row: -log_sigmoid(z if y else -z), logits, labels)


def asymmetric(logits: Array, labels: Array, gamma_pos: float, gamma_neg: float, clip: float) -> Array:
    def loss(z, y, c, row):
        if y:
            return -(sigmoid(-z) ** gamma_pos) * log_sigmoid(z)
        shifted = max(sigmoid(z) - clip, 0.0)
        if shifted == 0.0:
            return 0.0
        return -(shifted**gamma_neg) * (log_sigmoid(-z) if clip == 0 else math.log(1 - shifted))

    return over_samples(loss, logits, labels)


def log_odds(counts: list[int], samples: int) -> list[float]:
    return [math.log((n / samples) / (1 - n / samples)) for n in counts]


def distribution_balanced(
    logits: Array,
    labels: Array,
    counts: list[int],
    samples: int,
    mapping: tuple[float, float, float] | None,
    neg_scale: float,
    bias: float,
    gamma: float,
    balance: float,
) -> Array:
    odds = log_odds(counts, samples)

    def weight(c, row):
        if mapping is None:
            return 1.0
        alpha, beta, mu = mapping
        drawn = sum(1 / n for n, has in zip(counts, row, strict=True) if has)
        return alpha + (1.0 if drawn == 0 else sigmoid(beta * ((1 / counts[c]) / drawn - mu)))

    def loss(z, y, c, row):
        v = z + bias * odds[c] / neg_scale
        u = v if y else neg_scale * v
        own = -log_sigmoid(u if y else -u)
        miss = sigmoid(-u if y else u)
        return balance * weight(c, row) * miss**gamma * own / (1 if y else neg_scale)

    return over_samples(loss, logits, labels)


def divergence(student: Array, teacher: Array, temperature: float) -> Array:
    def kl(s, t):
        return sigmoid(t) * (log_sigmoid(t) - log_sigmoid(s)) + sigmoid(-t) * (log_sigmoid(-t) - log_sigmoid(-s))

    return np.array(
        [
            temperature**2 * math.fsum(kl(a / temperature, b / temperature) for a, b in zip(s, t, strict=True))
            for s, t in zip(student.tolist(), teacher.tolist(), strict=True)
        ]
    )
