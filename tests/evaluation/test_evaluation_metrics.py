from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, recall_score
from torch import Tensor

from distail.errors import DataError
from distail.evaluation.groups import shots, thirds
from distail.evaluation.metrics import METRICS, MetricValues, evaluate_predictions, metric_at

KEYS = {"per_class_recall", *(path.split(".")[0] for path, metric in METRICS.items() if not metric.multi_label)}


def example(seed: int, samples: int, classes: int, missing: int = 0) -> tuple[Tensor, Tensor, list[int]]:
    """Logits that are right more often than not; the last `missing` classes have no test image."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes - missing, samples)
    logits = rng.normal(size=(samples, classes)) + 1.5 * np.eye(classes)[target]
    counts = np.sort(rng.integers(1, 500, classes))[::-1].tolist()
    return torch.from_numpy(logits), torch.from_numpy(target), counts


examples = st.builds(
    example, st.integers(0, 10_000), st.integers(1, 200), st.integers(3, 12), missing=st.integers(0, 2)
)


def plain_recalls(logits: np.ndarray, target: np.ndarray) -> list[float | None]:
    recalls: list[float | None] = []
    for c in range(logits.shape[1]):
        rows = [row for row in range(len(target)) if target[row] == c]
        hits = sum(1 for row in rows if int(np.argmax(logits[row])) == c)
        recalls.append(100.0 * hits / len(rows) if rows else None)
    return recalls


def plain_ece(logits: np.ndarray, target: np.ndarray) -> float:
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(logits, target, strict=True):
        exponentials = [math.exp(value - max(row)) for value in row]
        confidence = max(exponentials) / sum(exponentials)
        bins.setdefault(math.ceil(confidence * 15), []).append((confidence, int(np.argmax(row)) == label))
    gap = 0.0
    for members in bins.values():
        gap += abs(sum(c for c, _ in members) - sum(right for _, right in members))
    return 100 * gap / len(target)


@settings(deadline=None, max_examples=60)
@given(examples)
def test_every_metric_agrees_with_loops_and_sklearn(data: tuple[Tensor, Tensor, list[int]]) -> None:
    logits, target, counts = data
    metrics = evaluate_predictions(logits, target, counts)
    predicted, labels = logits.argmax(1).numpy(), target.numpy()
    present = sorted(set(labels.tolist()))
    assert metrics.keys() == KEYS
    assert metrics["top1"] == pytest.approx(100 * accuracy_score(labels, predicted))
    # sklearn averages over classes that are in the labels and warns about the others
    assert metrics["balanced_accuracy"] == pytest.approx(
        100 * recall_score(labels, predicted, labels=present, average="macro")
    )
    assert metrics["macro_f1"] == pytest.approx(
        100 * f1_score(labels, predicted, labels=present, average="macro", zero_division=0)
    )
    recalls = plain_recalls(logits.numpy(), labels)
    assert metrics["per_class_recall"] == [None if r is None else pytest.approx(r) for r in recalls]
    assert metrics["worst_class"] == pytest.approx(min(r for r in recalls if r is not None))
    assert metrics["ece"] == pytest.approx(plain_ece(logits.numpy(), labels), abs=1e-9)
    for name, groups in (("shots", shots(counts)), ("thirds", thirds(counts))):
        for group, classes in groups.items():
            known = [recalls[c] for c in classes if recalls[c] is not None]
            expected = pytest.approx(sum(known) / len(known)) if known else None  # type: ignore[arg-type]
            assert metrics["groups"][name][group] == expected


@settings(deadline=None, max_examples=60)
@given(examples)
def test_the_geometric_mean_of_recalls_is_numpys(data: tuple[Tensor, Tensor, list[int]]) -> None:
    logits, target, counts = data
    recalls = [recall for recall in plain_recalls(logits.numpy(), target.numpy()) if recall is not None]
    expected = np.prod(np.array(recalls) / 100) ** (1 / len(recalls)) * 100
    assert metric_at(evaluate_predictions(logits, target, counts), "gmean") == pytest.approx(expected, abs=1e-9)


def test_balanced_accuracy_is_sklearns() -> None:
    logits, target, counts = example(3, 400, 7)
    metrics = evaluate_predictions(logits, target, counts)
    expected = 100 * balanced_accuracy_score(target.numpy(), logits.argmax(1).numpy())
    assert metrics["balanced_accuracy"] == pytest.approx(expected)


@settings(deadline=None, max_examples=25)
@given(examples, st.randoms())
def test_the_order_of_samples_and_a_shift_of_logits_change_nothing(
    data: tuple[Tensor, Tensor, list[int]], random: Any
) -> None:
    logits, target, counts = data
    order = list(range(len(target)))
    random.shuffle(order)
    shifted = logits[order] + torch.arange(len(target), dtype=torch.float64)[:, None]
    assert flat(evaluate_predictions(shifted, target[order], counts)) == pytest.approx(
        flat(evaluate_predictions(logits, target, counts)), abs=1e-6, nan_ok=True
    )


def flat(metrics: MetricValues) -> list[float]:
    values = [*metrics["per_class_recall"], *(metric_at(metrics, path) for path in METRICS)]
    return [math.nan if value is None else value for value in values]


def test_figures_are_plain_and_survive_json() -> None:
    metrics = evaluate_predictions(*example(0, 50, 5, missing=1))
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert all(type(v) in (float, type(None)) for v in metrics["per_class_recall"])
    assert all(type(metrics[key]) is float for key in KEYS - {"per_class_recall", "groups"})


def test_a_group_without_classes_is_none_and_never_zero() -> None:
    metrics = evaluate_predictions(torch.eye(3), torch.tensor([0, 1, 2]), [500, 400, 300])
    assert metrics["groups"]["shots"] == {"many": 100.0, "medium": None, "few": None}


def test_a_class_that_is_always_missed_counts_as_zero() -> None:
    metrics = evaluate_predictions(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]), [9, 3])
    assert (metrics["worst_class"], metrics["balanced_accuracy"]) == (0.0, 50.0)
    assert metrics["macro_f1"] == pytest.approx(100 * (2 / 3) / 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_logits_are_evaluated_in_double(dtype: torch.dtype) -> None:
    logits, target, counts = example(1, 200, 5)
    low = logits.to(dtype)
    assert evaluate_predictions(low, target, counts) == evaluate_predictions(low.double(), target, counts)


def test_inputs_stay_as_they_were_and_need_no_gradient() -> None:
    logits, target, counts = example(2, 20, 4)
    logits.requires_grad_()
    before = logits.detach().clone()
    evaluate_predictions(logits, target, counts)
    assert torch.equal(logits.detach(), before)


@pytest.mark.parametrize(
    ("logits", "target", "counts", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64), [1, 1], r"\(3, 2\).*\(4,\)"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), [1, 1], r"\(3,\)"),
        (torch.zeros(3, 2), torch.zeros(3, 1, dtype=torch.int64), [1, 1], r"\(3, 1\)"),
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), [1, 1], "nothing to evaluate"),
        (torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), [1, 1, 1], "2 classes.*3"),
        (torch.zeros(3, 2), torch.zeros(3), [1, 1], "float32 labels"),
        (torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), [1, 1], "int64 logits"),
        (torch.zeros(3, 2), torch.tensor([0, 2, -1]), [1, 1], "2 of 3 labels.*0 to 1.*2 in row 1"),
        (torch.zeros(3, 2), torch.tensor([0, 1, 0]), [1, 0], "class 1: 0"),
        (
            torch.tensor([[0.0, 1.0], [math.nan, 1.0], [math.inf, 0.0]]),
            torch.tensor([0, 1, 0]),
            [1, 1],
            "2 of 3 rows.*row 1",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused(logits: Tensor, target: Tensor, counts: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate_predictions(logits, target, counts)


def test_all_problems_are_told_at_once() -> None:
    logits = torch.tensor([[math.nan, 0.0], [0.0, 1.0]])
    with pytest.raises(DataError) as caught:
        evaluate_predictions(logits, torch.tensor([0, 5]), [3, 0, 1])
    text = str(caught.value)
    assert all(said in text for said in ("not finite", "5 in row 1", "class 1: 0"))


def test_a_path_leads_to_its_metric() -> None:
    test = {"top1": 3, "groups": {"shots": {"few": None, "many": 4.5}}}
    assert metric_at(test, "top1") == 3.0
    assert metric_at(test, "groups.shots.many") == 4.5
    assert metric_at(test, "groups.shots.few") is None
    assert metric_at(test, "gmean") is None, "a result of an earlier version"
    assert metric_at(None, "top1") is None


def test_the_protocol_page_tells_titles_and_keys_as_they_are() -> None:
    page = Path(__file__).parents[2] / "docs" / "protocol.md"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.read_text().splitlines()]
    for titles, keys in [row[:2] for row in rows if len(row) == 4 and row[1].startswith("`")]:
        for title, key in zip(titles.split(", "), keys.split(", "), strict=True):
            assert METRICS[key.strip("`")].title == title
