"""Every method, at its own weights and temperature, against the numpy oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distail import create_method, list_methods
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
        return {"s": ce, "d": kl(oracle.reweigh(oracle.swap(z_t, y), weights, 4), 4), "r": distance}

    def ltkd():
        cross, within, _, _ = oracle.grouped(z_s, z_t, oracle.thirds(counts), 4)
        return {"s": ce, "d": 16 * (cross + within)}

    def dkd():
        target_class, non_target = oracle.decoupled(z_s, z_t, y, 4)
        return {"s": ce, "d": 16 * (target_class + 8 * non_target)}

    table = {
        "ce": lambda: {"s": ce},
        "kd": lambda: {"s": ce, "d": kl(softmax_rows(z_t, 4), 4)},
        "bkd": lambda: {"s": ce, "d": kl(oracle.reweigh(z_t, weights, 2), 2)},
        "drkd": lambda: {"s": ce, "d": kl(softmax_rows(oracle.swap(z_t, y), 20), 20)},
        "ipwd": ipwd,
        "krdistill": krdistill,
        "ltkd": ltkd,
        "dive": lambda: {"s": oracle.logit_adjusted(z_s, y, counts, 1.0), "d": kl(oracle.power(z_t, 0.5, 2), 2)},
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
    "ldam": ({"defer_until": 1.0}, lambda z, y, n: oracle.ldam(z, y, n, 0.5, 30.0, 30.0)),
}


@pytest.mark.parametrize("entry", SUPERVISED)
@quick
@given(batch=batches)
def test_a_supervised_entry_is_its_formula(entry, batch):
    parameters, formula = SUPERVISED[entry]
    method = make_method(f"ce with {entry}", batch.counts, **parameters)
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
        from distail import Outputs

        losses = method(Outputs(head(features)), None, target).per_sample.detach().numpy()
        expected = oracle.ldam(cosines.double().numpy(), target.tolist(), counts, 0.5, 30.0, 1.0)
        np.testing.assert_allclose(losses, expected, rtol=1e-4)
