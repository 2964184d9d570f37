"""Experiments: what is accepted, what is refused, and in which words."""

import pickle
import re

import pytest
import yaml

import distail
from distail.config.reading import apply_overrides, load_plain_yaml, read_yaml
from distail.config.schema import Experiment, Training, WrongExperiment
from distail.errors import ConfigError

MINIMAL = {"name": "quick", "data": {"name": "digits"}, "student": "resnet8", "method": "ce"}
WHOLE = """
name: cifar100-lt-bkd
seed: 0
output: runs/cifar100-lt-bkd-seed0
data: {name: cifar100, root: null, imbalance_factor: 100, profile: exp, validation: 0.1, augment: [crop, flip],
       sampler: instance}
teacher: {model: {name: resnet32, shortcut: pad}, supervised: ce, checkpoint: null, views: 0, training: {epochs: 200}}
student: {model: resnet32, checkpoint: null, classifier: linear}
method: {name: bkd, temperature: 2.0}
training: {epochs: 200, batch_size: 128, optimizer: sgd, learning_rate: 0.1, momentum: 0.9, weight_decay: 2.0e-4,
           gradient_clip: null,
           schedule: {name: step, milestones: [160, 180], factors: [0.01, 0.0001], warmup_epochs: 5}}
trainer: {device: auto, precision: auto, checkpoint_every_steps: 200}
"""


def refusal(**changes):
    with pytest.raises(ConfigError) as caught:
        Experiment.from_mapping({**MINIMAL, **changes})
    return str(caught.value)


def test_the_example_of_the_design_is_valid_and_read_as_written():
    experiment = Experiment.from_mapping(yaml.safe_load(WHOLE))
    assert experiment.teacher.model.shortcut == "pad"
    assert experiment.teacher.supervised == {"name": "ce"}
    assert experiment.training.schedule.factors == (0.01, 0.0001)
    assert experiment.method == {"name": "bkd", "temperature": 2.0}
    assert experiment.output.as_posix() == "runs/cifar100-lt-bkd-seed0"


def test_the_resolved_experiment_reads_back_as_the_same_one(tmp_path):
    experiment = Experiment.from_mapping(yaml.safe_load(WHOLE))
    path = tmp_path / "config.yaml"
    path.write_text(experiment.to_yaml())
    assert Experiment.from_yaml(path) == experiment


def test_no_groups_are_kept_as_such():
    assert Experiment.from_mapping(yaml.safe_load(WHOLE)).data.group == "group"
    raw = apply_overrides(yaml.safe_load(WHOLE), ["data.group=null"])
    assert yaml.safe_load(Experiment.from_mapping(raw).to_yaml())["data"]["group"] is None


def test_output_follows_name_and_seed():
    assert Experiment.from_mapping({**MINIMAL, "seed": 7}).output.as_posix() == "runs/quick-seed7"
    assert Experiment.from_mapping({**MINIMAL, "output": "elsewhere"}).output.as_posix() == "elsewhere"


