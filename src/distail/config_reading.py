"""From YAML text and `key=value` words to the nested mapping that `Experiment` validates."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distail.errors import ConfigError, did_you_mean, listed
from distail.plain_yaml import NotPlain, load_plain_yaml

PREVIOUS_EPOCH = "previous_epoch"

# Reading stops there, whatever the path names: a device has no end.
_LARGEST_BYTES = 1 << 18


def expand_shorthand(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A name standing for a mapping becomes that mapping: `method: bkd` is `method: {name: bkd}`.

    >>> expand_shorthand({"student": "resnet8", "method": "ce"})
    {'student': {'model': {'name': 'resnet8'}}, 'method': {'name': 'ce'}}
    """
    filled = {key: dict(value) if isinstance(value, Mapping) else value for key, value in raw.items()}
    if filled.get("teacher") == PREVIOUS_EPOCH:
        filled["teacher"] = {"model": PREVIOUS_EPOCH}
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
    training = filled.get("training")
    if isinstance(training, dict) and isinstance(training.get("schedule"), str):
        training["schedule"] = {"name": training["schedule"]}
    return filled


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, read as `read_plain_file` does."""
    raw = read_plain_file(path)
    if not isinstance(raw, dict):
        raise ConfigError(f"{str(path)!r} must hold a mapping of keys to values, not {type(raw).__name__}")
    return raw


def read_plain_file(path: str | Path) -> Any:
    """What stands in a YAML file of plain values, up to 256 KiB."""
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"the experiment is {path!r}; expected the path of a YAML file, a mapping or an Experiment")
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
        if len(content) > _LARGEST_BYTES:
            raise ConfigError(f"{str(path)!r} is larger than 256 KiB: no one wrote it by hand")
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


def apply_overrides(raw: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """`raw` with `key=value` pairs laid over it.

    >>> apply_overrides({"method": "bkd", "seed": 0}, ["seed=2", "method.beta=0.999"])
    {'method': {'name': 'bkd', 'beta': 0.999}, 'seed': 2}
    """
    result = expand_shorthand(raw)
    problems = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*", key):
            problems.append(f"{override!r} is not key=value, such as training.epochs=30")
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
