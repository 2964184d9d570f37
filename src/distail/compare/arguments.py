"""The words of `--methods`, `--seeds` and `--grid`, read as the YAML that they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from distail.config.data import Folds
from distail.config.reading import NotPlain, load_plain_yaml, read_plain_file
from distail.config.schema import Experiment
from distail.errors import ConfigError, Problems
from distail.methods.entries import SLOTS
from distail.methods.preset_table import PRESETS

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,59}")
SEED_RANGE = re.compile(r"(\d+)(?:-|\.\.)(\d+)")
METHOD_SETTING = re.compile(r"method(\.|=\s*\{)")
MOST_SEEDS = 1000
HOW_METHODS = (
    "expected names and labeled methods, such as --methods 'ce, kd, bkd-beta0: {name: bkd, beta: 0}', "
    "or a YAML file with such a list"
)
# What a grid may vary. The teacher is shared and the data are what makes runs comparable: both stay.
GRID_SECTIONS = ("method", "training", "student")


def read_methods(text: str) -> dict[str, dict[str, object]]:
    """Label to method, in the order given; a method is what a configuration says under `method:`.

    Raises:
        ConfigError: not a list, an entry that is neither a name nor a labeled method, or a label given twice.

    >>> read_methods("ce, kd, bkd-beta0: {name: bkd, beta: 0}")
    {'ce': {'name': 'ce'}, 'kd': {'name': 'kd'}, 'bkd-beta0': {'name': 'bkd', 'beta': 0}}
    """
    problems = Problems()
    methods: dict[str, dict[str, object]] = {}
    for entry in _list_from_file(Path(text)) if text.endswith((".yaml", ".yml")) else _flow_list(text):
        labeled = _labeled(entry)
        if labeled is None:
            problems.add(f"{entry!r} is no method; {HOW_METHODS}")
            continue
        label, method = labeled
        if not LABEL.fullmatch(label):
            problems.add(
                f"{label!r} is not a valid label: it is used as a folder name; letters, digits and ._+- only, 60 at "
                "most"
            )
        elif label.lower() == "teacher":
            problems.add(f"{label!r} is the name of the teacher's row; give the method another label")
        elif label.lower() in (other.lower() for other in methods):
            problems.add(f"{label!r} is given twice; give one of them a label, such as other-{label}: {method}")
        elif label in PRESETS and "name" not in method and not SLOTS.keys() & method:
            problems.add(
                f"{label}: {dict(method)} names neither a method nor a slot; expected {label}: "
                f"{ {'name': label, **method} } for {label} with other parameters"
            )
        else:
            methods[label] = method
    if not methods and not problems.found:
        problems.add(f"no method is named; {HOW_METHODS}")
    problems.stop("the methods")
    return methods


def unused_overrides(overrides: Iterable[str], instead: str) -> list[str]:
    """A problem for each override of a setting of the configuration's method, which is not among what is trained.

    >>> unused_overrides(["seed=1", "method=kd", "method.adjust=1"], "use --methods")
    ['method.adjust=1: no run would have this setting; use --methods']
    """
    return [f"{word}: no run would have this setting; {instead}" for word in overrides if METHOD_SETTING.match(word)]


def replaced_overrides(experiment: Experiment, overrides: Iterable[str], options: Mapping[str, str]) -> list[str]:
    """A sentence for each override that has no effect, since what many runs are told comes from elsewhere.

    Args:
        options: by the key of a setting what is used instead of it.
    """
    keyed = [(word, word.partition("=")[0]) for word in overrides]
    told = [f"{word} has no effect here: {options[key]}" for word, key in keyed if key in options]
    validation = experiment.data.validation
    if isinstance(validation, Folds) and validation.fold is not None:
        told.append(f"data.validation.fold: {validation.fold} has no effect here: every fold is trained")
    return told


def read_seeds(text: str) -> tuple[int, ...]:
    """Different whole numbers from 0, and ranges of them with both their ends.

    >>> read_seeds("0,1,2"), read_seeds("0-2, 7"), read_seeds("3..5")
    ((0, 1, 2), (0, 1, 2, 7), (3, 4, 5))
    """
    seeds: list[int] = []
    for value in _flow_list(text):
        ends = SEED_RANGE.fullmatch(value) if isinstance(value, str) else None
        first, last = (int(ends[1]), int(ends[2])) if ends else (value, value)
        if type(first) is not int or type(last) is not int or not 0 <= first <= last < 2**32:
            raise ConfigError(f"{text!r} are not whole numbers from 0, such as 0,1,2 or 0-4")
        if last - first >= MOST_SEEDS:
            raise ConfigError(f"{text!r} are {last - first + 1:,} seeds; expected at most {MOST_SEEDS:,}")
        seeds += range(first, last + 1)
    if not seeds:
        raise ConfigError(f"{text!r} are not whole numbers from 0, such as 0,1,2 or 0-4")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"{text!r} names a seed twice; repeating a seed gives the same run again")
    return tuple(seeds)


def read_grid(words: Iterable[str]) -> dict[str, list[object]]:
    """Key to the values that it takes; several keys span a product.

    Raises:
        ConfigError: a word that is not key=value,value, or a key that a grid may not vary; all are listed.

    >>> read_grid(["method.temperature=1,2,4", "training.learning_rate=0.1"])
    {'method.temperature': [1, 2, 4], 'training.learning_rate': [0.1]}
    """
    problems = Problems()
    axes: dict[str, list[object]] = {}
    for word in words:
        key, _, text = word.partition("=")
        section = key.partition(".")[0]
        values = problems.attempt(partial(_flow_list, text), word)
        if values is None:
            continue
        if not re.fullmatch(r"\w+(\.\w+)+", key) or not values:
            problems.add(f"{word!r} is not key=value,value, such as method.temperature=1,2,4")
        elif section not in GRID_SECTIONS:
            problems.add(f"{key!r} cannot vary within a comparison; valid keys are under {', '.join(GRID_SECTIONS)}")
        elif key in axes:
            problems.add(f"{key!r} is given twice; list all its values at once")
        elif any(value in values[:i] for i, value in enumerate(values)):
            problems.add(f"{word!r} names a value twice")
        else:
            axes[key] = values
    problems.stop("the grid")
    return axes


def folder_name(text: str) -> str:
    """A label or grid point as a folder's name.

    >>> folder_name("kd temperature=2.0 targets=['swap', 'reweigh']")
    'kd+temperature-2.0+targets-swap-reweigh'
    """
    words = re.split(r" (?=\w+=)", text)
    return "+".join(re.sub(r"[^A-Za-z0-9._+-]+", "-", word).strip("-") for word in words)


def _labeled(entry: object) -> tuple[str, dict[str, object]] | None:
    if isinstance(entry, str):
        return entry, {"name": entry}
    if not isinstance(entry, Mapping) or len(entry) != 1:
        return None
    label, method = next(iter(entry.items()))
    if isinstance(method, str):
        method = {"name": method}
    return (str(label), dict(method)) if isinstance(method, Mapping) else None


def _flow_list(text: str) -> list[object]:
    try:
        values = load_plain_yaml(f"[{text}]")
    except NotPlain as error:
        raise ConfigError(f"{text!r} cannot be read as a YAML list: {error}") from None
    return list(values)


def _list_from_file(path: Path) -> list[object]:
    content = read_plain_file(path)
    if not isinstance(content, list):
        raise ConfigError(f"{str(path)!r} must hold a list; {HOW_METHODS}")
    return content
