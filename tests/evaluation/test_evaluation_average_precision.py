"""Mean average precision by class and group, and what else a result of several classes per sample holds.

Shapes: N samples, C classes.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from distail.errors import DataError
from distail.evaluation.average_precision import Ranking, average_precisions
from distail.evaluation.headline import by_class, headline
from distail.evaluation.metrics import evaluate_predictions
from distail.evaluation.predictions import Predictions, load_predictions, save_predictions, save_predictions_table
from distail.evaluation.run_files import clean_metrics
from helpers.made_batches import quick

COUNTS = [300, 200, 50, 40, 9, 3]


def made(seed=0, samples=80):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, 6, generator=generator).round(decimals=1)  # ties
    return logits, torch.rand(samples, 6, generator=generator) < torch.linspace(0.7, 0.05, 6)


@quick
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_it_is_scikit_learn_s_with_ties_and_weights(seed, samples):
    logits, target = made(seed, samples)
    weights = np.random.default_rng(seed).integers(0, 4, size=(samples, 5)).astype(np.float64)
    found = average_precisions(logits, target)
    for c in range(6):
        score, has = logits[:, c].numpy(), target[:, c].numpy()
        if not has.any():
            assert found[c] is None
            continue
        assert found[c] == pytest.approx(100 * average_precision_score(has, score))
        drawn = Ranking(score, has).average_precision(weights)
        for b in range(5):
            if not weights[has, b].any():
                assert np.isnan(drawn[b])
                continue
            assert drawn[b] == pytest.approx(average_precision_score(has, score, sample_weight=weights[:, b]))


def test_groups_are_means_over_classes_and_nothing_is_0_that_was_not_measured():
    logits, target = made()
    target[:, 4] = False
    metrics = evaluate_predictions(logits, target, COUNTS)
    each = by_class(metrics)
    assert each[4] is None
    assert metrics["groups"]["thirds"]["head"] == pytest.approx((each[0] + each[1]) / 2)
    assert metrics["groups"]["thirds"]["tail"] == each[5]
    assert metrics["groups"]["shots"]["few"] == each[5]
    known = [value for value in each if value is not None]
    assert headline(metrics) == pytest.approx(sum(known) / 5)
    assert not {"top1", "balanced_accuracy", "ece", "per_class_recall"} & metrics.keys()
    assert clean_metrics(json.loads(json.dumps(metrics)), 6) == metrics


def test_a_result_of_one_class_is_as_it_was():
    metrics = evaluate_predictions(torch.eye(3), torch.tensor([0, 1, 1]), [300, 50, 5])
    assert "mean_average_precision" not in metrics


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (torch.zeros(80, 5, dtype=torch.bool), r"\(80, 6\).*\(80, 5\)"),
        (torch.zeros(80, 6), "float32"),
        (torch.zeros(80, 6, dtype=torch.bool), "no test image has any class"),
    ],
)
def test_labels_that_do_not_fit(target, said):
    with pytest.raises(DataError, match=said):
        evaluate_predictions(made()[0], target, COUNTS)


def test_predictions_are_kept(tmp_path):
    logits, target = made()
    save_predictions(tmp_path / "p.safetensors", logits, target, logits + 1, Predictions(logits, target, None))
    stored = load_predictions(tmp_path / "p.safetensors")
    assert stored.target.dtype == torch.bool
    assert torch.equal(stored.target, target)
    assert torch.equal(stored.validation.target, target)


def test_the_table_has_bars_between_classes(tmp_path):
    logits, target = torch.tensor([[2.0, -1.0, 0.0], [-3.0, -3.0, -3.0]]), torch.tensor([[1, 1, 0], [0, 0, 0]]).bool()
    save_predictions_table(tmp_path / "p.csv", ["one", "two"], logits, target, ["a", "b", "c"])
    assert (tmp_path / "p.csv").read_text().splitlines()[1:] == ["one,a|b,a|c,0.880797|0.500000", "two,,,"]
