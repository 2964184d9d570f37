"""Number formats of a run: chosen by structure, stored, never chosen again."""

import json

import pytest
import torch
import yaml

from distail.config.precision import Precisions, read_precision
from distail.config.schema import Experiment
from distail.data.prepare import prepare_data
from distail.errors import ConfigError
from distail.models import create_model
from distail.runner import precision as chosen
from distail.runner.run_folder import RunFolder
from distail.training import device
from distail.training import precision as rule
from distail.training.distributed import SINGLE_PROCESS
from distail.training.precision import depthwise_share, faster_in_training
from helpers.whole_runs import Recorder, experiment, run

CPU = torch.device("cpu")


@pytest.fixture
def fast_bf16(monkeypatch):
    """A processor with bf16 in its hardware, whatever this one has."""
    for module in (device, rule):
        monkeypatch.setattr(module, "supports_fast_bf16", lambda where: True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("resnet20", "bf16"), ("resnext29", "bf16"), ("vgg8", "bf16"), ("mobilenetv2", "fp32"), ("shufflenetv2", "fp32")],
)
def test_what_a_cpu_trains_in(fast_bf16, name, expected):
    assert faster_in_training(create_model(name, num_classes=3), CPU) == expected
    assert faster_in_training(create_model(name, num_classes=3), torch.device("cuda")) == "bf16"


def test_without_the_hardware_it_is_float32(monkeypatch):
    monkeypatch.setattr(rule, "supports_fast_bf16", lambda where: False)
    assert faster_in_training(create_model("resnet8", num_classes=3), CPU) == "fp32"


def test_a_stem_of_gray_images_is_no_depthwise_convolution():
    assert depthwise_share(create_model("resnet8", num_classes=3, in_channels=1)) == 0


def tiny(folder, student="mobilenetv2", teacher="resnet8", **changes):
    data = {"name": "digits", "imbalance_factor": 20, "image_size": 16, "validation": 0}
    training = {"epochs": 1, "batch_size": 256, "learning_rate": 0.01}
    method, section = ("ce", None) if teacher is None else ("kd", {"model": teacher})
    return experiment(
        folder, method, data=data, student=student, teacher=section, training=training, **{"trainer": {}, **changes}
    )


@pytest.mark.integration
def test_each_network_has_its_own_and_a_resumed_run_those_that_it_began_with(fast_bf16, tmp_path, monkeypatch):
    recorder = Recorder()
    config = tiny(tmp_path / "run", trainer={"device": "cpu"})
    folder = run(config, recorder).folder
    stored = {"student": "fp32", "teacher": "bf16", "teacher_inference": "bf16"}
    assert yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["precision"] == stored
    result = json.loads((folder / "result.json").read_text())
    assert result["versions"]["precision"] == "fp32"
    assert result["identity"]["experiment"]["trainer"]["precision"] == stored
    [told] = [message for message in recorder.messages if message.startswith("trainer.precision: ")]
    assert "the student in fp32" in told
    assert told in result["notes"]
    # On another processor it would choose otherwise, and goes on as it began.
    monkeypatch.setattr(device, "supports_fast_bf16", lambda where: False)
    (folder / "result.json").unlink()
    again = run(config, Recorder()).folder
    assert yaml.safe_load((again / "config.yaml").read_text())["trainer"]["precision"] == stored
    assert json.loads((again / "result.json").read_text())["versions"]["precision"] == "fp32"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("bf16", "bf16"),
        ({"student": "bf16"}, "bf16"),
        ({"teacher_inference": "fp32"}, {"student": "fp32", "teacher": "bf16", "teacher_inference": "fp32"}),
    ],
)
def test_what_a_user_says_wins(fast_bf16, tmp_path, given, expected):
    asked = Experiment.from_mapping(tiny(tmp_path / "run", trainer={"device": "cpu", "precision": given}))
    data = prepare_data(asked.data, seed=0)
    runtime, formats, _ = chosen.select_run_device(asked, None, data, SINGLE_PROCESS)
    assert read_precision(formats) == read_precision(expected)
    assert runtime.precision == Precisions.of(read_precision(expected)).student


def test_without_a_teacher_there_is_one_format(fast_bf16, tmp_path):
    asked = Experiment.from_mapping(tiny(tmp_path / "run", teacher=None, trainer={"device": "cpu"}))
    _, formats, notes = chosen.select_run_device(asked, None, prepare_data(asked.data, seed=0), SINGLE_PROCESS)
    assert read_precision(formats) == "fp32"
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("began", "asked", "same"),
    [
        ("bf16", "auto", True),
        ("bf16", "fp32", False),
        ({"student": "fp32", "teacher": "bf16", "teacher_inference": "bf16"}, "auto", True),
        ({"student": "fp32", "teacher": "bf16", "teacher_inference": "bf16"}, {"student": "fp32"}, True),
        ({"student": "fp32", "teacher": "bf16", "teacher_inference": "bf16"}, {"student": "bf16"}, False),
    ],
)
def test_another_format_is_another_run(tmp_path, began, asked, same):
    folder = RunFolder(tmp_path)
    stored = Experiment.from_mapping(tiny(tmp_path, trainer={"precision": began}))
    (tmp_path / "config.yaml").write_text(stored.to_yaml())
    wanted = Experiment.from_mapping(tiny(tmp_path, trainer={"precision": asked}))
    if same:
        assert folder.stored_experiment(wanted) == stored
    else:
        with pytest.raises(ConfigError, match=r"trainer\.precision"):
            folder.stored_experiment(wanted)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("fp16", r"trainer\.precision: 'fp16' is not valid.*bf16"),
        ({"student": "fp16"}, r"trainer\.precision: student: 'fp16' is not valid.*bf16"),
        ({"studnt": "fp32"}, r"trainer\.precision: studnt: unknown key.*'student'"),
        (16, r"trainer\.precision: 16 is not valid"),
    ],
)
def test_what_is_no_format(tmp_path, given, said):
    with pytest.raises(ConfigError, match=said):
        Experiment.from_mapping(tiny(tmp_path, trainer={"precision": given}))