@pytest.mark.parametrize(
    ("changes", "where", "nearest"),
    [
        ({"seeds": 1}, "seeds", "seed"),
        ({"data": {"name": "digits", "imbalance": 3}}, "data.imbalance", "imbalance_factor"),
        ({"training": {"epoch": 3}}, "training.epoch", "epochs"),
        ({"training": {"schedule": {"name": "cosine", "warmup": 1}}}, "training.schedule.warmup", "warmup_epochs"),
        ({"teacher": {"model": "same", "view": 1}}, "teacher.view", "views"),
        ({"teacher": {"model": {"name": "x", "short": 1}}}, "teacher.model.short", "shortcut"),
        ({"student": {"model": "resnet8", "check": "x"}}, "student.check", "checkpoint"),
        ({"trainer": {"devices": "cpu"}}, "trainer.devices", "device"),
        ({"teacher": {"model": "same", "training": {"epoch": 1}}}, "teacher.training.epoch", "epochs"),
        ({"epochs": 5}, "epochs", "training.epochs"),
        ({"lr": 0.1}, "lr", "training.learning_rate"),
        ({"training": {"lr": 0.1}}, "training.lr", "learning_rate"),
        ({"data": {"name": "digits", "batch_size": 8}}, "data.batch_size", "training.batch_size"),
        ({"training": {"folds": 3}}, "training.folds", "data.validation.folds"),
        ({"teacher": {"model": "same", "epochs": 5}}, "teacher.epochs", "teacher.training.epochs"),
        ({"student": {"model": "resnet8", "weights": "x"}}, "student.weights", "student.model.weights"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(changes, where, nearest):
    message = refusal(**changes)
    assert f"{where}: unknown key. Did you mean '{nearest}'?" in message


def test_every_problem_is_told_at_once():
    message = refusal(
        seed=-1,
        data={"name": "digits", "validation": 1.5, "sampler": "class-balanced"},
        training={"epochs": 0, "learning_rate": "fast"},
        typo=1,
    )
    assert message.startswith("6 problems in the experiment:")
    for part in ("seed", "data.validation", "data.sampler", "training.epochs", "training.learning_rate", "typo"):
        assert f"- {part}: " in message
    assert "Did you mean 'class_balanced'?" in message
    assert "not 'fast'" in message


def test_processes_can_send_each_other_what_is_wrong():
    with pytest.raises(ConfigError) as caught:
        Experiment.from_mapping({**MINIMAL, "seed": -1})
    arrived = pickle.loads(pickle.dumps(caught.value))
    assert type(arrived) is type(caught.value)
    assert str(arrived) == str(caught.value)
    assert arrived.problems == caught.value.problems


def test_a_missing_part_is_named():
    with pytest.raises(ConfigError, match="data: missing"):
        Experiment.from_mapping({"name": "x", "student": "resnet8", "method": "ce"})


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ({"name": "step"}, "needs milestones"),
        ({"name": "step", "milestones": [1, 2], "factors": [0.1]}, "one factor for each milestone"),
        ({"name": "step", "milestones": [5, 2], "factors": [0.1, 0.2]}, "must rise"),
    ],
)
def test_schedules_that_do_not_fit_together(schedule, said):
    assert said in refusal(training={"schedule": schedule})


def test_what_is_missing_is_told_with_its_valid_choices():
    assert "training.mix.name: missing; it is needed. Valid: cutmix, mixup" in refusal(training={"mix": {"alpha": 1}})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0, 0.0])
def test_a_learning_rate_must_be_a_positive_number(number):
    assert "training.learning_rate" in refusal(training={"learning_rate": number})


@pytest.mark.parametrize("name", ["", "../escape", "a/b", "-flag", "ü", "x" * 200])
def test_a_name_that_is_no_folder_name(name):
    assert "name" in refusal(name=name)


def test_the_teacher_is_trained_with_what_differs():
    experiment = Experiment.from_mapping(
        {
            **MINIMAL,
            "teacher": {"model": "same", "training": {"epochs": 3, "schedule": "cosine"}},
            "training": {
                "epochs": 9,
                "batch_size": 7,
                "schedule": {"name": "step", "milestones": [1], "factors": [0.1]},
            },
        }
    )
    assert experiment.teacher_training == Training(epochs=3, batch_size=7, schedule={"name": "cosine"})
    assert experiment.training.epochs == 9


def test_previous_epoch_is_a_teacher():
    experiment = Experiment.from_mapping({**MINIMAL, "teacher": "previous_epoch"})
    assert experiment.teacher.is_previous_epoch
    assert Experiment.from_mapping(yaml.safe_load(experiment.to_yaml())) == experiment


def test_overrides_reach_any_depth_and_read_yaml_values():
    raw = {**MINIMAL, "teacher": None}
    changed = apply_overrides(
        raw,
        [
            "training.schedule.name=cosine",
            "method.name=bkd",
            "method.beta=0.5",
            "data.augment=[crop]",
            "teacher.model=same",
        ],
    )
    experiment = Experiment.from_mapping(changed)
    assert experiment.training.schedule.name == "cosine"
    assert experiment.method == {"name": "bkd", "beta": 0.5}
    assert experiment.data.augment == ("crop",)
    assert experiment.teacher.model.name == "same"


def test_overriding_a_whole_section_by_its_name():
    changed = apply_overrides({**MINIMAL, "method": {"name": "bkd", "beta": 0.5}}, ["method=kd"])
    assert Experiment.from_mapping(changed).method == {"name": "kd"}


def test_an_override_without_a_value_is_told():
    with pytest.raises(ConfigError, match=r"'output=' has no value; write output=null"):
        apply_overrides(MINIMAL, ["output=", "seed=1"])
    assert apply_overrides(MINIMAL, ["output=null"])["output"] is None


