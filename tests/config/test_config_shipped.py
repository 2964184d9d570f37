"""Every configuration that ships is a valid experiment, says how to run it, and holds the published settings."""

import pytest
import yaml

from distail.config.schema import Experiment
from distail.config.shipped import list_configs
from distail.errors import DataError
from distail.methods.preset_table import PRESETS
from distail.runner.checks import check

CONFIGS = list_configs()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_shipped_configuration_is_valid_and_begins_with_its_command(name):
    text = CONFIGS[name]
    first = text.splitlines()[0]
    assert first == f"# distail run configs/{name}.yaml"
    experiment = Experiment.from_mapping(yaml.safe_load(text))
    assert experiment.name.startswith(name)
    assert text.splitlines()[1].startswith(("# [run here] ", "# [config only] "))
    if experiment.data.root is None:
        check(experiment)
    else:  # a template, in which nothing is wrong but that there are no data
        with pytest.raises(DataError, match=r"data\.root"):
            check(experiment)


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("factor", [10, 50, 100])
def test_the_published_settings_of_bkd(classes, factor):
    experiment = Experiment.from_mapping(yaml.safe_load(CONFIGS[f"cifar{classes}-lt-{factor}-bkd"]))
    training = experiment.training
    assert (training.learning_rate, training.momentum, training.weight_decay, training.batch_size, training.epochs) == (
        0.1,
        0.9,
        2e-4,
        128,
        200,
    )
    assert training.schedule.milestones == (160, 180)
    assert training.schedule.factors == (0.01, 0.0001)
    assert training.schedule.warmup_epochs == 5
    assert experiment.data.imbalance_factor == factor
    assert experiment.data.validation == 0
    assert experiment.data.augment == ("crop", "flip")
    assert experiment.teacher.model == experiment.student.model
    assert experiment.student.model.shortcut == "pad"
    assert experiment.method["temperature"] == 2.0
    assert experiment.method.get("defer_until", 0) == (0.8 if classes == 10 else 0)


@pytest.mark.parametrize(
    ("name", "share", "temperature", "multiplier", "batch", "classes"),
    [
        ("cifar100-drkd-mobilenetv2", 0.95, 20, 1, 128, 100),
        ("cifar100-drkd-shufflenetv2", 0.95, 20, 1, 128, 100),
        ("cifar100-drkd-resnet18", 0.95, 6, 50, 128, 100),
        ("cifar100-drkd-googlenet", 0.4, 20, 50, 64, 100),
        ("cifar100-drkd-densenet121", 0.9, 20, 50, 100, 100),
        ("cifar100-drkd-resnext29", 0.9, 20, 100, 64, 100),
        ("tiny-imagenet-drkd-resnet18", 0.95, 6, 50, 128, 200),
    ],
)
def test_the_published_settings_of_drkd_converted(name, share, temperature, multiplier, batch, classes):
    experiment = Experiment.from_mapping(yaml.safe_load(CONFIGS[name]))
    own = {"mobilenetv2": "mobilenetv2-full", "shufflenetv2": "shufflenetv2-stem3"}  # theirs, not RepDistiller's
    published = name.rpartition("-")[2]
    assert experiment.student.model.name == own.get(published, published)
    assert experiment.training.batch_size == batch
    assert experiment.training.learning_rate == pytest.approx(0.1 * batch / 128)
    assert experiment.method["temperature"] == temperature
    assert experiment.method["supervised_weight"] == pytest.approx(1 - share)
    assert experiment.method["distillation_weight"] == pytest.approx(share * multiplier / classes)
    assert experiment.training.schedule.factors == pytest.approx((0.2, 0.2**2, 0.2**3))
    assert experiment.teacher.model.name == "same"


IN_ONE_STAGE = "cifar100-ipwd-one-stage-resnet18"


def test_one_stage_ipwd_is_trained_as_ps_kd_is():
    training = Experiment.from_mapping(yaml.safe_load(CONFIGS[IN_ONE_STAGE])).training
    assert (training.batch_size, training.epochs, training.weight_decay, training.nesterov) == (128, 300, 5e-4, True)
    assert training.learning_rate == 0.1
    assert (training.schedule.milestones, training.schedule.factors) == ((150, 225), (0.1, 0.01))


@pytest.mark.parametrize(
    "name", [name for name in CONFIGS if name.startswith("cifar100-ipwd") and name != IN_ONE_STAGE]
)
def test_the_published_settings_of_ipwd(name):
    training = Experiment.from_mapping(yaml.safe_load(CONFIGS[name])).training
    light = name.endswith(("mobilenetv2", "shufflenetv1", "shufflenetv2"))
    assert training.learning_rate == (0.01 if light else 0.05)
    assert (training.batch_size, training.epochs, training.weight_decay) == (64, 240, 5e-4)
    assert training.schedule.milestones == (150, 180, 210)


def test_bkd_is_what_the_configurations_and_the_table_share():
    assert PRESETS["bkd"].composition["temperature"] == 2.0
