"""How far mean average precisions move with other test images.

Shapes: N samples, C classes.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from distail.evaluation.bootstrap import bootstrap_metrics, image_facts, interval_and_p
from distail.evaluation.bootstrap_multi_label import bootstrap_average_precision
from distail.evaluation.metrics import evaluate_predictions, metric_at

COUNTS = [300, 200, 50, 40]


def made(strength, seed=0, samples=120):
    generator = torch.Generator().manual_seed(5)
    target = torch.rand(samples, 4, generator=generator) < torch.tensor([0.6, 0.4, 0.2, 0.1])
    noise = torch.randn(samples, 4, generator=torch.Generator().manual_seed(seed))
    return noise + strength * target, target


def test_draws_are_those_of_whole_images_around_what_was_observed():
    logits, target = made(1.0)
    drawn = bootstrap_average_precision(target.numpy(), COUNTS, [logits.numpy()], resamples=600)
    metrics = evaluate_predictions(logits, target, COUNTS)
    random, plain = np.random.default_rng(3), []
    for _ in range(300):
        rows = random.integers(0, len(target), len(target))
        each = [average_precision_score(target[rows, c].numpy(), logits[rows, c].numpy()) for c in range(4)]
        plain.append(100 * np.mean(each))
    for path, values in drawn.items():
        assert values.mean() == pytest.approx(metric_at(metrics, path))
    assert drawn["mean_average_precision"].std() == pytest.approx(np.std(plain), rel=0.2)


def test_a_run_that_is_better_is_told_from_one_that_is_equal():
    target = made(0.5)[1]
    runs = [image_facts(made(strength, seed)[0], target, COUNTS) for strength, seed in ((0.5, 1), (2.0, 2), (0.5, 1))]
    drawn = bootstrap_metrics(target.numpy(), COUNTS, runs, resamples=400)["mean_average_precision"]
    (low, _), p = interval_and_p(drawn[:, 1] - drawn[:, 0])
    assert low > 0
    assert p < 0.05
    assert not (drawn[:, 2] - drawn[:, 0]).any()


def test_a_class_with_one_test_image_has_no_interval():
    logits, target = made(1.0)
    target[:, 3] = False
    target[0, 3] = True
    drawn = bootstrap_average_precision(target.numpy(), COUNTS, [logits.numpy()], resamples=20)
    assert "groups.thirds.tail" not in drawn
    assert "mean_average_precision" not in drawn
    assert "groups.thirds.head" in drawn


def test_a_class_that_no_draw_may_have_makes_nothing_unknown():
    logits, target = made(1.0)
    target[:, 3] = False
    target[:3, 3] = True
    drawn = bootstrap_average_precision(target.numpy(), COUNTS, [logits.numpy()], resamples=200)
    assert all(np.isfinite(values).all() for values in drawn.values())
    assert drawn["groups.thirds.tail"].std() > 0


def test_single_labels_have_no_mean_average_precision():
    logits, labels = torch.randn(20, 4), torch.arange(20) % 4
    drawn = bootstrap_metrics(labels.numpy(), COUNTS, [image_facts(logits, labels, COUNTS)], resamples=10)
    assert "mean_average_precision" not in drawn
