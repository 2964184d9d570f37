"""Adjusting after training against plain numpy, and what chooses tau."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from distail.config.tau import read_tau
from distail.errors import DataError
from distail.evaluation.adjustment import TAUS, corrected_in_part, evaluate_adjusted, settle
from distail.evaluation.groups import thirds
from distail.evaluation.metrics import evaluate_predictions
from distail.evaluation.predictions import Predictions, load_predictions, save_predictions
from helpers.numpy_oracle import debias

COUNTS = [200, 90, 40, 18, 8, 4]


def biased(seed: int, samples: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a network that learned the prior with the classes."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, len(COUNTS), samples)
    logits = rng.normal(size=(samples, len(COUNTS))) + 1.5 * np.eye(len(COUNTS))[target] + np.log(COUNTS)
    return logits, target


def plain_recalls(logits: np.ndarray, target: np.ndarray) -> list[float]:
    return [100 * float(np.mean(logits[target == c].argmax(1) == c)) for c in range(len(COUNTS))]


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_adjusted_metrics_are_those_of_logits_less_the_log_shares(tau: float, seed: int) -> None:
    logits, target = biased(seed)
    found = evaluate_adjusted(torch.from_numpy(logits), torch.from_numpy(target), COUNTS, tau)
    moved = debias(logits, COUNTS, tau)
    recalls = plain_recalls(moved, target)
    assert found["per_class_recall"] == pytest.approx(recalls)
    assert found["top1"] == pytest.approx(100 * np.mean(moved.argmax(1) == target))
    assert found["balanced_accuracy"] == pytest.approx(math.fsum(recalls) / len(recalls))
    for name, classes in thirds(COUNTS).items():
        assert found["groups"]["thirds"][name] == pytest.approx(np.mean([recalls[c] for c in classes]))
    assert found["groups"]["thirds"]["tail"] > plain_recalls(logits, target)[-1]


def test_tau_0_is_the_plain_figure() -> None:
    logits, target = (torch.from_numpy(part) for part in biased(0))
    assert evaluate_adjusted(logits, target, COUNTS, 0.0) == evaluate_predictions(logits, target, COUNTS)


@pytest.mark.parametrize("seed", range(5))
def test_a_gain_by_adjusting_is_told_where_it_is_more_than_noise(seed: int) -> None:
    logits, target = biased(seed, samples=600)
    taus = (torch.from_numpy(logits), torch.from_numpy(target), COUNTS)
    (told,) = corrected_in_part(*taus, taught=True)
    best = evaluate_adjusted(*taus, settle("auto", taus[:2], COUNTS)["tau"])
    assert f"{best['balanced_accuracy']:.1f} % balanced accuracy" in told
    assert f"instead of {evaluate_adjusted(*taus, 0.0)['balanced_accuracy']:.1f} %" in told
    balanced = torch.from_numpy(debias(logits, COUNTS, 1.0))
    assert corrected_in_part(balanced, *taus[1:], taught=True) == []
    few = torch.tensor([0] * 90 + [5] * 3)  # three images of one class, whichever way they turn, are no evidence
    turned = torch.zeros(93, len(COUNTS)) + torch.tensor([2.0, 0, 0, 0, 0, 1.9])
    turned[:90, 0] += 5.0
    assert corrected_in_part(turned, few, COUNTS, taught=True) == []


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_auto_takes_the_tau_with_the_highest_balanced_accuracy_on_validation(seed: int) -> None:
    logits, target = biased(seed, samples=90)
    scores = [math.fsum(plain_recalls(debias(logits, COUNTS, tau), target)) for tau in TAUS]
    best = min(tau for tau, score in zip(TAUS, scores, strict=True) if score == max(scores))
    held_out = (torch.from_numpy(logits), torch.from_numpy(target))
    assert settle("auto", held_out, COUNTS) == {"tau": best, "chosen_on": "validation"}
    assert best > 0  # the made network holds the prior


def test_of_equally_good_taus_the_least_is_taken_and_a_given_one_needs_no_validation() -> None:
    sure = (100 * torch.eye(3), torch.arange(3))
    assert settle("auto", sure, [9, 3, 1])["tau"] == 0.0
    assert settle(0.3, None, COUNTS) == {"tau": 0.3, "chosen_on": "given"}
    with pytest.raises(DataError, match="validation"):
        settle("auto", None, COUNTS)


@pytest.mark.parametrize("wrong", [-0.5, math.inf, math.nan, True, None, "best", [1], 10**400])
def test_what_is_no_tau_is_refused_with_what_is(wrong: object) -> None:
    with pytest.raises(ValueError, match="auto"):
        read_tau(wrong)


def test_predictions_of_the_validation_split_are_kept_beside_those_of_the_test(tmp_path: Path) -> None:
    path = tmp_path / "predictions.safetensors"
    held_out = Predictions(torch.rand(3, 4), torch.tensor([0, 1, 2]), torch.rand(3, 4))
    save_predictions(path, torch.rand(5, 4), torch.arange(5) % 4, torch.rand(5, 4), held_out)
    found = load_predictions(path).validation
    assert found is not None
    assert found.logits.equal(held_out.logits)
    assert found.target.equal(held_out.target)
    assert found.teacher_logits is not None
    assert held_out.teacher_logits is not None
    assert found.teacher_logits.equal(held_out.teacher_logits)
    save_predictions(path, torch.rand(5, 4), torch.arange(5) % 4)
    assert load_predictions(path).validation is None
