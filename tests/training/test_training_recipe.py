"""Mixing, averaging and accumulation in the loop: limits in which they are plain training, and resuming."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from distail.config.training import Mix
from distail.data.batches import TrainingBatches
from distail.methods.presets import create_method
from distail.models import FeatureTap
from distail.outputs import Outputs
from distail.training.averaging import AveragedWeights
from distail.training.signals import Interrupted
from distail.training.step import TrainingStep, mixed_terms
from helpers.small_stages import (
    COUNTS,
    CPU,
    Network,
    StopAfter,
    assert_equal_weights,
    balanced,
    images,
    stage,
    train,
    weights,
)


def trained(folder, method="kd", **options):  # type: ignore[no-untyped-def]
    one = stage(method, **options)
    train(one, folder)
    return weights(one)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("kd", {"mix": {"name": "cutmix", "share": 0.5}}),
        ("bkd", {"mix": {"name": "mixup", "share": 0.7, "labels": "distillation_only"}}),
        ("kd", {"ema_decay": 0.9, "optimizer": "adamw"}),
        ("kd", {"accumulation_steps": 3}),
        ("kd", {"ema_decay": 0.9, "accumulation_steps": 2, "mix": {"name": "cutmix"}, "gradient_clip": 1.0}),
    ],
)
def test_stopped_and_resumed_ends_bit_for_bit_like_one_that_was_not(tmp_path, method, options):
    whole = stage(method, validate=balanced, **options)
    fitted = train(whole, tmp_path / "whole")
    for stop_after in (1, 6):
        with pytest.raises(Interrupted):
            train(stage(method, validate=balanced, **options), tmp_path / "parts", reporter=StopAfter(stop_after))
    last = stage(method, validate=balanced, **options)
    resumed = train(last, tmp_path / "parts")
    assert_equal_weights(weights(whole), weights(last))
    assert [row["loss"] for row in fitted.history] == [row["loss"] for row in resumed.history]
    assert [row["validation"] for row in fitted.history] == [row["validation"] for row in resumed.history]
    assert_equal_weights(fitted.best.weights, resumed.best.weights)


@pytest.mark.parametrize(
    "options",
    [
        {"mix": {"name": "mixup", "share": 0.0}},
        {"mix": {"name": "cutmix", "share": 0.0, "labels": "distillation_only"}},
        {"ema_decay": 0.0},
        {"accumulation_steps": 1},
    ],
)
def test_at_their_limits_they_are_plain_training_bit_for_bit(tmp_path, options):
    assert_equal_weights(trained(tmp_path / "plain"), trained(tmp_path / "limit", **options))


@pytest.mark.parametrize("options", [{"mix": {"name": "mixup"}}, {"ema_decay": 0.9}, {"accumulation_steps": 2}])
def test_they_do_something(tmp_path, options):
    plain, other = trained(tmp_path / "plain"), trained(tmp_path / "other", **options)
    assert not torch.equal(plain["classifier.weight"], other["classifier.weight"])


def mixed_batch(labels="mixed"):
    mix = Mix(name="mixup", share=0.5, labels=labels)
    batches = TrainingBatches(images(), batch_size=8, mean=[0.4], std=[0.2], num_classes=3, seed=5, mix=mix)
    return next(batches.epoch(0))


def losses(method, labels):
    torch.manual_seed(0)
    student, teacher = FeatureTap(Network(), 3).eval(), FeatureTap(Network(), 3).eval()
    batch = mixed_batch(labels)
    with torch.no_grad():
        said = teacher(batch.inputs)
    step = TrainingStep(student, method, CPU, distillation_only=labels == "distillation_only").eval()
    _, terms = step(batch.inputs, batch.labels, batch.index, said, batch.mixed)
    return batch, student(batch.inputs).logits, said.logits, terms


def test_every_term_of_a_sample_counts_by_its_weight():
    torch.manual_seed(0)
    student, teacher = FeatureTap(Network(), 3).eval(), FeatureTap(Network(), 3).eval()
    batches = TrainingBatches(images(), batch_size=8, mean=[0.4], std=[0.2], num_classes=3, seed=5)
    batch, method = next(batches.epoch(0)), create_method("kd", class_counts=COUNTS)
    with torch.no_grad():
        said = teacher(batch.inputs)
    weights = torch.rand(len(images()), generator=torch.Generator().manual_seed(1))
    given = (batch.inputs, batch.labels, batch.index, said)
    total, terms = TrainingStep(student, method, CPU, weights=weights).eval()(*given)
    _, plain = TrainingStep(student, method, CPU).eval()(*given)
    weight_B = weights[batch.index]
    torch.testing.assert_close(total, (weight_B * plain.per_sample).mean())
    for name, losses_B in plain.losses.items():
        torch.testing.assert_close(terms[name], (weight_B * losses_B).mean())


def test_cross_entropy_of_mixed_images_is_that_of_the_mixed_label():
    batch, logits, _, terms = losses(create_method("ce", class_counts=COUNTS), "mixed")
    share = batch.mixed.own[:, None]
    soft = share * F.one_hot(batch.labels, 3) + (1 - share) * F.one_hot(batch.mixed.labels, 3)
    assert (batch.mixed.own < 1).sum() == 4
    torch.testing.assert_close(terms["supervised"], F.cross_entropy(logits, soft))


def test_the_teacher_is_compared_on_the_mixed_images_themselves():
    _, logits, said, terms = losses(create_method("kd", class_counts=COUNTS), "mixed")
    kl = F.kl_div((logits / 4).log_softmax(1), (said / 4).softmax(1), reduction="batchmean") * 16
    torch.testing.assert_close(terms["distillation"], 0.9 * kl)


def test_distillation_only_leaves_the_labels_of_mixed_images_out():
    batch, logits, _, terms = losses(create_method("kd", class_counts=COUNTS), "distillation_only")
    plain = batch.mixed.own == 1
    expected = F.cross_entropy(logits[plain], batch.labels[plain], reduction="sum") / len(plain)
    torch.testing.assert_close(terms["supervised"], 0.1 * expected)
    _, _, _, both = losses(create_method("kd", class_counts=COUNTS), "mixed")
    torch.testing.assert_close(terms["distillation"], both["distillation"])
    torch.testing.assert_close(terms.total, terms["supervised"] + terms["distillation"])


def test_repairs_that_look_at_the_label_count_both_labels_by_their_shares():
    method = create_method("drkd", class_counts=COUNTS)
    batch, logits, said, terms = losses(method, "mixed")
    by_hand = [method(Outputs(logits), Outputs(said), labels) for labels in (batch.labels, batch.mixed.labels)]
    expected = mixed_terms(*by_hand, batch.mixed.own, distillation_only=False)
    torch.testing.assert_close(terms.per_sample, expected.per_sample)
    assert not torch.allclose(by_hand[0].per_sample, by_hand[1].per_sample)


def test_complex_weights_are_averaged_too():
    network = nn.ParameterDict({"filter": torch.zeros(1, dtype=torch.complex64), "bias": torch.zeros(1)})
    average = AveragedWeights(network, 0.5)
    for step, value in enumerate([1.0, 4.0], 1):
        for parameter in network.parameters():
            parameter.data.fill_(value)
        average.update(step)
    average.apply()
    assert [parameter.item() for parameter in network.parameters()] == [3.0, 3.0]


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_average_is_the_weighted_mean_of_all_steps_buffers_too(decay):
    torch.manual_seed(0)
    network = Network()
    average, seen = AveragedWeights(network, decay), []
    for step in range(1, 8):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
            network(torch.randn(4, 1, 8, 8))
        average.update(step)
        seen.append({name: value.double().clone() for name, value in network.state_dict().items()})
    factors = [decay ** (7 - step) for step in range(1, 8)]
    for name, value in average.tensors.items():
        expected = sum(f * one[name] for f, one in zip(factors, seen, strict=True)) / sum(factors)
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)
    assert {"body.1.running_mean", "body.1.running_var"} <= average.tensors.keys()
    assert "body.1.num_batches_tracked" not in average.tensors
    before = copy.deepcopy(network.state_dict())
    with average.applied():
        assert torch.equal(network.classifier.weight, average.tensors["classifier.weight"])
    assert_equal_weights(before, network.state_dict())


def test_what_is_validated_and_left_is_the_average(tmp_path):
    seen = []

    def validate(tap):
        seen.append(tap.model.classifier.weight.detach().clone())
        return balanced(tap)

    one = stage("kd", validate=validate, ema_decay=0.9)
    fitted = train(one, tmp_path)
    assert fitted.averaged
    assert torch.equal(seen[-1], one.student.model.classifier.weight)
    assert any(torch.equal(weight, fitted.best.weights["classifier.weight"]) for weight in seen)


def test_parts_of_a_batch_give_the_gradient_of_the_whole(tmp_path):
    def by(parts):  # type: ignore[no-untyped-def]
        one = stage("kd", accumulation_steps=parts, epochs=1)
        for module in one.student.modules():  # what a part alone would decide
            if isinstance(module, torch.nn.BatchNorm2d | torch.nn.Dropout):
                module.train = lambda mode=True: None  # type: ignore[method-assign]
                module.training = False
        fitted = train(one, tmp_path / str(parts))
        return weights(one), fitted.history[0]["loss"]

    (whole, loss), (parts, loss_of_parts) = by(1), by(4)
    assert loss_of_parts == pytest.approx(loss, rel=1e-5)
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-4, atol=1e-6)