def test_overrides_do_not_change_what_they_are_laid_over():
    raw = {**MINIMAL, "training": {"epochs": 1}}
    apply_overrides(raw, ["training.epochs=2"])
    assert raw["training"] == {"epochs": 1}


@pytest.mark.parametrize("override", ["epochs", "=3", "a..b=1", "training.epochs=[", "1a=2"])
def test_overrides_that_cannot_be_read(override):
    with pytest.raises(ConfigError, match=re.escape(repr(override))):
        apply_overrides(MINIMAL, [override])


def test_a_missing_file_names_its_neighbor(tmp_path):
    (tmp_path / "bkd.yaml").write_text("name: x")
    with pytest.raises(ConfigError, match=r"bdk\.yaml.*'bkd\.yaml'"):
        read_yaml(tmp_path / "bdk.yaml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"- a\n- b", "must hold a mapping"),
        (b"", "must hold a mapping"),
        (b"a: [", "not valid YAML"),
        (b"a: !!python/object/apply:os.system ['true']", "not valid YAML"),
        (b"\xff\xfe\x00", "not a text file"),
    ],
)
def test_files_that_are_no_experiment(tmp_path, content, said):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        read_yaml(path)


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        read_yaml(tmp_path)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"training": {"epochs": True}}, "training.epochs"),
        ({"seed": True}, "seed"),
        ({"training": {"learning_rate": True}}, "training.learning_rate"),
        ({"training": {"schedule": {"name": "step", "milestones": [True], "factors": [0.1]}}}, "milestones.0"),
        ({"data": {"name": "digits", "workers": True}}, "data.workers"),
        ({"data": {"name": "digits", "validation": True}}, "data.validation"),
        ({"teacher": {"model": "same", "training": {"epochs": True}}}, "teacher.training.epochs"),
    ],
)
def test_a_switch_is_no_number(changes, where):
    assert f"{where}: expected a number, not true" in refusal(**changes)


def test_a_number_beyond_all_bounds_is_told_by_its_bound():
    assert "seed: input should be less than 4294967296" in refusal(seed=1e30)
    assert "training.batch_size: input should be less than 2147483648" in refusal(training={"batch_size": 1e30})
    assert Experiment.from_mapping({**MINIMAL, "seed": 2.0, "training": {"learning_rate": 1}}).seed == 2


def test_an_augmentation_named_twice_is_told_by_its_key():
    said = "data.augment: rotate more than once; expected each at most once"
    assert said in refusal(data={"name": "digits", "augment": ["rotate", "crop", "rotate"]})


def test_what_is_no_experiment_at_all():
    for wrong in (5, [], None):
        with pytest.raises(ConfigError, match="a YAML file, a mapping or an Experiment"):
            distail.run(wrong)
        with pytest.raises(ConfigError, match="expected a mapping of keys to values"):
            Experiment.from_mapping(wrong)
    with pytest.raises(ConfigError, match=r"5; .*YAML file"):
        Experiment.from_yaml(5)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 1e-3])
def test_a_methods_numbers_are_stored_as_they_are(value):
    asked = {"name": "try", "data": {"name": "digits"}, "student": "resnet8", "method": {"name": "ce", "tau": value}}
    experiment = Experiment.from_mapping(asked)
    assert Experiment.from_mapping(load_plain_yaml(experiment.to_yaml())) == experiment


@pytest.mark.parametrize(
    ("name", "fitting"), [("my run", "my-run"), ("-a", "a"), ("a/b", "a-b"), ("é", "mine"), ("a\n", "a")]
)
def test_a_name_that_is_no_folder_is_told_in_words_with_one_that_is(name, fitting):
    with pytest.raises(ConfigError) as error:
        Experiment.from_mapping({"name": name, "data": "digits", "student": "resnet8", "method": "ce"})
    told = str(error.value)
    assert f"such as {fitting!r}" in told
    assert "[A-Z" not in told
    assert "pattern" not in told


