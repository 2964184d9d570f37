"""Fine-tuning in the loop: what is frozen does not move, what is slow is slower, and both survive a resume."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from distail.config.schema import Training
from distail.data.batches import TrainingBatches
from distail.errors import ModelError
from distail.models import FeatureTap, create_model
from distail.models.feature_tap import with_its_equals
from distail.models.timm_bridge import TimmModel
from distail.training.freezing import Freezing
from distail.training.parameter_groups import RATE, network_layers, parameter_groups
from distail.training.signals import Interrupted
from helpers.small_stages import StopAfter, assert_equal_weights, balanced, images, stage, train, weights

HEAD = "classifier"
STEPS_PER_EPOCH = 5  # 35 images in batches of 8, the last of which holds what is left


def fine_tuned(frozen_epochs, **options):
    return replace(stage(**options), classifiers=[HEAD], frozen_epochs=frozen_epochs)


def is_of_head(name):
    return name.startswith(f"{HEAD}.")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_what_is_frozen_does_not_move_and_the_rest_does(tmp_path, optimizer, ema_decay):
    frozen = fine_tuned(2, optimizer=optimizer, epochs=2, ema_decay=ema_decay, validate=balanced)
    before = weights(frozen)
    fitted = train(frozen, tmp_path)
    after = weights(frozen)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved == {name for name in after if is_of_head(name)}
    assert all(parameter.requires_grad for parameter in frozen.student.parameters())
    assert {name for name in moved if not torch.equal(before[name], fitted.best.weights[name])} == moved


def test_after_the_frozen_epochs_everything_moves(tmp_path):
    thawed = fine_tuned(1, epochs=2, validate=balanced)
    before = weights(thawed)
    train(thawed, tmp_path)
    after = weights(thawed)
    assert {name for name in after if torch.equal(before[name], after[name])} == set()
    assert int(after["body.1.num_batches_tracked"]) == STEPS_PER_EPOCH


@pytest.mark.parametrize("steps", [2, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1, 2 * STEPS_PER_EPOCH])
@pytest.mark.parametrize("every", [3, 1000])
def test_a_stopped_stage_ends_with_the_same_bits(tmp_path, steps, every):
    options = {
        "epochs": 3,
        "optimizer": "adamw",
        "ema_decay": 0.8,
        "layer_decay": 0.5,
        "backbone_learning_rate_factor": 0.3,
        "weight_decay_norm_and_bias": False,
        "validate": balanced,
    }
    whole = fine_tuned(1, **options)
    train(whole, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(fine_tuned(1, **options), tmp_path / "stopped", every, StopAfter(steps))
    resumed = fine_tuned(1, **options)
    train(resumed, tmp_path / "stopped", every)
    assert_equal_weights(weights(whole), weights(resumed))


def test_rates_of_layers_and_decay_are_those_of_plain_steps_by_hand(tmp_path):
    """One step of plain SGD: each parameter moves by its rate times gradient and decay."""
    plain = {"epochs": 1, "batch_size": 64, "momentum": 0.0, "learning_rate": 0.1, "schedule": {"name": "constant"}}
    moved = {}
    for decay in (0.0, 0.5):
        for rates in ({}, {"layer_decay": 0.5, "backbone_learning_rate_factor": 0.2}):
            one = stage(**plain, weight_decay=decay, **rates, weight_decay_norm_and_bias=False)
            one = replace(one, classifiers=[HEAD], batches=all_at_once())
            before = weights(one)
            train(one, tmp_path / f"{decay}{len(rates)}")
            after = weights(one)
            moved[decay, bool(rates)] = {name: after[name] - before[name] for name in before}, before
    factors = {"body.0": 0.2 * 0.5, "body.1": 0.2 * 0.5, HEAD: 1.0}
    for name, gradient_step in moved[0.0, False][0].items():
        if "running" in name or "tracked" in name:
            continue
        factor = factors[name.rpartition(".")[0]]
        torch.testing.assert_close(moved[0.0, True][0][name], factor * gradient_step, rtol=1e-4, atol=1e-7)
        decayed = -0.1 * 0.5 * moved[0.0, False][1][name] if moved[0.0, False][1][name].ndim > 1 else 0.0
        expected = factor * (gradient_step + decayed)
        torch.testing.assert_close(moved[0.5, True][0][name], expected, rtol=1e-4, atol=1e-7)


def all_at_once():
    return TrainingBatches(images(), batch_size=64, mean=[0.4], std=[0.2], augment=[], num_classes=3, seed=5)


def test_by_default_there_is_one_group_and_everything_decays():
    network = create_model("resnet8", num_classes=3)
    [group] = parameter_groups(network, network.parameters(), [nn.Parameter(torch.zeros(2))], Training())
    assert (group["weight_decay"], group[RATE]) == (Training().weight_decay, 1.0)
    assert len(group["params"]) == len(list(network.parameters())) + 1


@pytest.mark.parametrize(
    ("name", "blocks"), [("resnet20", 9), ("wrn-16-2", 6), ("densenet121", 58), ("googlenet", 9), ("mobilenetv2", 17)]
)
def test_a_layer_is_a_block_of_the_network(name, blocks):
    network = create_model(name, num_classes=7)
    layers = network_layers(network, "classifier")
    assert sorted(each for layer in layers for each in layer) == sorted(name for name, _ in network.named_parameters())
    assert all(is_of_head(each) for each in layers[-1])
    assert all(".stem." in each for each in layers[0])
    assert sum(".stage" in layer[0] for layer in layers) == blocks


def test_a_classifier_that_is_not_trainable_cannot_be_all_that_is_trained():
    tap = FeatureTap(create_model("resnet8", num_classes=3), 3)
    tap.model.classifier.requires_grad_(False)
    with pytest.raises(ModelError, match="'classifier' is not trainable"):
        Freezing(tap, ["classifier"], 1)


class Distilled(nn.Module):
    """Two classifiers whose mean is the answer, and what such networks of timm say of themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.table = nn.Parameter(torch.randn(1, 1, 6)), nn.Parameter(torch.randn(5, 2))
        self.body, self.head, self.head_dist = nn.Linear(6, 6), nn.Linear(6, 3), nn.Linear(6, 3)

    def no_weight_decay(self):
        return {"token", "table", "not.here"}

    def get_classifier(self):
        return self.head, self.head_dist

    def forward(self, rows):
        seen = torch.relu(self.body(rows) + self.token[0]) * self.table.sum()
        return (self.head(seen) + self.head_dist(seen)) / 2


