"""The audit against plain float64 numpy, written from the definitions."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from distail.audit.audit import audit
from distail.audit.sample_weights import StudentHeads
from distail.audit.summary import summary
from distail.errors import DataError, MethodError
from distail.evaluation.groups import shots, thirds
from distail.evaluation.metrics import evaluate_predictions
from distail.evaluation.teacher_bias import teacher_bias

Array = NDArray[np.float64]


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def example(seed: int, samples: int, classes: int) -> tuple[Array, NDArray[np.int64], list[int]]:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, samples)
    counts = [int(v) for v in rng.integers(1, 400, classes)]
    logits = 2 * rng.normal(size=(samples, classes)) + np.eye(classes)[target] + np.log(counts)
    return logits, target, counts


def audit_of(logits: Array, target: NDArray[np.int64], counts: list[int], **options: Any) -> dict[str, Any]:
    return audit(torch.from_numpy(logits), torch.from_numpy(target), counts, **options)


def effective_number_weights(counts: list[int], beta: float) -> Array:
    weights = (1 - beta) / (1 - beta ** np.array(counts, dtype=np.float64))
    return weights * len(counts) / weights.sum()


def swapped(z: Array, y: NDArray[np.int64]) -> Array:
    z = z.copy()
    for row, label in zip(z, y, strict=True):
        top = int(np.argmax(row))
        row[top], row[label] = row[label], row[top]
    return z


def repaired(name: str, z: Array, y: NDArray[np.int64], counts: list[int], t: float) -> Array:
    weights = effective_number_weights(counts, 0.9999)
    q = {
        "drkd": softmax(swapped(z, y) / t),
        "bkd": softmax(z / t) * weights,
        "dive": softmax(z / t) ** 0.5,
        "distail": softmax((z - np.log(np.array(counts) / sum(counts))) / t),
        "krdistill": softmax((swapped(z, y) - np.log(np.array(counts) / sum(counts))) / t),
    }[name]
    return q / q.sum(1, keepdims=True)


OWN_TEMPERATURE = {"drkd": 20.0, "bkd": 2.0, "dive": 3.0, "krdistill": 2.0, "distail": 2.0}
examples = st.builds(example, st.integers(0, 10_000), st.integers(1, 80), st.integers(2, 12))


@settings(max_examples=30)
@given(examples, st.sampled_from([None, 1.0, 3.0]))
def test_repairs_move_the_targets_as_the_mathematics_says(data: Any, temperature: float | None) -> None:
    logits, target, counts = data
    found = audit_of(logits, target, counts, temperature=temperature)
    assert found["repairs"].keys() == OWN_TEMPERATURE.keys()
    for name, entry in found["repairs"].items():
        t = temperature or OWN_TEMPERATURE[name]
        p, q = softmax(logits / t), repaired(name, logits, target, counts, t)
        kl = (q * (np.log(q) - np.log(p))).sum(1)
        right = q[np.arange(len(q)), target] >= q.max(1) * (1 - 1e-12)
        assert entry["temperature"] == t
        expect(entry, {"kl": kl, "loss": t**2 * kl, "right": 100.0 * right}, target, counts)
    right = logits[np.arange(len(logits)), target] >= logits.max(1)
    expect(found["before"], {"right": 100.0 * right}, target, counts)
    expect(found["swapped"], {"share": 100.0 * ~right}, target, counts)
    assert found["swapped"]["overall"]["images"] == int((~right).sum())
    assert found["repairs"]["drkd"]["overall"]["right"] == 100.0
    assert found["repairs"]["dive"]["overall"]["right"] == found["before"]["overall"]["right"]


def expect(entry: dict[str, Any], values: dict[str, Array], target: NDArray[np.int64], counts: list[int]) -> None:
    """Means over all images and over those of each group."""
    for figure, per_image in values.items():
        assert entry["overall"][figure] == pytest.approx(per_image.mean(), abs=1e-9)
        for grouping, rule in (("thirds", thirds), ("shots", shots)):
            for group, classes in rule(counts).items():
                chosen = np.isin(target, classes)
                part = entry["groups"][grouping][group]
                if not chosen.any():
                    assert part is None
                else:
                    assert part[figure] == pytest.approx(per_image[chosen].mean(), abs=1e-9)


@settings(max_examples=20)
@given(examples)
def test_the_teacher_adjusted_is_that_of_logits_less_the_log_shares(data: Any) -> None:
    logits, target, counts = data
    found = audit_of(logits, target, counts)["adjusted"]
    assert found["tau"] == 1.0
    for name, moved in (("before", logits), ("after", logits - np.log(np.array(counts) / sum(counts)))):
        right = moved.argmax(1) == target
        recalls = {c: 100.0 * right[target == c].mean() for c in set(target.tolist())}
        assert found[name]["top1"] == pytest.approx(100.0 * right.mean())
        assert found[name]["balanced_accuracy"] == pytest.approx(np.mean(list(recalls.values())))
        for third, classes in thirds(counts).items():
            known = [recalls[c] for c in classes if c in recalls]
            assert found[name][third] == (pytest.approx(np.mean(known)) if known else None)


@settings(max_examples=30)
@given(examples)
def test_the_stand_in_weights_follow_their_definition(data: Any) -> None:
    logits, target, counts = data
    share = np.array(counts) / sum(counts)
    weights = propensity(logits, np.tile(np.log(share), (len(logits), 1)), target)
    found = audit_of(logits, target, counts)["sample_weights"]
    assert found["ipwd"]["heads"] == "stand-in"
    assert "not the paper's" in found["ipwd"]["meaning"]
    expect_spread(found["ipwd"], weights, 10.0, target, counts)
    assert found["wsld"]["overall"] is None
    assert "there is no student" in found["wsld"]["meaning"]


@settings(max_examples=15)
@given(examples)
def test_a_students_own_heads_replace_the_stand_ins(data: Any) -> None:
    logits, target, counts = data
    rng = np.random.default_rng(len(logits))
    kd, cls = rng.normal(size=logits.shape), rng.normal(size=logits.shape)
    heads = StudentHeads(torch.from_numpy(kd), torch.from_numpy(cls))
    found = audit_of(logits, target, counts, student=heads)["sample_weights"]
    assert found["ipwd"]["heads"] == "own"
    expect_spread(found["ipwd"], propensity(kd, cls, target), 10.0, target, counts)
    ratio = 1 - np.exp(-cross_entropy(kd, target) / np.maximum(cross_entropy(logits, target), 1e-6))
    expect_spread(found["wsld"], ratio, math.inf, target, counts)
    only_student = audit_of(logits, target, counts, student=StudentHeads(torch.from_numpy(kd)))["sample_weights"]
    assert only_student["ipwd"]["heads"] == "stand-in"
    assert only_student["wsld"] == found["wsld"]


@settings(max_examples=10)
@given(examples, st.sampled_from([1.5, None]), st.booleans())
def test_weights_are_those_of_the_experiments_own_method(
    data: Any, max_weight: float | None, standardize: bool
) -> None:
    logits, target, counts = data
    rng = np.random.default_rng(len(logits))
    kd, cls = rng.normal(size=logits.shape), rng.normal(size=logits.shape)
    heads = StudentHeads(torch.from_numpy(kd), torch.from_numpy(cls))
    method = {"name": "ipwd", "ratio": "cls_over_kd", "max_weight": max_weight, "standardize_logits": standardize}
    found = audit_of(logits, target, counts, student=heads, method=method)
    ipwd = found["sample_weights"]["ipwd"]
    assert (ipwd["ratio"], ipwd["max_weight"]) == ("cls_over_kd", max_weight)
    weights = propensity(cls, kd, target, standardize)
    expect_spread(ipwd, weights, math.inf if max_weight is None else max_weight, target, counts)
    said = " ".join(summary(found))
    assert "(cls_over_kd)" in said
    assert ("none is clipped" if max_weight is None else "are clipped at 1.5") in said


def cross_entropy(z: Array, y: NDArray[np.int64]) -> Array:
    return -np.log(softmax(z)[np.arange(len(z)), y])


def propensity(kd: Array, cls: Array, y: NDArray[np.int64], standardize: bool = True) -> Array:
    def loss(z: Array) -> Array:
        if not standardize:
            return cross_entropy(z, y)
        deviation = np.maximum(z.std(1, keepdims=True), 1e-6)
        return cross_entropy((z - z.mean(1, keepdims=True)) / deviation, y)

    return 1 + loss(kd) / np.maximum(loss(cls), 1e-6)


def expect_spread(
    entry: dict[str, Any], weights: Array, clip: float, target: NDArray[np.int64], counts: list[int]
) -> None:
    clipped = np.minimum(weights, clip)
    tail = np.isin(target, thirds(counts)["tail"])
    parts = [(entry["overall"], np.ones(len(target), dtype=bool))]
    if tail.any():
        parts.append((entry["groups"]["thirds"]["tail"], tail))
    for part, chosen in parts:
        own = clipped[chosen]
        assert part["mean"] == pytest.approx(own.mean(), rel=1e-6)
        assert part["relative"] == pytest.approx(own.mean() / clipped.mean(), rel=1e-6)
        quantiles = [np.quantile(own, level) for level in (0, 0.1, 0.5, 0.9, 1)]
        assert [part[name] for name in ("min", "p10", "median", "p90", "max")] == pytest.approx(quantiles, rel=1e-6)
        share = None if clip == math.inf else pytest.approx(100 * (weights[chosen] > clip).mean())
        assert part["clipped_share"] == share


@settings(max_examples=30)
@given(examples)
def test_figures_of_classes_and_groups_agree_with_plain_loops(data: Any) -> None:
    logits, target, counts = data
    found = audit_of(logits, target, counts)
    p = softmax(logits)
    predicted, confidence = logits.argmax(1), p.max(1)
    classes = logits.shape[1]
    for c, row in enumerate(found["classes"]):
        own, given_to = target == c, predicted == c
        assert (row["class"], row["images"], row["training_images"]) == (c, own.sum(), counts[c])
        assert row["third"] == next(name for name, members in thirds(counts).items() if c in members)
        assert row["recall"] == (pytest.approx(100 * given_to[own].mean()) if own.any() else None)
        assert row["precision"] == (pytest.approx(100 * own[given_to].mean()) if given_to.any() else None)
        assert row["confidence"] == (pytest.approx(100 * confidence[own].mean()) if own.any() else None)
        wrong = own & ~given_to
        assert row["confidence_when_wrong"] == (pytest.approx(100 * confidence[wrong].mean()) if wrong.any() else None)
        assert row["true_share"] == pytest.approx(100 * own.mean())
        assert row["predicted_share"] == pytest.approx(100 * given_to.mean())
        assert row["mean_probability"] == pytest.approx(100 * p[:, c].mean())
        into = np.bincount(predicted[wrong], minlength=classes)
        chief = None
        if wrong.any():
            top = int(into.argmax())
            chief = {"class": top, "errors": into[top], "share": pytest.approx(100 * into[top] / wrong.sum())}
        assert row["errors_go_to"] == chief
        tail = np.isin(target, thirds(counts)["tail"])
        assert row["tail_errors"] == (tail & (predicted != target) & given_to).sum()
    for rule, part in ((thirds, found["groups"]["thirds"]), (shots, found["groups"]["shots"])):
        for name, members in rule(counts).items():
            expect_group(part[name], found["classes"], members, target, predicted, confidence)
    expect_group(found["overall"], found["classes"], range(classes), target, predicted, confidence)


def expect_group(
    part: dict[str, Any], rows: list[dict[str, Any]], members: Any, target: Array, predicted: Array, confidence: Array
) -> None:
    chosen = np.isin(target, list(members))
    right = predicted == target
    assert (part["classes"], part["images"]) == (len(members), chosen.sum())
    assert part["training_images"] == sum(rows[c]["training_images"] for c in members)
    for figure in ("recall", "precision"):
        known = [rows[c][figure] for c in members if rows[c][figure] is not None]
        assert part[figure] == (pytest.approx(np.mean(known)) if known else None)
    for figure in ("true_share", "predicted_share", "mean_probability"):
        assert part[figure] == pytest.approx(sum(rows[c][figure] for c in members))
    if not chosen.any():
        assert [part[f] for f in ("accuracy", "wrong", "confidence", "ece", "confidence_when_wrong")] == [None] * 5
        return
    assert part["accuracy"] == pytest.approx(100 * right[chosen].mean())
    assert part["wrong"] == pytest.approx(100 * (~right)[chosen].mean())
    assert part["confidence"] == pytest.approx(100 * confidence[chosen].mean())
    bins = np.ceil(confidence[chosen] * 15)
    gaps = [abs((confidence[chosen] - right[chosen])[bins == b].sum()) for b in np.unique(bins)]
    assert part["ece"] == pytest.approx(100 * sum(gaps) / chosen.sum(), abs=1e-7)
    wrong = chosen & ~right
    assert part["confidence_when_wrong"] == (pytest.approx(100 * confidence[wrong].mean()) if wrong.any() else None)


@given(examples)
def test_the_audit_says_what_evaluation_and_the_bias_sentence_say(data: Any) -> None:
    logits, target, counts = data
    found = audit_of(logits, target, counts)
    figures = evaluate_predictions(torch.from_numpy(logits), torch.from_numpy(target), counts)
    assert found["overall"]["accuracy"] == figures["top1"]
    assert found["overall"]["ece"] == figures["ece"]
    assert [row["recall"] for row in found["classes"]] == figures["per_class_recall"]
    for grouping, groups in figures["groups"].items():
        assert {name: part["recall"] for name, part in found["groups"][grouping].items()} == groups
    bias = teacher_bias(torch.from_numpy(logits), torch.from_numpy(target), counts)
    assert found["errors"]["tail_errors"] == bias["tail_errors"]
    assert found["overall"]["wrong"] == bias["wrong"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_equal_counts_and_a_faultless_teacher_leave_the_targets_where_they_are() -> None:
    target = np.arange(60) % 6
    found = audit_of(5.0 * np.eye(6)[target], target, [50] * 6)
    for name in ("bkd", "drkd", "krdistill"):
        assert found["repairs"][name]["overall"]["kl"] == pytest.approx(0, abs=1e-12)
    assert found["swapped"]["overall"] == {"images": 0, "share": 0.0}
    assert any("class index" in caution for caution in found["cautions"])


def test_an_experiments_own_method_is_audited_with_its_parameters() -> None:
    logits, target, counts = example(5, 50, 6)
    own = audit_of(logits, target, counts, method={"name": "bkd", "beta": 0.0})["repairs"]
    assert own.keys() == OWN_TEMPERATURE.keys()
    assert own["bkd"]["parameters"]["beta"] == 0.0
    assert own["bkd"]["overall"]["kl"] == pytest.approx(0, abs=1e-12)
    composed = {"targets": ["power", "swap"], "temperature": 3.0, "exponent": 0.25}
    both = audit_of(logits, target, counts, method=composed)["repairs"]["composition"]
    assert (both["entries"], both["temperature"], both["parameters"]) == (["power", "swap"], 3.0, {"exponent": 0.25})
    q, p = softmax(swapped(0.25 * logits, target) / 3), softmax(logits / 3)
    assert both["overall"]["kl"] == pytest.approx((q * np.log(q / p)).sum(1).mean())
    assert audit_of(logits, target, counts, method={"name": "kd"})["repairs"].keys() == OWN_TEMPERATURE.keys()


def test_few_images_of_the_tail_are_said_to_be_few() -> None:
    logits, target, counts = example(0, 40, 6)
    tail = int(np.isin(target, thirds(counts)["tail"]).sum())
    assert f"Only {tail} of the images belong to the tail third" in " ".join(
        audit_of(logits, target, counts)["cautions"]
    )


@pytest.mark.parametrize(
    ("of_tail", "said"),
    [
        (0, "None of the images"),
        (1, "Only 1 of the images"),
    ],
)
def test_none_and_one_image_of_the_tail_are_told_in_words(of_tail: int, said: str) -> None:
    target = np.array([0] * 40 + [2] * of_tail)
    logits = np.random.default_rng(0).normal(size=(len(target), 3))
    (caution,) = audit_of(logits, target, (300, 50, 5))["cautions"]
    assert said in caution
    assert "tail" in caution


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_logits_are_audited_in_double(dtype: torch.dtype) -> None:
    logits, target, counts = example(1, 30, 5)
    low = torch.from_numpy(logits).to(dtype)
    assert audit(low, torch.from_numpy(target), counts) == audit(low.double(), torch.from_numpy(target), counts)


def test_saturated_logits_stay_finite() -> None:
    logits = 1e4 * np.eye(4)[[0, 1, 2, 0]]
    found = audit_of(logits, np.array([0, 1, 2, 3]), [400, 40, 10, 2])
    assert json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"temperature": 0.0}, MethodError, "0.0"),
        ({"class_names": ["a"]}, DataError, "1 .* 3 "),
        ({"method": {"targets": ["swpa"]}}, MethodError, "'swpa'.*'swap'"),
    ],
)
def test_what_cannot_be_audited_is_refused(options: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        audit_of(np.eye(3), np.arange(3), [5, 4, 3], **options)


def test_a_single_class_is_refused() -> None:
    with pytest.raises(MethodError, match="2"):
        audit_of(np.zeros((2, 1)), np.zeros(2, dtype=np.int64), [3])
