"""Batch normalization folded into convolutions: the same answers, and nothing folded that is not safe to fold."""

import pytest
import torch
from torch import nn

from distail.models import FeatureTap, create_model
from distail.models.folding import folded


def trained_a_little(network: nn.Module) -> nn.Module:
    """Statistics and scales as no fresh network has them."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return network.eval()


def normalizations(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    "name", ["resnet8", "resnet20", "wrn-16-2", "mobilenetv2", "shufflenetv2", "vgg8", "densenet121"]
)
def test_logits_and_features_stay_the_same(name):
    tap = trained_a_little(FeatureTap(create_model(name, num_classes=7), 7))
    images = torch.randn(3, 3, 32, 32)
    fewer = folded(tap, images)

    assert normalizations(fewer) < normalizations(tap)
    with torch.no_grad():
        said, expected = fewer(images), tap(images)
    for one, other in ((said.logits, expected.logits), (said.features, expected.features)):
        assert (one - other).abs().max() <= 1e-4 * other.std()


def test_the_network_itself_is_not_touched():
    network = trained_a_little(create_model("resnet8", num_classes=5))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded(network, torch.randn(2, 3, 32, 32))
    assert list(before) == list(network.state_dict())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_residual_network_loses_all():
    fewer = folded(trained_a_little(create_model("resnet8", num_classes=5)), torch.randn(2, 3, 32, 32))
    assert normalizations(fewer) == 0


class Twice(nn.Module):
    """One convolution that two normalizations read, and one that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.other = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.again, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, images):
        seen = self.conv(images)
        both = self.one(seen) + self.other(seen)
        return self.norm(self.again(self.again(both))).flatten(1)


class Hooked(nn.Module):
    """Something else happens where a trace sees none of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.conv.register_forward_hook(lambda module, inputs, output: output * 2)

    def forward(self, images):
        return self.norm(self.conv(images)).flatten(1)


class Untraceable(nn.Module):
    """A branch on values around a part that can be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))

    def forward(self, images):
        return self.body(images if images.sum() > 0 else -images).flatten(1)


@pytest.mark.parametrize("kind", [Twice, Hooked])
def test_what_is_not_safe_stays(kind):
    network = trained_a_little(kind())
    assert folded(network, torch.randn(2, 3, 4, 4)) is network


def test_parts_of_a_network_that_cannot_be_traced():
    network, images = trained_a_little(Untraceable()), torch.randn(2, 3, 4, 4)
    fewer = folded(network, images)
    assert normalizations(fewer) == 0
    torch.testing.assert_close(fewer(-images), network(-images))
