"""Networks that begin with stored weights: of which head is dropped, and what is refused."""

import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from distail.errors import CheckpointError, ModelError
from distail.models import create_model
from distail.models.new_head import nearly_uniform

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
    assert all(word in sentence for word in (name, "10 classes", "classifier.weight", "data of 4"))
    own = model.state_dict()
    assert all(torch.equal(own[key], state[key]) for key in own if key not in HEAD)
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
    assert "holds no head (classifier.weight, classifier.bias)" in told[0]
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


def test_without_anyone_to_tell_it_is_a_warning(tmp_path):
    stored(tmp_path / "a.pth")
    with pytest.warns(UserWarning, match="is dropped"):
        create_model("resnet8", num_classes=4, weights=tmp_path / "a.pth")


def test_what_is_no_classifier_is_left_as_it_is():
    module = nn.LayerNorm(4)
    nearly_uniform(module)
    assert torch.equal(module.weight, torch.ones(4))
