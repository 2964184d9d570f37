"""The words of the command line: what they mean, and what is said where they mean nothing."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distail.compare.arguments import LABEL, folder_name, read_grid, read_methods, read_seeds
from distail.config.schema import Experiment
from distail.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ce,kd", {"ce": {"name": "ce"}, "kd": {"name": "kd"}}),
        ("warm: {name: kd, temperature: 8}", {"warm": {"name": "kd", "temperature": 8}}),
        ("plain: kd, kd", {"plain": {"name": "kd"}, "kd": {"name": "kd"}}),
        (
            "ipwd-one-stage: {name: ipwd, teacher: previous_epoch}",
            {"ipwd-one-stage": {"name": "ipwd", "teacher": "previous_epoch"}},
        ),
        (
            "own: {targets: [swap, {name: reweigh, beta: 0.9}]}",
            {"own": {"targets": ["swap", {"name": "reweigh", "beta": 0.9}]}},
        ),
    ],
)
def test_methods_are_names_or_labeled_mappings(text, expected):
    assert read_methods(text) == expected
    assert list(read_methods(text)) == list(expected)


def test_parameters_of_a_preset_that_is_not_named_are_not_taken_for_those_of_a_composition():
    for text in ("kd, dive: {temperature: 3}", "bkd: {beta: 0}"):
        label = text.partition(":")[0].rpartition(" ")[2]
        with pytest.raises(ConfigError, match=f"'name': '{label}'"):
            read_methods(text)
    assert read_methods("mine: {temperature: 3}, kd: {divergence: kl}").keys() == {"mine", "kd"}


def test_methods_may_stand_in_a_file(tmp_path):
    path = tmp_path / "methods.yaml"
    path.write_text("- ce\n- bkd-beta0: {name: bkd, beta: 0}\n")
    assert read_methods(str(path)) == {"ce": {"name": "ce"}, "bkd-beta0": {"name": "bkd", "beta": 0}}
    path.write_text("ce: 1\n")
    with pytest.raises(ConfigError, match=r"methods\.yaml.*list"):
        read_methods(str(path))
    path.write_text("- [")
    with pytest.raises(ConfigError, match=r"methods\.yaml.*YAML"):
        read_methods(str(path))
    with pytest.raises(ConfigError, match=r"method\.yaml.*'methods\.yaml'"):
        read_methods(str(tmp_path / "method.yaml"))


def test_a_file_of_methods_is_not_trusted(tmp_path):
    path = tmp_path / "methods.yaml"
    path.write_text("- a: {name: kd, temperature: 2, temperature: 4}\n")
    with pytest.raises(ConfigError, match="'temperature'"):
        read_methods(str(path))
    path.write_text("- ce\n" * 100_000)
    with pytest.raises(ConfigError, match="256 KiB"):
        read_methods(str(path))


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("", "--methods"),
        ("kd,kd", "'kd'"),
        ("kd,KD: {name: bkd}", "'KD'"),
        ("{name: kd, temperature: 2}", "{'name': 'kd', 'temperature': 2}"),
        ("3", "3 "),
        ("no", "False "),
        ("a/b: kd", "'a/b'"),
        ("../up: kd", "'../up'"),
        ("kd: [1]", "{'kd': [1]}"),
        ("kd: {", "'kd: {'"),
        ("own: {name: kd, name: bkd}", "'name'"),
        ("own: !!python/name:os.system", "python/name:os.system"),
    ],
)
def test_methods_that_mean_nothing(text, culprit):
    with pytest.raises(ConfigError) as caught:
        read_methods(text)
    assert culprit in str(caught.value)


def test_all_wrong_methods_are_listed_at_once():
    with pytest.raises(ConfigError) as caught:
        read_methods("a/b: kd, 3, kd, kd")
    assert len(str(caught.value).splitlines()) == 4


@pytest.mark.parametrize("text", ["", "a", "0.5", "-1", "true", "0,0", "[0]", "4294967296", "{"])
def test_seeds_that_are_none(text):
    with pytest.raises(ConfigError, match=re.escape(repr(text))):
        read_seeds(text)


def test_a_grid_reads_any_yaml_value():
    read = read_grid(["method.targets=[swap],[swap, reweigh]", "training.learning_rate=0.1,1e-2"])
    assert read == {"method.targets": [["swap"], ["swap", "reweigh"]], "training.learning_rate": [0.1, 0.01]}


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        (["method.temperature"], "'method.temperature'"),
        (["temperature=1"], "'temperature=1'"),
        (["method.temperature="], "'method.temperature='"),
        (["data.imbalance_factor=10,100"], "method, training, student"),
        (["teacher.model=resnet8,resnet20"], "'teacher.model'"),
        (["seed.x=0,1"], "'seed.x'"),
        (["method.temperature=1,1"], "'method.temperature=1,1'"),
        (["method.temperature=1", "method.temperature=2"], "'method.temperature'"),
        (["method.temperature=["], "method.temperature=["),
    ],
)
def test_a_grid_that_cannot_be(words, culprit):
    with pytest.raises(ConfigError) as caught:
        read_grid(words)
    assert culprit in str(caught.value)


words = st.text(alphabet="abc019._+-", min_size=1, max_size=8).filter(LABEL.fullmatch)
values = st.one_of(st.integers(-9, 9), st.floats(0, 1), words, st.lists(words, max_size=3))


@given(words, st.dictionaries(st.sampled_from(["temperature", "beta", "targets"]), values))
def test_a_point_always_names_a_folder_and_an_experiment(label, settings):
    name = folder_name(" ".join([label, *(f"{key}={value}" for key, value in settings.items())]))
    quick = {"name": f"quick-{name}", "data": "digits", "student": "resnet8", "method": "ce"}
    assert Experiment.from_mapping(quick).name == f"quick-{name}"
    assert not {"/", " ", "="} & set(name)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("0-4", (0, 1, 2, 3, 4)), ("0..4", (0, 1, 2, 3, 4)), ("7, 1-3", (7, 1, 2, 3)), ("3-3", (3,)), ("3", (3,))],
)
def test_a_range_of_seeds_holds_both_ends(text, seeds):
    assert read_seeds(text) == seeds


@pytest.mark.parametrize(
    "text", ["4-0", "0-", "-3", "0-4,2", "0-9999999", "0-4294967296", "a-b", "0...4", "0.5", "true", ""]
)
def test_what_is_no_range_of_seeds_is_refused(text):
    with pytest.raises(ConfigError, match=f"{re.escape(repr(text))}.*(such as 0,1,2 or 0-4|twice|at most)"):
        read_seeds(text)
