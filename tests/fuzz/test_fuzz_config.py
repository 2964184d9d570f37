"""Whatever a configuration holds, it is an experiment or a clear error."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distail.config.reading import NotPlain, apply_overrides, dump_plain_yaml, load_plain_yaml, read_yaml
from distail.config.schema import Experiment
from distail.errors import ConfigError, DistailError
from distail.methods.preset_table import PRESETS
from distail.runner.checks import check
from helpers.made_up import leaves, values

FULL: dict[str, Any] = {
    "name": "try",
    "seed": 0,
    "output": "runs/try",
    "data": {"name": "digits", "root": None, "imbalance_factor": 20, "profile": "exp", "validation": 0.1,
             "augment": ["crop", {"name": "cutout", "length": 4}], "sampler": "instance", "image_size": None,
             "skip_unreadable": False},
    "teacher": {"model": {"name": "resnet8", "shortcut": "pad"}, "supervised": {"name": "ce"}, "checkpoint": None,
                "views": 0, "training": {"epochs": 2}},
    "student": {"model": {"name": "resnet8"}, "checkpoint": None, "classifier": "linear"},
    "method": {"name": "bkd", "temperature": 2.0, "beta": 0.99},
    "training": {"epochs": 2, "batch_size": 8, "optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9,
                 "weight_decay": 1e-4, "gradient_clip": None,
                 "schedule": {"name": "step", "milestones": [1], "factors": [0.1], "warmup_epochs": 0},
                 "mix": {"name": "cutmix", "share": 0.5}, "ema_decay": 0.9, "accumulation_steps": 2,
                 "classifier_stage": {"epochs": 1, "supervised": {"name": "ce"}, "method": {"temperature": 2.0}}},
    "trainer": {"device": "cpu", "precision": "fp32", "checkpoint_every_steps": 3, "compile": False},
}  # fmt: skip


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


@st.composite
def spoilt(draw: st.DrawFn) -> Any:
    """The full experiment with one or two places changed, or with a key too many."""
    tree = copy.deepcopy(FULL)
    tree["method"]["name"] = draw(st.sampled_from(sorted(PRESETS)))
    for _ in range(draw(st.integers(1, 2))):
        *parents, last = draw(st.sampled_from(places(FULL)[1:]))
        section: Any = tree
        for parent in parents:
            section = section[parent] if isinstance(section, dict | list) and parent in places_of(section) else {}
        if isinstance(section, dict):
            section[draw(st.sampled_from([last, last, "gamma", "targets", "weights", "start"]))] = draw(values)
    return tree


def places_of(section: Any) -> Any:
    return section if isinstance(section, dict) else range(len(section))


@given(spoilt())
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_an_experiment_is_valid_or_refused(tree: Any) -> None:
    try:
        experiment = Experiment.from_mapping(tree)
        again = Experiment.from_mapping(load_plain_yaml(experiment.to_yaml()))
        assert again == experiment or ".nan" in experiment.to_yaml()  # which equals nothing, itself included
        check(experiment)
    except DistailError:
        return


@given(st.one_of(values, st.dictionaries(st.sampled_from(sorted(FULL)), values)))
@settings(deadline=None, max_examples=60)
def test_any_mapping_is_refused_clearly(tree: Any) -> None:
    with pytest.raises(DistailError):
        Experiment.from_mapping(tree)


YAML_WORDS = """
name: |seed: |data: |- |{|}|[|]|: |, |&a |*a|<<: |!!|!!bool |!!int |!!float |!!binary |!!set |
!!python/object:os.system |>|'|"|#|%YAML 1.1|---|...|? |2001-01-01|2001-99-99|0x|1_000|12:30:45|1e-3|.nan|~
"""
words = [*YAML_WORDS.replace("\n", "").split("|"), "\n", "\n  ", "|", "\t", "\0", "\ufeff"]
pieces = st.lists(st.sampled_from(words) | st.text(max_size=6), max_size=14).map("".join)


@given(pieces)
@settings(deadline=None, max_examples=200)
def test_text_is_plain_values_or_refused(text: str) -> None:
    try:
        value = load_plain_yaml(text)
    except NotPlain:
        return
    assert only_plain(value)
    assert load_plain_yaml(dump_plain_yaml(value)) == value or "nan" in repr(value)


def only_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and only_plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(only_plain(inner) for inner in value)
    return value is None or type(value) in (str, int, float, bool)


@given(st.binary(max_size=60) | pieces.map(lambda text: text.encode("utf-8", "surrogatepass")))
@settings(deadline=None, max_examples=100)
def test_a_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(content)
    with contextlib.suppress(ConfigError):
        assert isinstance(read_yaml(path), dict)


@given(st.lists(st.tuples(st.sampled_from(["seed", "method", "method.beta", "data.root.x", "a..b", ""]), pieces)))
@settings(deadline=None, max_examples=100)
def test_overrides_are_laid_over_or_refused(overrides: list[tuple[str, str]]) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(apply_overrides(FULL, [f"{key}={text}" for key, text in overrides]), dict)


@given(leaves.filter(lambda value: "\0" not in str(value)))
@settings(deadline=None)
def test_what_was_written_is_what_is_read(value: Any) -> None:
    read = load_plain_yaml(dump_plain_yaml({"key": value}))
    assert read == {"key": value} or value != value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [*a]", "recursive"),
        ("- " * 2000, "nested too deeply"),
        ("name: 2001-01-01", "'2001-01-01' is read as 'timestamp'; if it is text, put it in quotes"),
        ("a: !!python/object/apply:os.system [ls]", "is read as "),
        ("a: !!bool maybe", "maybe"),
        ("seed: " + "9" * 5000, "4300"),
        ("seed: 1\nname: x\nseed: 2", r"the key 'seed' is given twice \(line 3, column 1\)"),
        ("no: x", "the key 'no' is not text; put it in quotes"),
        ("? [a]\n: 1", "the key a list or mapping is not text"),
        ("a: 1\n---\nb: 2", "expected a single document"),
    ],
)
def test_what_is_not_plain(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(NotPlain, match=message):
        load_plain_yaml(text)
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="is not valid YAML"):
        read_yaml(path)


def test_aliases_and_merges_of_a_person_are_fine() -> None:
    text = "base: &base {epochs: 3, rate: 1e-3}\nteacher: {training: *base}\ntraining: {<<: *base, epochs: 4}"
    assert load_plain_yaml(text)["training"] == {"epochs": 4, "rate": 0.001}


def test_a_file_without_end_and_one_from_windows(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="larger than 256 KiB"):
        read_yaml("/dev/zero")
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfname: x\r\nseed: 1\r\n")
    assert read_yaml(tmp_path / "x.yaml") == {"name": "x", "seed": 1}


@pytest.mark.parametrize("text", ["\x85", "a\u2028b", "\u2029 ", "ä"])
def test_text_with_unicodes_own_line_breaks_comes_back(text):
    assert load_plain_yaml(dump_plain_yaml({text: text})) == {text: text}
