"""The words of the command line: what they mean, and what is said where they mean nothing."""

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
def test_methods_are_names_or_labelled_mappings(text, expected):
    assert read_methods(text) == expected
    assert list(read_methods(text)) == list(expected)


def test_methods_may_stand_in_a_file(tmp_path):
    path = tmp_path / "methods.yaml"
    path.write_text("- ce\n- bkd-beta0: {name: bkd, beta: 0}\n")
    assert read_methods(str(path)) == {"ce": {"name": "ce"}, "bkd-beta0": {"name": "bkd", "beta": 0}}
    path.write_text("ce: 1\n")
    with pytest.raises(ConfigError, match="must hold a list"):
        read_methods(str(path))
    path.write_text("- [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_methods(str(path))
    with pytest.raises(ConfigError, match=r"no configuration file .*Did you mean 'methods\.yaml'"):
        read_methods(str(tmp_path / "method.yaml"))


def test_a_file_of_methods_is_not_trusted(tmp_path):
    path = tmp_path / "methods.yaml"
    path.write_text("- a: {name: kd, temperature: 2, temperature: 4}\n")
    with pytest.raises(ConfigError, match="'temperature' is given twice"):
        read_methods(str(path))
    path.write_text("- ce\n" * 100_000)
    with pytest.raises(ConfigError, match="larger than 256 KiB"):
        read_methods(str(path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no method is named"),
        ("kd,kd", "'kd' is given twice"),
        ("kd,KD: {name: bkd}", "'KD' is given twice"),
        ("{name: kd, temperature: 2}", "is no method"),
        ("3", "3 is no method"),
        ("no", "False is no method"),
        ("a/b: kd", "'a/b' is no label"),
        ("../up: kd", "is no label"),
        ("kd: [1]", "is no method"),
        ("kd: {", "cannot be read as a YAML list"),
        ("own: {name: kd, name: bkd}", "'name' is given twice"),
        ("own: !!python/name:os.system", "cannot be read as a YAML list"),
    ],
)
def test_methods_that_mean_nothing(text, said):
    with pytest.raises(ConfigError, match=r"^the methods|YAML list") as caught:
        read_methods(text)
    assert said in str(caught.value)


def test_all_wrong_methods_are_listed_at_once():
    with pytest.raises(ConfigError) as caught:
        read_methods("a/b: kd, 3, kd, kd")
    assert len(str(caught.value).splitlines()) == 4


@pytest.mark.parametrize("text", ["", "a", "0.5", "-1", "true", "0,0", "[0]", "4294967296", "{"])
def test_seeds_that_are_none(text):
    with pytest.raises(ConfigError, match=r"not whole numbers from 0|a seed twice|YAML list"):
        read_seeds(text)


def test_a_grid_reads_any_yaml_value():
    read = read_grid(["method.targets=[swap],[swap, reweigh]", "training.learning_rate=0.1,1e-2"])
    assert read == {"method.targets": [["swap"], ["swap", "reweigh"]], "training.learning_rate": [0.1, 0.01]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["method.temperature"], "is not key=value,value"),
        (["temperature=1"], "is not key=value,value"),
        (["method.temperature="], "is not key=value,value"),
        (["data.imbalance_factor=10,100"], "cannot vary within a comparison; valid are keys under method, training"),
        (["teacher.model=resnet8,resnet20"], "cannot vary"),
        (["seed.x=0,1"], "cannot vary"),
        (["method.temperature=1,1"], "names a value twice"),
        (["method.temperature=1", "method.temperature=2"], "is given twice"),
        (["method.temperature=["], "cannot be read as a YAML list"),
    ],
)
def test_a_grid_that_cannot_be(words, said):
    with pytest.raises(ConfigError, match=r"^the grid: ") as caught:
        read_grid(words)
    assert said in str(caught.value)


words = st.text(alphabet="abc019._+-", min_size=1, max_size=8).filter(LABEL.fullmatch)
values = st.one_of(st.integers(-9, 9), st.floats(0, 1), words, st.lists(words, max_size=3))


@given(words, st.dictionaries(st.sampled_from(["temperature", "beta", "targets"]), values))
def test_a_point_always_names_a_folder_and_an_experiment(label, settings):
    name = folder_name(" ".join([label, *(f"{key}={value}" for key, value in settings.items())]))
    quick = {"name": f"quick-{name}", "data": "digits", "student": "resnet8", "method": "ce"}
    assert Experiment.from_mapping(quick).name == f"quick-{name}"
    assert not {"/", " ", "="} & set(name)
