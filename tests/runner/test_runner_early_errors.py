"""What is wrong with the student is told before its teacher is trained."""

import json

import pytest
from safetensors.torch import load_file, save_file

from distail.errors import ConfigError, DistailError
from distail.runner.checks import read_experiment
from distail.runner.plan import plan_run
from helpers.whole_runs import Recorder, experiment, run


class OnlyUntrained(Recorder):
    def start(self, stage, epochs, steps_per_epoch, done_steps):
        raise AssertionError(f"training of the {stage} has begun")


def refused(folder, student):
    wrong = experiment(folder, "kd", student=student, teacher={"model": "resnet8"})
    with pytest.raises(DistailError) as caught:
        run(wrong, OnlyUntrained())
    assert not (folder / "config.yaml").exists(), "the run with a better student would be another one"
    return str(caught.value)


def test_a_square_of_cutout_that_erases_whole_images(tmp_path):
    data = {"name": "digits", "augment": [{"name": "cutout", "length": 16}]}
    wrong = experiment(tmp_path / "run", "ce", teacher=None, data=data)
    for attempt in (lambda: run(wrong, OnlyUntrained()), lambda: plan_run(wrong)):
        with pytest.raises(DistailError, match=r"length 16 .* 8 x 8 pixels; expected fewer than 8, such as 4"):
            attempt()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A resnet8 for digits."""
    folder = tmp_path_factory.mktemp("weights") / "run"
    run(experiment(folder, "ce", teacher=None, training={"epochs": 1, "batch_size": 256}))
    return folder / "student.safetensors"


def test_a_network_of_the_users_own_that_fails_or_does_not_fit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.py").write_text(
        "from torch import nn\n"
        "def wrong(in_channels): return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, 7))\n"
        "def broken(): raise OSError('no such licence')\n"
    )
    assert "must give logits (2, 10), got shape (2, 7)" in refused(tmp_path / "run", "tiny:wrong")
    assert "'tiny:broken' failed with OSError: no such licence" in refused(tmp_path / "run", "tiny:broken")
    assert "'os:getcwd' must return a torch.nn.Module, got str" in refused(tmp_path / "run", "os:getcwd")


def test_a_checkpoint_that_is_no_weights_or_of_another_network(tmp_path, weights):
    text = tmp_path / "d.yaml"
    text.write_text("name: d\n")
    said = refused(tmp_path / "run", {"model": "resnet8", "checkpoint": str(text)})
    assert f"{text} is not a safetensors file" in said
    said = refused(tmp_path / "run", {"model": "resnet20", "checkpoint": str(weights)})
    assert said.startswith(f"student: {weights} does not fit ")


def test_a_checkpoint_of_other_classes_or_of_these_in_another_order(tmp_path, weights):
    names = [str(i) for i in range(10)]
    path = tmp_path / "other.safetensors"
    for stored, said in (
        ([*names[:9], "ten"], "only in the data: ['9'], only in the student: ['ten']"),
        (names[::-1], "class 0 is '9' for the student and '0' in the data"),
    ):
        save_file(load_file(weights), path, {"class_names": json.dumps(stored)})
        assert said in refused(tmp_path / "run", {"model": "resnet8", "checkpoint": str(path)})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"teacher": {"model": "resnet8", "training": {"epoch": 100}}}, "Did you mean 'epochs'"),
        ({"teacher": {"model": "resnet8", "training": {"learning_rate": -1}}}, "teacher.training.learning_rate"),
        ({"data": {"name": "digits", "augment": [{"name": "random_resized_crop", "scale": 0.5}]}}, "two numbers"),
        ({"data": {"name": "digits", "augment": [{"name": "random_resized_crop", "scale": [0.5]}]}}, "two numbers"),
        ({"data": {"name": "digits", "augment": [{"name": "random_erasing", "ratio": []}]}}, "two numbers"),
    ],
)
def test_wrong_keys_inside_sections_are_told_and_crash_nothing(changes, said):
    config = {"name": "any", "teacher": {"model": "resnet8"}, "student": "resnet8", "method": "kd", **changes}
    with pytest.raises(ConfigError, match=said) as caught:
        read_experiment({"data": {"name": "digits"}} | config)
    assert len(caught.value.problems) == 1, caught.value
