"""The multilayer perceptron, and networks that take other inputs than images."""

import pytest
import torch
from torch import nn

from distail.errors import ModelError
from distail.models import FeatureTap, check_model, create_model


def test_mlp_is_what_its_docstring_says():
    network = create_model("mlp", num_classes=3, example=torch.zeros(2, 13), hidden=8, depth=2, dropout=0.5).eval()
    weights = network.state_dict()
    inputs = torch.randn(5, 13)
    found = inputs
    names = [name.removesuffix(".weight") for name in weights if name.startswith("body") and name.endswith("weight")]
    assert len(names) == 2
    for name in names:
        found = (found @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]).clamp(min=0)
    outputs = FeatureTap(network, 3)(inputs)
    torch.testing.assert_close(outputs.features, found)
    torch.testing.assert_close(outputs.logits, found @ weights["classifier.weight"].T + weights["classifier.bias"])
    assert any(isinstance(layer, nn.Dropout) and layer.p == 0.5 for layer in network.modules())


def test_mlp_of_images_and_without_hidden_layers():
    assert create_model("mlp", num_classes=3, in_channels=1, image_size=8)(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    linear = create_model("mlp", num_classes=3, example=torch.zeros(2, 5, 7), depth=0)
    assert FeatureTap(linear, 3)(torch.zeros(2, 5, 7)).features.shape == (2, 35)


@pytest.mark.parametrize(
    ("name", "example", "said"),
    [
        ("resnet8", torch.zeros(2, 13), ["resnet8", "mlp"]),
        ("mlp", torch.zeros(2, 13, dtype=torch.int64), ["whole numbers"]),
        ("mlp", {"ids": torch.zeros(2, 13)}, ["'ids': (2, 13)"]),
    ],
)
def test_inputs_that_a_network_does_not_take(name, example, said):
    with pytest.raises(ModelError) as told:
        create_model(name, num_classes=3, example=example)
    assert [each for each in said if each not in str(told.value)] == []


def test_options_of_others_are_refused():
    with pytest.raises(ModelError, match="hidden"):
        check_model("resnet8", hidden=8)
    check_model("mlp", hidden=8, depth=1, dropout=0.1)


class Text(nn.Module):
    """As networks for text are: keywords in, an object with logits out."""

    def __init__(self, num_classes):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.head = nn.Linear(6, num_classes)

    def forward(self, input_ids, attention_mask, labels=None):
        assert labels is None
        mean = (self.embedding(input_ids) * attention_mask[..., None]).sum(1) / attention_mask.sum(1, keepdim=True)
        input_ids.zero_()  # what it does to its inputs is its own affair
        return {"logits": self.head(mean), "hidden": mean}


def test_keywords_reach_the_network_and_its_features_are_tapped():
    network = Text(4)
    inputs = {"attention_mask": torch.ones(3, 5), "input_ids": torch.randint(11, (3, 5))}
    before = inputs["input_ids"].clone()
    outputs = FeatureTap(network, 4)(**inputs)
    torch.testing.assert_close(outputs.features, network.embedding(before).mean(1))
    torch.testing.assert_close(outputs.logits, network.head(outputs.features))
    assert torch.equal(inputs["input_ids"], before)
