"""Networks that begin with stored weights: of which head is dropped, and what is refused."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from distail.errors import CheckpointError, ModelError
from distail.models import create_model, save_weights
from distail.models.new_head import match_classes, nearly_uniform

HEAD = ("classifier.weight", "classifier.bias")


def stored(path, classes=10, change=lambda state: state, **options):
    torch.manual_seed(1)
    state = change(create_model("resnet8", num_classes=classes, **options).state_dict())
    save_file(state, path) if path.suffix == ".safetensors" else torch.save({"state_dict": state, "epoch": 3}, path)
    return state


def begun(path, classes=4, **options):
    told = []
    return create_model("resnet8", num_classes=classes, weights=path, tell=told.append, **options), told


def first_loss(model, classes):
    with torch.no_grad():
        logits = model.eval()(torch.randn(40, 3, 16, 16))
    return nn.functional.cross_entropy(logits, torch.arange(40) % classes).item()


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.bin"])
@pytest.mark.parametrize("classifier", ["linear", "cosine"])
def test_a_head_of_other_classes_is_dropped_and_said_once(tmp_path, name, classifier):
    state = stored(tmp_path / name, classifier=classifier)
    model, told = begun(tmp_path / name, classifier=classifier)
    [sentence] = told
    assert all(word in sentence for word in (name, "10 classes", "classifier.weight", "data 4"))
    own = model.state_dict()
    assert all(torch.equal(own[key], state[key]) for key in own if key not in HEAD)
    assert first_loss(model, 4) == pytest.approx(math.log(4), abs=0.02)


def test_a_linear_head_gives_way_to_a_cosine_one(tmp_path):
    stored(tmp_path / "a.pth")
    model, [sentence] = begun(tmp_path / "a.pth", classifier="cosine")
    assert "10 classes" in sentence
    assert first_loss(model, 4) == pytest.approx(math.log(4), abs=0.02)


def test_a_head_of_as_many_classes_is_kept_and_nothing_said(tmp_path):
    state = stored(tmp_path / "a.pth")
    model, told = begun(tmp_path / "a.pth", classes=10)
    assert told == []
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_weights_without_a_head(tmp_path):
    stored(tmp_path / "a.pth", change=lambda state: {key: state[key] for key in state if key not in HEAD})
    model, told = begun(tmp_path / "a.pth")
    assert len(told) == 1
    assert "has no head (classifier.weight, classifier.bias)" in told[0]
    assert first_loss(model, 4) == pytest.approx(math.log(4), abs=0.02)


def lacks_and_has_more(state):
    return {**{key: state[key] for key in state if not key.startswith("body.stem.0")}, "more": torch.zeros(2)}


def is_of_another_shape(state):
    return {**state, "body.stem.0.weight": torch.zeros(16, 1, 3, 3), "more": torch.zeros(2)}


def has_half_a_head(state):
    return {key: state[key] for key in state if key != "classifier.bias"}


def is_of_other_features(state):
    return {**state, "classifier.weight": torch.zeros(10, 3)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lacks_and_has_more, ("1 missing in the file: body.stem.0.weight", "1 in the file but not in the model: more")),
        (is_of_another_shape, ("body.stem.0.weight (16, 1, 3, 3) in the file", "not in the model: more")),
        (has_half_a_head, ("1 missing in the file: classifier.bias",)),
        (is_of_other_features, ("classifier.weight (10, 3) in the file",)),
    ],
)
def test_whatever_else_does_not_fit_is_listed(tmp_path, change, said):
    stored(tmp_path / "a.pth", change=change)
    with pytest.raises(ModelError) as caught:
        begun(tmp_path / "a.pth")
    assert all(words in str(caught.value) for words in said)


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    stored(
        tmp_path / "a.pth", change=lambda state: {**state, "body.stem.0.weight": torch.full((16, 3, 3, 3), math.nan)}
    )
    with pytest.raises(CheckpointError, match="nan or infinity"):
        begun(tmp_path / "a.pth")


NAMES = ("cat", "dog", "owl", "yak")


def named(path, names=NAMES, classifier="linear"):
    """A trained network of four classes, in a file that names them."""
    torch.manual_seed(1)
    network = create_model("resnet8", num_classes=4, classifier=classifier).eval()
    save_weights(network, path, {"class_names": json.dumps(names)})
    return network


@pytest.mark.parametrize("classifier", ["linear", "cosine"])
def test_classes_in_another_order_are_found_by_name(tmp_path, classifier):
    path, images = tmp_path / "a.safetensors", torch.randn(5, 3, 16, 16)
    network = named(path, classifier=classifier)
    other = ("yak", "cat", "owl", "dog")
    model, [sentence] = begun(path, class_names=other, classifier=classifier)
    expected = network(images)[:, [NAMES.index(name) for name in other]]
    torch.testing.assert_close(model.eval()(images), expected)
    assert all(words in sentence for words in (str(path), "another order", "classifier"))


@pytest.mark.parametrize("names", [("ant", "bee", "fly", "gnu"), ("cat", "dog", "owl", "gnu")])
def test_a_head_of_as_many_other_classes_is_dropped_and_said(tmp_path, names):
    path = tmp_path / "a.safetensors"
    network = named(path)
    model, [sentence] = begun(path, class_names=names)
    assert first_loss(model, 4) == pytest.approx(math.log(4), abs=0.02)
    assert all(words in sentence for words in (str(path), "yak", "gnu", "is discarded"))
    body = {name: value for name, value in network.state_dict().items() if name not in HEAD}
    assert all(torch.equal(model.state_dict()[name], value) for name, value in body.items())


def test_the_same_classes_keep_their_head_without_a_word(tmp_path):
    path = tmp_path / "a.safetensors"
    network = named(path)
    model, told = begun(path, class_names=NAMES)
    assert told == []
    assert all(torch.equal(network.state_dict()[name], value) for name, value in model.state_dict().items())


class TwoHeads(nn.Module):
    """Two classifiers, and a hidden layer that is as wide as they are."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head, self.head_dist = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def get_classifier(self):
        return self.head, self.head_dist

    def forward(self, rows):
        seen = torch.relu(self.hidden(rows))
        return (self.head(seen) + self.head_dist(seen)) / 2


def test_only_what_classifies_is_reordered_and_all_of_it(tmp_path):
    path, rows, told = tmp_path / "a.safetensors", torch.randn(5, 3), []
    network = TwoHeads()
    save_weights(network, path, {"class_names": json.dumps(NAMES)})
    expected = network(rows).flip(1)
    match_classes(network, path, NAMES[::-1], rows, what="mine", tell=told.append)
    torch.testing.assert_close(network(rows), expected)
    assert len(told) == 1
    assert "head, head_dist" in told[0]


def test_class_names_that_are_damaged_are_told(tmp_path):
    save_weights(TwoHeads(), tmp_path / "a.safetensors", {"class_names": "[1, 2"})
    with pytest.raises(CheckpointError, match="class_names"):
        match_classes(TwoHeads(), tmp_path / "a.safetensors", NAMES, torch.ones(2, 3), what="mine", tell=print)


def test_without_anyone_to_tell_it_is_a_warning(tmp_path):
    stored(tmp_path / "a.pth")
    with pytest.warns(UserWarning, match="is discarded"):
        create_model("resnet8", num_classes=4, weights=tmp_path / "a.pth")


def test_what_is_no_classifier_is_left_as_it_is():
    module = nn.LayerNorm(4)
    nearly_uniform(module)
    assert torch.equal(module.weight, torch.ones(4))