def test_what_a_network_says_does_not_decay():
    network = Distilled()
    names = {id(parameter): name for name, parameter in network.named_parameters()}

    def decaying(network=network, **options):
        groups = parameter_groups(network, network.parameters(), [], Training(**options))
        return {names[id(each)] for group in groups if group["weight_decay"] for each in group["params"]}

    assert decaying(weight_decay_norm_and_bias=False) == {"body.weight", "head.weight", "head_dist.weight"}
    assert decaying() == set(names.values())
    wrapped = TimmModel(network)
    names |= {id(parameter): name.removeprefix("model.") for name, parameter in wrapped.named_parameters()}
    assert decaying(wrapped, weight_decay_norm_and_bias=False) == {"body.weight", "head.weight", "head_dist.weight"}
    network.no_weight_decay = lambda: {"head.*", "t*n", "table"}  # as XCiT of timm names a module
    assert decaying(weight_decay_norm_and_bias=False) == {"body.weight", "head_dist.weight"}


@pytest.mark.parametrize("wrap", [lambda network: network, TimmModel])
def test_all_classifiers_of_a_network_are_trained_while_the_rest_is_frozen(wrap):
    tap = FeatureTap(wrap(Distilled()), 3)
    heads = with_its_equals(tap.model, tap.classifier_path, 3)
    freezing = Freezing(tap, heads, 1)
    freezing.begin(0)
    trained = {name.removeprefix("model.") for name, each in tap.model.named_parameters() if each.requires_grad}
    assert trained == {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}
    assert len(freezing.trained_until(1)) == 4
    *_, last = network_layers(tap.model, *heads)
    assert {name.removeprefix("model.") for name in last} == trained
