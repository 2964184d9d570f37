"""Every method, at its own weights and temperature, against the numpy oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distail import Outputs, create_method, list_methods
from helpers import numpy_oracle as oracle
from helpers.made_batches import batches, quick
from helpers.method_cases import make_call, make_method


def as_numpy(terms):
    return {name: value.item() for name, value in terms.items()}, terms.per_sample.detach().numpy()


def softmax_rows(logits, temperature):
    return np.array([oracle.softmax(z, temperature) for z in logits])


def expected_terms(name, batch, method, call):
    """Losses per sample by term, without weights: straight from methods.md."""
    z_s, z_t, y, counts = batch.student.numpy(), batch.teacher.numpy(), batch.labels, batch.counts
    ce = oracle.cross_entropies(z_s, y)
    weights = oracle.effective_number_weights(counts, 0.9999)

    def kl(target, temperature):
        return oracle.kl_losses(z_s, target, temperature)

    def ipwd():
        head = method.sample_weights.cls_head
        cls = (call.student.features @ head.weight.T + head.bias).detach().numpy()
        propensity = oracle.inverse_propensity(z_s, cls, y, "kd_over_cls", 10.0, True)
        return {"s": ce, "d": propensity * kl(softmax_rows(z_t, 4), 4), "a": oracle.cross_entropies(cls, y)}

    def krdistill():
        g = method.representation.projector
        projected = (call.student.features @ g.weight.T + g.bias).detach().numpy()
        priors = method.representation.priors.value[batch.target].numpy()
        distance = oracle.rectified_feature_distance(projected, call.teacher.features.numpy(), priors, 1.0)
        target = softmax_rows(oracle.debias(oracle.swap(z_t, y), counts, 1.0), 2)
        return {"s": oracle.logit_adjusted(z_s, y, counts, 1.0), "d": kl(target, 2), "r": distance}

    def ltkd():
        cross, within, _, _ = oracle.grouped(z_s, z_t, oracle.thirds(counts), 4)
        return {"s": ce, "d": 16 * (cross + within)}

    def dkd():
        target_class, non_target = oracle.decoupled(z_s, z_t, y, 4)
        return {"s": ce, "d": 16 * (target_class + 8 * non_target)}

    def dist():
        inter, intra = oracle.correlations(z_s, z_t, 4)
        return {"s": ce, "d": 16 * (2 * inter + 2 * intra)}

    def ls():
        target = softmax_rows(oracle.standardize(z_t, correction=1), 2)
        return {"s": ce, "d": oracle.kl_losses(oracle.standardize(z_s, correction=1), target, 2)}

    table = {
        "dist": dist,
        "ls": ls,
        "ce": lambda: {"s": ce},
        "kd": lambda: {"s": ce, "d": kl(softmax_rows(z_t, 4), 4)},
        "bkd": lambda: {"s": ce, "d": kl(oracle.reweigh(z_t, weights, 2), 2)},
        "drkd": lambda: {"s": ce, "d": kl(softmax_rows(oracle.swap(z_t, y), 20), 20)},
        "ipwd": ipwd,
        "krdistill": krdistill,
        "ltkd": ltkd,
        "dive": lambda: {"s": oracle.logit_adjusted(z_s, y, counts, 1.0), "d": kl(oracle.power(z_t, 0.5, 3), 3)},
        "distail": lambda: {
            "s": oracle.logit_adjusted(z_s, y, counts, 1.0),
            "d": kl(softmax_rows(oracle.debias(z_t, counts, 1.0), 2), 2),
        },
        "dkd": dkd,
        "wsld": lambda: {"s": ce, "d": oracle.loss_ratio(z_s, z_t, y) * kl(softmax_rows(z_t, 2), 2)},
    }
    long = {"s": "supervised", "d": "distillation", "r": "representation", "a": "auxiliary"}
    return {long[key]: value for key, value in table[name]().items()}


# The table of methods.md: supervised, distillation, further.
WEIGHTS = {
    "ce": {"supervised": 1.0},
    "kd": {"supervised": 0.1, "distillation": 0.9},
    "bkd": {"supervised": 1.0, "distillation": 1.0},
    "drkd": {"supervised": 0.05, "distillation": 0.95},
    "ipwd": {"supervised": 1.0, "distillation": 1.0, "auxiliary": 1.0},
    "krdistill": {"supervised": 1.0, "distillation": 1.0, "representation": 1.0},
    "ltkd": {"supervised": 1.0, "distillation": 1.0},
    "dive": {"supervised": 0.5, "distillation": 0.5},
    "dkd": {"supervised": 1.0, "distillation": 1.0},
    "wsld": {"supervised": 1.0, "distillation": 2.25},
    "dist": {"supervised": 1.0, "distillation": 1.0},
    "ls": {"supervised": 0.1, "distillation": 9.0},
    "distail": {"supervised": 0.5, "distillation": 1.0},
}


def test_the_table_is_complete():
    assert set(WEIGHTS) == set(list_methods())


@pytest.mark.parametrize("name", WEIGHTS)
@quick
@given(batch=batches)
def test_a_method_is_its_formula(name, batch):
    method, call = make_method(name, batch.counts), make_call(batch)
    terms, per_sample = as_numpy(call(method))
    losses = expected_terms(name, batch, method, call)
    assert set(terms) == set(losses) == set(WEIGHTS[name])
    for term, expected in losses.items():
        assert terms[term] == pytest.approx(WEIGHTS[name][term] * expected.mean(), rel=1e-6, abs=1e-9)
    np.testing.assert_allclose(
        per_sample, sum(WEIGHTS[name][term] * expected for term, expected in losses.items()), rtol=1e-6, atol=1e-8
    )


@quick
@given(batch=batches, weights=st.lists(st.floats(0, 10), min_size=4, max_size=4), temperature=st.floats(0.5, 20))
def test_the_four_weights_and_the_temperature_are_what_they_say(batch, weights, temperature):
    keys = ("supervised", "distillation", "representation", "auxiliary")
    changed = {f"{key}_weight": weight for key, weight in zip(keys, weights, strict=True)}
    call = make_call(batch)
    ones = dict.fromkeys(changed, 1.0)
    plain = call(make_method("everything", batch.counts, **ones, temperature=temperature))
    terms = call(make_method("everything", batch.counts, **changed, temperature=temperature))
    for key, weight in zip(keys, weights, strict=True):
        torch.testing.assert_close(terms[key], weight * plain[key])
    torch.testing.assert_close(terms.total, sum(terms.values()))


SUPERVISED = {
    "ce": ({}, lambda z, y, n: oracle.cross_entropies(z, y)),
    "class_balanced": ({"beta": 0.99}, lambda z, y, n: oracle.class_balanced(z, y, n, 0.99)),
    "focal": ({"gamma": 1.5}, lambda z, y, n: oracle.focal(z, y, 1.5)),
    "balanced_softmax": ({}, lambda z, y, n: oracle.logit_adjusted(z, y, n, 1.0)),
    "logit_adjusted": ({"tau": 1.7}, lambda z, y, n: oracle.logit_adjusted(z, y, n, 1.7)),
    "ce, smoothed": ({"label_smoothing": 0.2}, lambda z, y, n: oracle.smoothed_cross_entropies(z, y, 0.2)),
    "ldam": ({"defer_until": 1.0}, lambda z, y, n: oracle.ldam(z, y, n, 0.5, 30.0, 30.0)),
}


@pytest.mark.parametrize("entry", SUPERVISED)
@quick
@given(batch=batches)
def test_a_supervised_entry_is_its_formula(entry, batch):
    parameters, formula = SUPERVISED[entry]
    method = make_method(f"ce with {entry.partition(',')[0]}", batch.counts, **parameters)
    losses = make_call(batch)(method).per_sample.detach().numpy()
    np.testing.assert_allclose(losses, formula(batch.student.numpy(), batch.labels, batch.counts), rtol=1e-7, atol=1e-9)


@quick
@given(batch=batches)
def test_ldam_re_weights_by_class_once_it_is_deferred_no_more(batch):
    method = make_method("ce with ldam", batch.counts, beta=0.999)
    margins = oracle.ldam(batch.student.numpy(), batch.labels, batch.counts, 0.5, 30.0, 30.0)
    weights = oracle.effective_number_weights(batch.counts, 0.999)[batch.labels]
    losses = make_call(batch)(method).per_sample.detach().numpy()
    np.testing.assert_allclose(losses, margins * weights / weights.mean(), rtol=1e-7, atol=1e-9)


def test_ldam_takes_a_cosine_classifier_s_own_scale():
    from distail.models.layers import CosineClassifier

    torch.manual_seed(0)
    features, target, counts = torch.randn(5, 8), torch.tensor([0, 1, 2, 2, 1]), [90, 20, 3]
    for scale in (30.0, 12.0):
        head = CosineClassifier(8, 3, scale=scale)
        cosines = head(features).detach() / scale
        method = create_method(
            "ce", supervised="ldam", class_counts=counts, classifier_scale=head.scale, defer_until=1.0
        )
        losses = method(Outputs(head(features)), None, target).per_sample.detach().numpy()
        expected = oracle.ldam(cosines.double().numpy(), target.tolist(), counts, 0.5, 30.0, 1.0)
        np.testing.assert_allclose(losses, expected, rtol=1e-4)


@pytest.mark.parametrize("tau", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("side", ["teacher", "student"])
@quick
@given(batch=batches)
def test_debias_moves_the_prior_from_one_side_or_to_the_other(side, tau, batch):
    debias = {"name": "debias", "tau": tau, "side": side}
    method = make_method("kd", batch.counts, targets=[debias], temperature=3.0, distillation_weight=1.0)
    z_s, z_t = batch.student.numpy(), batch.teacher.numpy()
    if side == "teacher":
        expected = oracle.kl_losses(z_s, softmax_rows(oracle.debias(z_t, batch.counts, tau), 3), 3)
    else:
        expected = oracle.kl_losses(oracle.debias(z_s, batch.counts, -tau), softmax_rows(z_t, 3), 3)
    assert make_call(batch)(method)["distillation"].item() == pytest.approx(expected.mean(), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("divergence", ["kl", "decoupled_kl", "grouped_kl"])
@quick
@given(batch=batches)
def test_a_repair_of_both_sides_wraps_every_divergence_and_leaves_the_labels_alone(divergence, batch):
    call = make_call(batch)
    wrapped = make_method("kd", batch.counts, divergence=divergence, targets=["standardize"], temperature=2.0)
    plain = make_method("kd", batch.counts, divergence=divergence, temperature=2.0)
    sides = [torch.from_numpy(oracle.standardize(z.numpy(), correction=1)) for z in (batch.student, batch.teacher)]
    changed = plain(Outputs(sides[0]), Outputs(sides[1]), batch.target)
    torch.testing.assert_close(call(wrapped)["distillation"], changed["distillation"], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(call(wrapped)["supervised"], call(plain)["supervised"])


@quick
@given(batch=batches)
def test_the_gate_distils_where_the_target_is_right_and_teaches_the_label_elsewhere(batch):
    method = make_method("kd", batch.counts, weights="gate", supervised="balanced_softmax", label_weight=2.0)
    plain = make_method("kd", batch.counts, supervised="balanced_softmax")
    call = make_call(batch)
    gated, free = call(method), call(plain)
    labels = oracle.logit_adjusted(batch.student.numpy(), batch.labels, batch.counts, 1.0)
    distilled = 0.9 * oracle.kl_losses(batch.student.numpy(), softmax_rows(batch.teacher.numpy(), 4), 4)
    right = np.array([z[y] >= max(z) for z, y in zip(batch.teacher.numpy(), batch.labels, strict=True)])
    expected = 0.1 * labels + np.where(right, distilled, 2.0 * labels)
    np.testing.assert_allclose(gated.per_sample.detach().numpy(), expected, rtol=1e-6, atol=1e-8)
    assert gated.statistics["open_share"].item() == pytest.approx(right.mean())
    torch.testing.assert_close(gated["supervised"], free["supervised"])


def test_the_gate_judges_the_repaired_target():
    teacher, target = Outputs(torch.tensor([[2.0, 1.0]])), torch.tensor([1])
    composition = {"weights": "gate", "temperature": 1.0}
    for targets, expected in (([], 0.0), (["swap"], 1.0), (["debias"], 1.0)):
        method = create_method({**composition, "targets": targets}, class_counts=[90, 10])
        assert method(Outputs(torch.zeros(1, 2)), teacher, target).statistics["open_share"].item() == expected


@quick
@given(batch=batches)
def test_ipwd_without_labels_for_its_own_head_learns_from_weighted_distillation_alone(batch):
    call = make_call(batch)
    with_ce, without = (make_method("ipwd", batch.counts, kd_head_ce=flag) for flag in (True, False))
    terms, bare = call(with_ce), call(without)
    assert bare["supervised"].item() == 0.0
    for term in ("distillation", "auxiliary"):
        torch.testing.assert_close(bare[term], terms[term])


def test_sample_weights_are_told_by_their_percentiles():
    torch.manual_seed(0)
    method = create_method("wsld", class_counts=[9, 5, 2])
    student, teacher = torch.randn(64, 3), torch.randn(64, 3)
    target = torch.randint(3, (64,))
    statistics = method(Outputs(student), Outputs(teacher), target).statistics
    weights = oracle.loss_ratio(student.double().numpy(), teacher.double().numpy(), target.tolist())
    for share in (5, 50, 95):
        assert statistics[f"weight_p{share:02d}"].item() == pytest.approx(np.percentile(weights, share), rel=1e-4)
