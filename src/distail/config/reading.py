"""From YAML text and `key=value` words to the nested mapping that `Experiment` validates."""

from __future__ import annotations

import os
import re
import select
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from distail.errors import ConfigError, did_you_mean, listed

# The middle one stands in every config.yaml of several teachers, and so it keeps its first name.
PREVIOUS_EPOCH, ENSEMBLE, STORED = "previous_epoch", "committee", "stored"

_KEY = re.compile(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*")
_TEXT_KEYS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")
# Reading stops there, whatever the path names: a device has no end.
_LARGEST_BYTES = 1 << 18
_PATIENCE_WITH_PIPES = 5  # seconds


class NotPlain(ValueError):
    """Why a text is not YAML of plain values; the message fits after a file's name."""


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag not in _TEXT_KEYS or not isinstance(key, yaml.ScalarNode):
                raise NotPlain(f"the key {_shown(key)} is not text; put it in quotes{_where(key)}")
            if key.value in seen:
                raise NotPlain(f"the key {key.value!r} is given twice{_where(key)}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    pass


# YAML 1.1 reads 1e-3 as text, and no one expects that.
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+"),
        list("-+0123456789"),
    )


def _refuse(loader: _Loader, node: yaml.Node) -> Any:
    kind = node.tag.rpartition(":")[2]
    raise NotPlain(f"{_shown(node)} is read as {kind!r}; if it is text, put it in quotes{_where(node)}")


for _tag in ("binary", "omap", "pairs", "set", "timestamp"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _refuse)
_Loader.add_constructor(None, _refuse)


def load_plain_yaml(text: str) -> Any:
    """Mappings with text keys, lists, text, numbers, booleans and nulls.

    Raises:
        NotPlain: it is anything else: not YAML, dates, tags, a key given twice, an alias within what it stands for.

    >>> load_plain_yaml("{rate: 1e-3, steps: [1, 2]}")
    {'rate': 0.001, 'steps': [1, 2]}
    >>> load_plain_yaml("{seed: 0, seed: 1}")
    Traceback (most recent call last):
        ...
    distail.config.reading.NotPlain: the key 'seed' is given twice (line 1, column 11)
    """
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            # All at once, so that PyYAML refuses an alias within what it stands for.
            return None if root is None else loader.construct_object(root, deep=True)
        finally:
            loader.dispose()
    except NotPlain:
        raise
    except RecursionError:
        raise NotPlain("it is nested too deeply") from None
    # With explicit tags (`!!bool maybe`) PyYAML looks up or converts what is not there.
    except (yaml.YAMLError, ValueError, LookupError) as error:
        raise NotPlain(" ".join(str(error).split())) from None


def dump_plain_yaml(value: Any) -> str:
    """Text that `load_plain_yaml` reads as an equal value; mappings keep their order.

    >>> dump_plain_yaml({"name": "1e-3", "rate": 0.5})
    "name: '1e-3'\\nrate: 0.5\\n"
    """

    def dumped(*, readable: bool) -> str:
        return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=readable, width=140)

    text = dumped(readable=True)
    # PyYAML folds text at Unicode's own line breaks, and reads spaces back.
    return dumped(readable=False) if any(end in text for end in "\x85\u2028\u2029") else text


