"""KRDistill's one pass over the teacher's features, and what its priors are."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from distail import Outputs, create_method
from distail.functional import assign_prototypes, balanced_prototypes
from helpers.method_cases import STUDENT_DIM, TEACHER_DIM, teacher_pass

COUNTS = [50, 20, 10, 5, 2]


WIDTHS = {"student_dim": STUDENT_DIM, "teacher_dim": TEACHER_DIM}


def create(**parameters):
    return create_method("krdistill", class_counts=COUNTS, **WIDTHS, **parameters)


def test_priors_are_the_prototypes_in_the_order_of_the_class_means():
    outputs, target = teacher_pass(5)
    method = create()
    assert not method.prepared
    method.prepare([(outputs, target)])
    means = torch.stack([outputs.features[target == c].double().mean(dim=0) for c in range(5)])
    prototypes = balanced_prototypes(5, TEACHER_DIM)
    expected = prototypes[assign_prototypes(means, prototypes)]
    assert torch.equal(method.representation.priors.value, expected)
    assert method.prepared


def test_it_lifts_the_similarity_to_the_class_means():
    outputs, target = teacher_pass(5)
    means = F.normalize(torch.stack([outputs.features[target == c].double().mean(dim=0) for c in range(5)]), dim=1)
    method = create()
    method.prepare([(outputs, target)])
    best = (means * method.representation.priors.value).sum()
    assert best > (means * create(assignment="identity").representation.priors.value).sum()


def test_batches_and_their_order_do_not_matter():
    outputs, target = teacher_pass(5)
    one, many = create(), create()
    one.prepare([(outputs, target)])
    pieces = torch.randperm(15, generator=torch.Generator().manual_seed(0)).split(4)
    many.prepare((Outputs(outputs.logits[rows], outputs.features[rows]), target[rows]) for rows in pieces)
    assert torch.equal(one.representation.priors.value, many.representation.priors.value)


def test_preparing_again_gives_the_same():
    method = create()
    method.prepare([teacher_pass(5)])
    first = method.representation.priors.value.clone()
    method.prepare([teacher_pass(5)])
    assert torch.equal(method.representation.priors.value, first)


def test_half_precision_features_are_summed_in_float64():
    """Sixty thousand equal images: a sum in half precision would overflow, one in float32 would drift."""
    features = torch.full((5000, TEACHER_DIM), 20.0, dtype=torch.float16)
    features[:, 0] = 20.0 + torch.arange(5000) % 5
    method = create()
    method.prepare([(Outputs(torch.zeros(5000, 5), features), torch.arange(5000) % 5)] * 12)
    assert method.prepared


def test_identity_needs_no_pass_and_methods_without_priors_read_nothing():
    def explode():
        raise AssertionError("nothing should be read")
        yield

    method = create(assignment="identity")
    assert method.prepared
    method.prepare(explode())
    assert torch.equal(method.representation.priors.value, balanced_prototypes(5, TEACHER_DIM))
    for name in ("ce", "kd", "bkd"):
        plain = create_method(name, class_counts=COUNTS)
        plain.prepare(explode())
        assert plain.prepared


def test_a_prepared_state_dict_prepares():
    method, other = create(), create(prototype_seed=3)
    method.prepare([teacher_pass(5)])
    other.load_state_dict(method.state_dict())
    assert other.prepared
    assert torch.equal(other.representation.priors.value, method.representation.priors.value)
    unprepared = create()
    unprepared.load_state_dict(create().state_dict())
    assert not unprepared.prepared


def test_the_seed_of_the_prototypes():
    first, second = (create(assignment="identity", prototype_seed=seed).representation.priors.value for seed in (0, 1))
    assert not torch.allclose(first, second)