def test_augmentations_are_names_or_mappings_with_parameters():
    augment = ["crop", {"name": "cutout", "length": 8}, {"name": "flip"}, {"name": "rand_augment", "magnitude": 15}]
    experiment = Experiment.from_mapping({**MINIMAL, "data": {"name": "digits", "augment": augment}})
    crop, cutout, flip, rand_augment = experiment.data.augment
    assert (crop, flip) == ("crop", "flip")
    assert (cutout.length, rand_augment.magnitude, rand_augment.num_ops) == (8, 15, 2)
    dumped = experiment.model_dump(mode="json")
    assert dumped["data"]["augment"][:3] == ["crop", {"name": "cutout", "length": 8}, "flip"]
    assert Experiment.from_mapping(dumped) == experiment


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"name": "cutout", "lenght": 3}, "lenght: unknown key. Did you mean 'length'?"),
        ({"name": "flip", "probability": 1}, "probability: unknown key"),
        ({"name": "trivial_augmnt"}, "'trivial_augmnt' is not valid. Did you mean 'trivial_augment'?"),
        ({"name": "rand_augment", "magnitude": 31}, "less than or equal to 30, not 31"),
        ({"name": "random_erasing", "scale": [0.5, 0.2]}, "scale is [0.5, 0.2]"),
        ({"name": "random_resized_crop", "scale": [0.5, 2]}, "at most 1"),
        ({"length": 3}, "{'length': 3} has no name; expected one, such as {name: cutout, length: 8}"),
        ({"cutout": {"length": 4}}, "has no name; expected one, such as {name: cutout, length: 4}"),
        ({"rotate": None}, "has no name"),
        (3, "3 is not valid"),
        ("cutmix", "'cutmix' mixes images with one another; expected training.mix: cutmix"),
    ],
)
def test_wrong_augmentations_are_told_by_their_place(entry, said):
    message = refusal(data={"name": "digits", "augment": ["crop", entry]})
    assert "data.augment.1: " in message
    assert said in message


def test_an_augmentation_with_parameters_twice_is_told():
    assert "cutout more than once" in refusal(
        data={"name": "digits", "augment": ["cutout", {"name": "cutout", "length": 8}]}
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"name": "digits", "augment": "cutout"}}, "data.augment: expected a list, such as [cutout]"),
        (
            {"data": {"name": "digits", "augment": {"name": "cutout"}}},
            "data.augment: expected a list, such as [cutout]",
        ),
        ({"trainer": {"trackers": "wandb"}}, "trainer.trackers: expected a list, such as [wandb]"),
        ({"training": 3}, "training: expected a mapping of keys to values, not 3"),
    ],
)
def test_one_in_place_of_a_list_or_mapping_is_told(changes, said):
    assert said in refusal(**changes)


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        ([], "teacher: an empty list"),
        (["resnet8", "resnet8"], "teacher, number 2: no checkpoint; expected {model: resnet8, checkpoint: FILE}"),
        ([{"model": 3}], "teacher, number 1, model: input should be a valid string"),
        ([3], "teacher, number 1: expected a mapping"),
        ([{"checkpoint": "a.safetensors"}], "teacher, number 1, model: missing"),
        (
            [{"model": "resnet8", "checkpont": "a"}],
            "teacher, number 1, checkpont: unknown key. Did you mean 'checkpoint'?",
        ),
        ({"members": "resnet8"}, "teacher.members: expected a list, such as [resnet8]"),
        ({"members": [], "average": "mean"}, "teacher.average: 'mean' is not valid"),
    ],
)
def test_several_teachers_are_told_by_the_keys_that_users_write(teacher, said):
    with pytest.raises(ConfigError) as refused:
        distail.run({**MINIMAL, "method": "kd", "teacher": teacher})
    assert f"- {said}" in str(refused.value)
    assert "committee" not in str(refused.value)
    assert "teacher.model" not in str(refused.value)


def test_the_average_of_several_teachers_can_be_changed():
    teachers = [{"model": "resnet8", "checkpoint": "a"}, {"model": "resnet20", "checkpoint": "b"}]
    changed = apply_overrides({**MINIMAL, "teacher": teachers}, ["teacher.average=probabilities"])
    model = Experiment.from_mapping(changed).teacher.model
    assert (model.average, [each.name for each in model.members]) == ("probabilities", ["resnet8", "resnet20"])
    assert "teacher.average: unknown key" in refusal(teacher={"model": "resnet8", "average": "logits"})


def test_a_wrong_name_in_an_optional_section_does_not_hide_what_is_wrong_elsewhere():
    raw = {
        "name": "m",
        "data": "digits",
        "student": "resnet8",
        "method": {"targets": ["debiass"]},
        "teacher": "resnet8",
    }
    with pytest.raises(WrongExperiment) as refused:
        Experiment.from_mapping({**raw, "training": {"epochs": 2, "mix": {"name": "cutmixx"}}})
    assert [each.key for each in refused.value.wrong] == [("training", "mix", "name")]
    assert refused.value.rest is not None