def expand_shorthand(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A name standing for a mapping becomes that mapping: `method: bkd` is `method: {name: bkd}`.

    >>> expand_shorthand({"student": "resnet8", "method": "ce"})
    {'student': {'model': {'name': 'resnet8'}}, 'method': {'name': 'ce'}}
    """
    filled = {key: dict(value) if isinstance(value, Mapping) else value for key, value in raw.items()}
    if filled.get("teacher") == PREVIOUS_EPOCH:
        filled["teacher"] = {"model": PREVIOUS_EPOCH}
    if isinstance(filled.get("teacher"), Sequence) and not isinstance(filled["teacher"], str):
        filled["teacher"] = {"members": filled["teacher"]}
    if isinstance(filled.get("teacher"), dict):
        filled["teacher"] = _several_teachers(filled["teacher"])
    if isinstance(filled.get("teacher"), dict) and filled["teacher"].get("logits") is not None:
        filled["teacher"] = {"model": STORED, **filled["teacher"]}
    for part in ("teacher", "student"):
        if isinstance(filled.get(part), str):
            filled[part] = {"model": filled[part]}
        section = filled.get(part)
        if isinstance(section, dict):
            for key in ("model", "supervised"):
                if isinstance(section.get(key), str):
                    section[key] = {"name": section[key]}
    for key in ("method", "data"):
        if isinstance(filled.get(key), str):
            filled[key] = {"name": filled[key]}
    if "training" in filled:
        filled["training"] = expand_training(filled["training"])
    return filled


def _several_teachers(section: Mapping[str, Any]) -> dict[str, Any]:
    """A list of teachers, each a network with its checkpoint, as one network of several members; else as it is."""
    filled = dict(section)
    if "members" in filled:
        members = filled.pop("members")
        if isinstance(members, Sequence) and not isinstance(members, str):
            members = [_member(each) for each in members]
        filled["model"] = {"name": ENSEMBLE, "members": members}
    model = filled.get("model")
    if "average" in filled and isinstance(model, Mapping) and model.get("name") == ENSEMBLE:
        filled["model"] = {**model, "average": filled.pop("average")}
    return filled


def _member(teacher: Any) -> Any:
    if isinstance(teacher, str):
        return {"name": teacher}
    if not isinstance(teacher, Mapping):
        return teacher
    model = teacher.get("model", {})
    rest = {key: value for key, value in teacher.items() if key not in ("model", "checkpoint")}
    weights = {"weights": teacher["checkpoint"]} if "checkpoint" in teacher else {}
    return {**(model if isinstance(model, Mapping) else {"name": model}), **weights, **rest}


def expand_training(training: Any) -> Any:
    """The same for the section `training`, and for what `teacher.training` changes of it.

    >>> expand_training({"mix": "cutmix", "freeze": "backbone"})
    {'mix': {'name': 'cutmix'}, 'freeze': {'name': 'backbone'}}
    >>> expand_training({"classifier_stage": {"epochs": 5, "supervised": "balanced_softmax"}})
    {'classifier_stage': {'epochs': 5, 'supervised': {'name': 'balanced_softmax'}}}
    """
    if not isinstance(training, Mapping):
        return training
    filled = _named(training, "schedule", "mix", "freeze")
    if filled.get("freeze") == {"name": "none"}:
        filled["freeze"] = None
    if isinstance(filled.get("classifier_stage"), Mapping):
        filled["classifier_stage"] = _named(filled["classifier_stage"], "schedule", "supervised", "method")
    return filled


def _named(section: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: {"name": value} if key in keys and isinstance(value, str) else value for key, value in section.items()}


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, read as `read_plain_file` does.

    Raises:
        ConfigError: there is none.
    """
    raw = read_plain_file(path)
    if not isinstance(raw, dict):
        raise ConfigError(f"{str(path)!r} must hold a mapping of keys to values, not {type(raw).__name__}")
    return raw


def read_plain_file(path: str | Path) -> Any:
    """What stands in a YAML file of plain values, up to 256 KiB.

    Raises:
        ConfigError: the file is missing (the nearest name is told), too large, or not such a file.
    """
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"the experiment is {path!r}; expected the path of a YAML file, a mapping or an Experiment")
    path = Path(path)
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            content = file.read(_LARGEST_BYTES + 1)
        if len(content) > _LARGEST_BYTES:
            raise ConfigError(f"{str(path)!r} is larger than 256 KiB; expected a configuration file")
        return load_plain_yaml(content.decode("utf-8-sig"))
    except FileNotFoundError:
        near = sorted(p.name for p in path.parent.glob("[!.]*.yaml")) if path.parent.is_dir() else []
        hint = (
            did_you_mean(path.name, near)
            if near
            else "`distail configs` lists the configurations that ship with distail."
        )
        raise ConfigError(f"no configuration file {str(path)!r}. {hint}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{str(path)!r} is not a text file in UTF-8") from None
    except NotPlain as error:
        raise ConfigError(f"{str(path)!r} is not valid YAML: {error}") from None


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; a pipe must have someone who writes soon, as a shell's `<(...)` has."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        if not select.select([descriptor], [], [], _PATIENCE_WITH_PIPES)[0]:
            os.close(descriptor)
            raise ConfigError(f"{path!r} is a pipe without a writer; expected a file")
        os.set_blocking(descriptor, True)
    return descriptor


def apply_overrides(raw: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """`raw` with `key=value` pairs laid over it.

    Raises:
        ConfigError: words are not `key=value` with a value in YAML; all of them are listed.

    >>> apply_overrides({"method": "bkd", "seed": 0}, ["seed=2", "method.beta=0.999"])
    {'method': {'name': 'bkd', 'beta': 0.999}, 'seed': 2}
    """
    result = expand_shorthand(raw)
    problems = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not _KEY.fullmatch(key):
            problems.append(f"{override!r} is not key=value, such as training.epochs=30")
            continue
        if not text.strip():  # as a shell's variable that is not set leaves it
            problems.append(f"{override!r} has no value; write {key}=null for none")
            continue
        try:
            value = load_plain_yaml(text)
        except NotPlain as error:
            problems.append(f"{override!r}: the value is not valid YAML: {error}")
            continue
        *parents, last = key.split(".")
        section = result
        for parent in parents:
            inner = section.get(parent)
            if isinstance(inner, str):
                inner = {"name": inner}
            section[parent] = dict(inner) if isinstance(inner, Mapping) else {}
            section = section[parent]
        section[last] = value
        result = expand_shorthand(result)
    if problems:
        raise ConfigError(listed(problems, "overrides that cannot be read:"))
    return result


def _shown(node: yaml.Node) -> str:
    return repr(node.value[:40]) if isinstance(node, yaml.ScalarNode) else "a list or mapping"


def _where(node: yaml.Node) -> str:
    mark = node.start_mark
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
