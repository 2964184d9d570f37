"""The template for one's own data: every key, its default, and a plan as soon as there is a folder."""

import inspect
import re
import types
import typing

import pytest
import yaml
from pydantic_core import PydanticUndefined

from distail.cli import main
from distail.config.augment import AUGMENTATIONS
from distail.config.precision import Precisions
from distail.config.schema import Experiment, Model
from distail.config.section import Section
from distail.config.shipped import list_configs
from helpers.class_folders import write_folders

TEXT = list_configs()["own-data"]
GIVEN = yaml.safe_load(TEXT)
# What a template has to choose; all else must be the default.
CHOSEN = {
    "name",
    "output",
    "data.name",
    "data.root",
    "data.image_size",
    "data.augment",
    "teacher.model.name",
    "student.model.name",
    "method.name",
    "method.adjust",
    "training.epochs",
    "training.schedule.name",
}


def sections_of(annotation):
    """The sections in a field's type."""
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        return {annotation}
    found = set()
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated, tuple):
        for each in typing.get_args(annotation):
            found |= sections_of(each)
    return found


def keys_of(section, prefix=""):
    """Every key below a section, dotted, and its default."""
    for name, field in section.model_fields.items():
        inner = {each for each in sections_of(field.annotation) if each is not section}
        if not inner:
            yield prefix + name, field.default
        for each in sorted(inner, key=lambda one: one.__name__):
            yield from keys_of(each, f"{prefix}{name}.")


KEYS = dict(keys_of(Experiment)) | dict(keys_of(Precisions, "trainer.precision."))


def leaves(mapping, prefix=""):
    for name, value in mapping.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def test_the_keys_were_found():
    some = {"seed", "data.augment.hue", "teacher.views", "training.mix.alpha", "training.classifier_stage.sampler"}
    assert some <= {*KEYS}
    assert "weights" in Model.model_fields
    assert "teacher.model.weights" in KEYS


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_in_it(key):
    """As a key of its own, or within the comment that shows how to write a section that is left out by default."""
    value = GIVEN
    # Its schedule has the keys of the other.
    *parents, last = key.replace("classifier_stage.schedule", "schedule").split(".")
    for parent in parents:
        value = value.get(parent) if isinstance(value, dict) else None
    if not (isinstance(value, dict) and last in value):
        assert re.search(rf"#.*\b{last}: ", TEXT), f"{key} is missing in configs/own-data.yaml"


def test_every_augmentation_is_named():
    assert [name for name in AUGMENTATIONS if not re.search(rf"\b{name}\b", TEXT)] == []


def test_what_is_not_a_choice_is_the_default():
    written = dict(leaves(GIVEN))
    assert set(written) >= CHOSEN
    experiment = Experiment.from_mapping(GIVEN).model_dump(mode="json")
    bare = {key: GIVEN[key] for key in ("name", "data", "student", "teacher", "method")}
    bare["data"] = {key: GIVEN["data"][key] for key in ("name", "root", "image_size", "augment")}
    bare["training"] = {"epochs": GIVEN["training"]["epochs"], "schedule": GIVEN["training"]["schedule"]["name"]}
    for part in ("student", "teacher"):
        bare[part] = {"model": GIVEN[part]["model"]["name"]}
    assert Experiment.from_mapping(bare).model_dump(mode="json") == experiment
    for key, value in written.items():
        if key not in CHOSEN and KEYS.get(key, PydanticUndefined) is not PydanticUndefined:
            default = KEYS[key]
            assert value == (list(default) if isinstance(default, tuple) else default), key


def test_a_copy_is_written_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["configs", "own-data", "mine.yaml"]) == 0
    assert (tmp_path / "mine.yaml").read_text(encoding="utf-8") == TEXT
    (tmp_path / "mine.yaml").write_text("mine now")
    assert main(["configs", "own-data", "mine.yaml"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "mine.yaml").read_text() == "mine now"


@pytest.mark.integration
def test_it_plans_as_soon_as_there_is_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["configs", "own-data", "mine.yaml"]) == 0
    assert main(["run", "mine.yaml", "--plan"]) == 2
    assert "data.root: 'photos' does not exist" in capsys.readouterr().err
    write_folders(tmp_path / "photos")
    assert main(["run", "mine.yaml", "--plan", "data.image_size=16"]) == 0
    assert "resnet56" in capsys.readouterr().out
