"""Whole runs that begin with stored weights: what is said, what stays frozen, and what a resumed run ends with."""

import json

import pytest
import torch
from safetensors.torch import load_file

from distail.config.schema import Experiment, Model
from distail.data.prepare import prepare_data
from distail.errors import ConfigError
from distail.models import create_model, save_weights
from distail.runner.networks import build_network
from distail.runner.plan import plan_run
from distail.training.signals import Interrupted
from helpers.whole_runs import Killed, Recorder, experiment, run

integration = pytest.mark.integration


def tuned(folder, weights=None, **training):
    model = {"name": "resnet8", **({} if weights is None else {"weights": str(weights)})}
    training = {"epochs": 2, "batch_size": 128, "learning_rate": 0.05, **training}
    return experiment(folder, "ce", teacher=None, student={"model": model}, training=training)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of a network for four classes, in a file of torch.save."""
    path = tmp_path_factory.mktemp("weights") / "pretrained.bin"
    torch.manual_seed(3)
    torch.save(create_model("resnet8", num_classes=4, in_channels=1).state_dict(), path)
    return path


def student(folder):
    return load_file(folder / "student.safetensors")


def notes(folder):
    return json.loads((folder / "result.json").read_text())["notes"]


@integration
def test_a_frozen_backbone_ends_as_its_file_has_it_and_what_was_dropped_is_said_once(tmp_path, weights):
    recorder = Recorder()
    folder = run(tuned(tmp_path / "run", weights, freeze="backbone"), recorder).folder
    stored, ended = torch.load(weights, weights_only=True), student(folder)
    assert {name for name in ended if not torch.equal(ended[name], stored[name])} == {
        "classifier.weight",
        "classifier.bias",
    }
    [note] = [each for each in notes(folder) if "is discarded" in each]
    assert recorder.messages.count(note) == 1
    assert "has 4 classes, the data 10" in note


@integration
def test_a_run_killed_before_and_after_thawing_ends_bit_for_bit_alike(tmp_path, weights):
    options = {
        "epochs": 4,
        "freeze": {"name": "backbone", "epochs": 1},
        "layer_decay": 0.8,
        "classifier_stage": {"epochs": 1, "supervised": "balanced_softmax"},
        "ema_decay": 0.9,
    }
    whole = run(tuned(tmp_path / "whole", weights, **options)).folder
    for stage, step in (("student", 2), ("student", 6), ("student-classifier", 2)):
        with pytest.raises(Interrupted):
            run(tuned(tmp_path / "run", weights, **options), Killed(stage, step))
    again = run(tuned(tmp_path / "run", weights, **options)).folder
    one, other = student(whole), student(again)
    assert all(torch.equal(one[name], other[name]) for name in one)


@integration
def test_freezing_what_is_random_is_told(tmp_path):
    longer = {"name": "backbone", "epochs": 9}
    folder = run(tuned(tmp_path / "run", freeze=longer, epochs=1)).folder
    assert any(note.startswith("training.freeze.epochs: 9 of 1 epoch ") for note in notes(folder))
    assert any(note.startswith("training.freeze: ") and "student.model.weights" in note for note in notes(folder))


@integration
@pytest.mark.parametrize(("frozen", "told"), [(3, False), (4, True)])
def test_a_backbone_that_is_frozen_until_the_classifier_stage_is_told(tmp_path, frozen, told):
    options = {"freeze": {"name": "backbone", "epochs": frozen}, "classifier_stage": {"epochs": 2}}
    warnings = plan_run(tuned(tmp_path / "run", epochs=6, **options)).warnings
    start = f"training.freeze.epochs: {frozen} of 4 epochs before the classifier stage"
    assert any(warning.startswith(start) for warning in warnings) == told


@integration
def test_what_has_no_effect_is_told(tmp_path, weights):
    config = tuned(tmp_path / "run", weights, freeze={"name": "none", "epochs": 5}, epochs=1)
    trained = tmp_path / "checkpoint.safetensors"
    network, names = create_model("resnet8", num_classes=10, in_channels=1), [str(digit) for digit in range(10)]
    save_weights(network, trained, {"class_names": json.dumps(names), "mean": "[0.0]", "std": "[1.0]"})
    config["student"]["checkpoint"] = str(trained)
    folder = run(config).folder
    told = notes(folder)
    assert any(note.startswith("training.freeze.epochs: 5") and "nothing is frozen" in note for note in told)
    [note] = [each for each in told if str(weights) in each]
    assert all(words in note for words in ("student.model.weights", "not used", "student.checkpoint"))
    assert any(str(trained) in note and "mean 0 and std 1" in note for note in told)


def test_other_weights_in_the_file_are_told(tmp_path, weights):
    state, told = torch.load(weights, weights_only=True), []
    torch.save({"model": state, "model_ema": state}, tmp_path / "both.pth")
    model = Model(name="resnet8", weights=tmp_path / "both.pth")
    build_network(model, "linear", prepare_data("digits"), tell=told.append)
    assert sum("weights under 'model' are used, not those under 'model_ema'" in sentence for sentence in told) == 1


def read(**training):
    config = experiment("run", "kd", training={"epochs": 5, **training})
    config["teacher"] = {"model": "same"}
    return Experiment.from_mapping(config)


def test_how_the_keys_are_read():
    assert read().training.frozen_epochs == read(freeze="none").training.frozen_epochs == 0
    assert read(freeze="none") == read(freeze=None) == read()
    assert read(freeze="backbone").training.frozen_epochs == 5
    assert read(freeze={"name": "backbone", "epochs": 2}).training.frozen_epochs == 2
    assert read(freeze={"name": "backbone", "epochs": 20}).training.frozen_epochs == 5
    assert not read().training.rates_by_layer
    assert read(layer_decay=0.7).training.rates_by_layer


def test_a_teacher_of_its_own_is_not_fine_tuned_unless_it_says_so():
    tuned = {"freeze": "backbone", "layer_decay": 0.7, "backbone_learning_rate_factor": 0.1}
    assert (
        read(**tuned, weight_decay_norm_and_bias=False).teacher_training
        == read(weight_decay_norm_and_bias=False).training
    )


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"freeze": "backbon"}, r"training\.freeze\.name: 'backbon' is not valid.*'backbone'"),
        ({"freeze": {"name": "backbone", "epochs": 0}}, r"training\.freeze\.epochs: .*greater than or equal to 1"),
        ({"layer_decay": 1.2}, r"training\.layer_decay: .*less than or equal to 1"),
        ({"backbone_learning_rate_factor": 0}, r"training\.backbone_learning_rate_factor: .*greater than 0"),
    ],
)
def test_what_is_no_fine_tuning_is_refused(training, said):
    with pytest.raises(ConfigError, match=said):
        read(**training)
