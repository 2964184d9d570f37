"""What users are told: what they gave, what was expected, the nearest valid choice; before any arithmetic."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from distail import Outputs, create_method
from distail.errors import CheckpointError, MethodError
from helpers.method_cases import STUDENT_DIM, example, teacher_pass

COUNTS = [50, 10, 2]


def create(name, **parameters):
    return create_method(name, **{"class_counts": COUNTS, **parameters})


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("bkdd", {}, "'bkdd'.*'bkd'.*bkd, ce, "),
        ({"name": "drdk"}, {}, "'drdk'.*'drkd'"),
        (3, {}, "method is 3.*name.*slots"),
        ({"name": 3}, {}, "method 3"),
        ("bkd", {"bta": 0.9}, "bkd.*'bta'.*'beta'"),
        ("kd", {"beta": 0.9}, "kd.*parameter 'beta'"),
        ("ce", {"temprature": 2.0}, "'temprature'.*'temperature'"),
        ("kd", {"distilation_weight": 2.0}, "'distilation_weight'.*'distillation_weight'"),
        (
            "bkd",
            {"bta": 0.9, "defer": 0.5},
            "bkd.*2 problems.*\n.*'bta'.*\n.*'defer'",
        ),
        ("bkd", {"temperature": 0.0}, "temperature is 0.0.*above 0"),
        ("bkd", {"temperature": math.nan}, "temperature is nan"),
        ("bkd", {"temperature": "2"}, "temperature is '2'"),
        ("kd", {"supervised_weight": -0.1}, "supervised_weight is -0.1.*at least 0"),
        ("ce", {"auxiliary_weight": math.inf}, "auxiliary_weight is inf"),
        ("kd", {"representation_weight": True}, "representation_weight is True"),
        ("bkd", {"beta": 1.0}, "beta is 1.0.*at least 0.*below 1"),
        ("bkd", {"defer_until": 1.5}, "defer_until is 1.5"),
        ("dive", {"exponent": -1.0}, "exponent is -1.0"),
        ("dkd", {"warmup": 2.0}, "warmup is 2.0"),
        ("dkd", {"non_target_weight": -8.0}, "non_target_weight is -8.0"),
        ("ltkd", {"cross_weight": math.nan}, "cross_weight is nan"),
        ("ipwd", {"student_dim": 6, "ratio": "kd"}, "ratio 'kd'.*kd_over_cls"),
        ("ipwd", {"student_dim": 6, "max_weight": -1.0}, "max_weight is -1.0"),
        ("ipwd", {"student_dim": 6, "standardize_logits": 0}, "standardize_logits is 0.*true or false"),
        ("ipwd", {"student_dim": 6, "normalize": "no"}, "normalize is 'no'.*true or false"),
        ("ipwd", {"student_dim": 6, "cls_gradient": 1}, "cls_gradient is 1.*true or false"),
        ("ipwd", {"student_dim": 6, "kd_head_ce": False, "teacher": "previous_epoch"}, "kd_head_ce.*previous_epoch"),
        ("ipwd", {"student_dim": 6, "kd_head_ce": False, "supervised": "ce"}, "supervised.*kd_head_ce"),
        ("ipwd", {"student_dim": 6, "kd_head_ce": False, "supervised_weight": 2.0}, "supervised_weight.*kd_head_ce"),
        ("kd", {"label_smoothing": 1.0}, "label_smoothing is 1.0.*below 1"),
        ("ipwd", {}, "student's features.*student_dim="),
        ("ipwd", {"student_dim": 0}, "student_dim is 0.*at least 1"),
        ("krdistill", {"student_dim": 6}, "teacher's features.*teacher_dim="),
        ("krdistill", {"student_dim": 6, "teacher_dim": 5, "assignment": "identiy"}, "'identiy'.*'identity'"),
        ("krdistill", {"student_dim": 6, "teacher_dim": 5, "prototype_seed": -1}, "prototype_seed is -1"),
        ("ce", {"supervised": "focall"}, "supervised.*'focall'.*'focal'"),
        ("ce", {"supervised": {"name": "focal", "gama": 1.0}}, "focal.*'gama'.*'gamma'"),
        ("ce", {"supervised": {"name": "ce", "gamma": 1.0}}, "ce.*'gamma'.*label_smoothing"),
        ("ce", {"supervised": {"gamma": 1.0}}, "supervised.*name.*balanced_softmax"),
        ("ce", {"supervised": 3}, "supervised is 3.*name"),
        ("ce", {"supervised": None}, "supervised is empty"),
        ("kd", {"divergence": ["kl"]}, "divergence is .*expected one entry"),
        ("ce", {"targets": ["swap"]}, "targets.*divergence"),
        ("ce", {"weights": "loss_ratio", "teacher": "previous_epoch"}, "weights and teacher.*divergence"),
        ({"targets": ["swap", "reweight"]}, {}, "targets.*'reweight'.*'reweigh'"),
        ({"target": ["swap"]}, {}, "'target'.*'targets'"),
        ("bkd", {"targets": [{"name": "reweigh", "beta": 0.9}], "beta": 0.99}, "beta.*twice.*reweigh.*0.9.*0.99"),
        ("kd", {"teacher": "previous"}, "teacher.*'previous'.*'previous_epoch'"),
        ("kd", {"teacher": "previous_epoch", "final_weight": 1.1}, "final_weight is 1.1"),
        ("kd", {"teacher": "previous_epoch", "num_samples": 0}, "num_samples is 0"),
        ("krdistill", {"student_dim": 6, "teacher_dim": 5, "teacher": "previous_epoch"}, "needs a teacher's features"),
        ("kd", {"class_counts": [5, 0]}, "class 1: 0"),
        ("kd", {"class_counts": [5]}, "at least 2"),
    ],
)
def test_a_method_that_cannot_be_made_says_why(name, parameters, message):
    with pytest.raises(MethodError, match=message):
        create(name, **parameters)


@pytest.mark.parametrize(
    ("name", "parameters", "problems"),
    [
        (
            {"supervised": "cee", "targets": ["swp", "reweigh"], "divergence": "kll", "temperature": 0},
            {},
            ("unknown supervised entry 'cee'", "targets entry 'swp'", "divergence entry 'kll'", "temperature is 0"),
        ),
        (
            "bkd",
            {"temperature": -1, "beta": 2, "bta": 1},
            ("unknown parameter 'bta'", "temperature is -1", "beta is 2"),
        ),
        (
            "bkd",
            {"supervised_weight": -1, "class_counts": [3]},
            ("supervised_weight is -1", "class_counts has length 1"),
        ),
        (
            {"targets": ["reweigh"], "divergence": "grouped_kl", "defer_until": 2, "cross_weight": -1},
            {},
            ("defer_until is 2", "cross_weight is -1"),
        ),
        ("bkd", {"beta": 2, "defer_until": 2}, ("beta is 2", "defer_until is 2")),
        (
            {"targets": {"name": "reweigh", "beta": -1, "defer_until": "x"}},
            {},
            ("beta is -1", "defer_until is 'x'"),
        ),
        (
            "ipwd",
            {"ratio": "kd", "max_weight": -1, "normalize": 3},
            ("unknown ratio 'kd'", "student_dim", "max_weight is -1", "normalize is 3"),
        ),
    ],
)
def test_all_that_is_wrong_with_a_method_is_told_at_once(name, parameters, problems):
    with pytest.raises(MethodError) as caught:
        create(name, **parameters)
    assert len(caught.value.problems) == len(problems)
    for told, said in zip(caught.value.problems, problems, strict=True):
        assert said in told
        assert f"\n  - {told}" in str(caught.value)


def test_method_errors_are_value_errors():
    with pytest.raises(ValueError):
        create("nothing of the kind")


def test_numpy_numbers_are_numbers():
    counts = np.array(COUNTS)
    method = create("bkd", class_counts=counts, beta=np.float32(0.5), temperature=np.int64(3))
    assert method.setup.temperature == 3.0


@pytest.mark.parametrize(
    ("case", "change", "message"),
    [
        ("kd", {"teacher": None}, "kd.*teacher.*Outputs"),
        ("everything", {"teacher": None}, "composition.*teacher"),
        ("ce", {"student": torch.zeros(5, 7)}, "student.*Tensor.*Outputs"),
        ("kd", {"teacher": torch.zeros(5, 7)}, "teacher.*Tensor.*Outputs"),
        ("ce", {"student": Outputs(torch.zeros(5, 8))}, "student logits.*8.*class_counts 7"),
        ("ce", {"student": Outputs(torch.zeros(5, 7).long())}, "student logits are int64"),
        ("ce", {"student": Outputs(torch.zeros(5))}, "student logits.*float32"),
        ("ce", {"student": Outputs(torch.zeros(0, 7)), "target": torch.zeros(0).long()}, "batch.*empty"),
        ("kd", {"teacher": Outputs(torch.zeros(5, 6))}, r"teacher logits have shape \(5, 6\)"),
        ("kd", {"teacher": Outputs(torch.zeros(4, 7))}, r"teacher logits have shape \(4, 7\)"),
        ("ce", {"target": torch.zeros(5)}, "target is float32"),
        ("ce", {"target": torch.zeros(5, 1).long()}, r"int64 of shape \(5, 1\)"),
        ("ce", {"target": torch.zeros(5).int()}, "target is int32"),
        ("ce", {"target": torch.zeros(4).long()}, "4 labels for 5 rows"),
        ("ce", {"target": torch.tensor([0, 1, 7, 0, 0])}, "label 7.*0 to 6"),
        ("kd", {"target": torch.tensor([0, 1, -1, 0, 0])}, "label -1"),
        ("ipwd", {"student": Outputs(torch.zeros(5, 7))}, "ipwd.*student's features"),
        (
            "ipwd",
            {"student": Outputs(torch.zeros(5, 7), torch.zeros(5, 3))},
            r"\(5, 3\); expected .* \(5, 6\)",
        ),
        ("ipwd", {"student": Outputs(torch.zeros(5, 7), torch.zeros(4, 6))}, r"of shape \(4, 6\)"),
        ("ipwd", {"student": Outputs(torch.zeros(5, 7), torch.zeros(5, 6).long())}, "features are torch.int64"),
        ("krdistill", {"teacher": Outputs(torch.zeros(5, 7))}, "krdistill.*teacher's features"),
        ("krdistill", {"teacher": Outputs(torch.zeros(5, 7), torch.zeros(5, 6))}, r"expected .* \(5, 9\)"),
        ("ipwd one-stage", {"index": None}, "index="),
        ("ipwd one-stage", {"index": torch.zeros(5)}, "index is torch.float32"),
        ("ipwd one-stage", {"index": torch.zeros(4).long()}, r"of shape \(4,\)"),
        (
            "ipwd one-stage",
            {"index": torch.tensor([0, 1, 2, 3, 50])},
            "index 50",
        ),
    ],
)
def test_a_call_that_does_not_fit_says_why(case, change, message):
    method, call = example(case, dtype=torch.float32)
    with pytest.raises(MethodError, match=message):
        dataclasses.replace(call, **change)(method)


@pytest.mark.parametrize(
    ("epoch", "epochs", "message"),
    [
        (-1, 10, "epoch is -1"),
        (10, 10, "expected 0 to 9"),
        (0, 0, "epochs is 0"),
        (0.5, 10, "epoch is 0.5"),
        (0, None, "epochs is None"),
    ],
)
def test_epochs_count_from_zero(epoch, epochs, message):
    with pytest.raises(MethodError, match=message):
        create("bkd").begin_epoch(epoch, epochs)


def test_krdistill_without_its_pass_over_the_teacher_s_features_is_a_clear_error():
    method = create("krdistill", student_dim=STUDENT_DIM, teacher_dim=9)
    outputs = Outputs(torch.zeros(2, 3), torch.zeros(2, STUDENT_DIM)), Outputs(torch.zeros(2, 3), torch.zeros(2, 9))
    with pytest.raises(MethodError, match=r"method.prepare\(.*assignment='identity'"):
        method(*outputs, torch.tensor([0, 1]))
    method.prepare([teacher_pass(3)])
    assert torch.isfinite(method(*outputs, torch.tensor([0, 1])).total)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((Outputs(torch.zeros(3, 3)), torch.arange(3)), "teacher's features"),
        ((Outputs(torch.zeros(3, 3), torch.zeros(3, 4)), torch.arange(3)), r"expected .* \(3, 9\)"),
        ((Outputs(torch.zeros(3, 3), torch.zeros(3, 9)), torch.arange(1, 4)), "label 3"),
        ((Outputs(torch.zeros(2, 3), torch.zeros(2, 9)), torch.arange(2)), "class 2"),
        ((torch.zeros(3, 3), torch.arange(3)), "teacher.*Tensor.*Outputs"),
        ((Outputs(torch.zeros(3, 10), torch.zeros(3, 9)), torch.arange(3)), "10.*class_counts 3"),
        ((Outputs(torch.zeros(3, 3), torch.full((3, 9), math.nan)), torch.arange(3)), "features.*finite"),
    ],
)
def test_a_pass_that_does_not_fit_says_why(batch, message):
    method = create("krdistill", student_dim=STUDENT_DIM, teacher_dim=9)
    with pytest.raises(MethodError, match=message):
        method.prepare([batch])
    assert not method.prepared


def test_a_memory_of_something_else_is_refused():
    method = create("kd", teacher="previous_epoch", num_samples=10)
    other = create("kd", teacher="previous_epoch", num_samples=11)
    with pytest.raises(CheckpointError, match=r"completed.*\(11, 3\).*\(10, 3\)"):
        method.load_memory_state(other.memory_state())
    with pytest.raises(CheckpointError, match="running_epoch"):
        method.load_memory_state({})


@pytest.mark.parametrize(
    ("outputs", "target", "named", "message"),
    [
        (Outputs(torch.zeros(2, 3)), np.array([0, 1]), {}, "target.*numpy.ndarray.*int64"),
        (Outputs(torch.zeros(2, 3)), [0, 1], {}, "target.*list"),
        (Outputs((torch.zeros(2, 3), torch.zeros(2, 3))), torch.arange(2), {}, "student logits.*tuple"),
        (Outputs(np.zeros((2, 3))), torch.arange(2), {}, "student logits.*numpy.ndarray"),
        (Outputs(torch.zeros(2, 3)), torch.arange(2), {"index": [0, 1]}, "index.*list.*int64"),
    ],
)
def test_what_is_no_tensor_is_named(outputs, target, named, message):
    method = create("kd", teacher="previous_epoch")
    method.begin_epoch(0, 2)
    with pytest.raises(MethodError, match=message):
        method(outputs, None, target, **{"index": torch.arange(2), **named})


def test_features_that_are_no_tensor_are_named():
    method = create("ipwd", student_dim=2, teacher="previous_epoch")
    method.begin_epoch(0, 2)
    with pytest.raises(MethodError, match=r"student features.*list"):
        method(Outputs(torch.zeros(2, 3), [[0.0, 0.0]] * 2), None, torch.arange(2), index=torch.arange(2))


@pytest.mark.parametrize(
    ("made", "other"),
    [
        (("bkd", {"class_counts": [5, 5, 5]}), ("bkd", {"class_counts": [500, 50, 5]})),
        (("bkd", {"beta": 0.0}), ("bkd", {"beta": 0.9999})),
        (
            ("ce", {"supervised": "balanced_softmax"}),
            ("ce", {"supervised": "balanced_softmax", "class_counts": [9, 9, 9]}),
        ),
        (("ce", {"supervised": "ldam"}), ("ce", {"supervised": "ldam", "largest_margin": 0.4})),
        (("ce", {"supervised": "class_balanced"}), ("ce", {"supervised": "class_balanced", "beta": 0.9})),
    ],
)
def test_a_state_of_other_constants_is_refused_and_changes_nothing(made, other):
    method, stored = create(made[0], **made[1]), create(other[0], **other[1]).state_dict()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    with pytest.raises(RuntimeError, match="class counts"):
        method.load_state_dict(stored)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_a_state_whose_constants_differ_in_their_last_digits_is_taken_with_its_digits():
    method = create("bkd")
    stored = method.state_dict()
    name = next(name for name in stored if name.endswith("log_weights.value"))
    stored[name] = stored[name] * (1 + 1e-12)
    method.load_state_dict(stored)
    assert torch.equal(method.state_dict()[name], stored[name])
