"""`list`: images listed as lines of path and label, as ImageNet-LT, Places-LT and iNaturalist come."""

from __future__ import annotations

import os
import posixpath
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from distail.config.schema import Data
from distail.data.class_names import natural_sorted
from distail.data.dataset import Source
from distail.data.sources.encoded import ImageFile, load_files, with_groups, with_validation
from distail.data.sources.locate import way_out
from distail.data.sources.rows import is_no_group
from distail.errors import DataError, counted, first_of, listed, some_of

_EXAMPLE = "data: {name: list, root: images, train: train.txt, test: test.txt}"


class Line(NamedTuple):
    """An image as a list names it; `group` is None where there is no third column."""

    number: int
    path: str
    label: str
    group: str | None = None


def load_list(options: Data) -> Source:
    """`train` and `test` are text files with a path and a label on each line; paths are relative to `root`.

    `validation` may be such a file too. Where columns are separated by tabs, a third one is the group of an image: what
    belongs together, as images of one patient, and is not torn apart.

    Lists that are not found as they are given are looked for in `root`. The label is what follows the last space or
    tab: a whole number, or a name. Numbers are the labels themselves, from 0 to the highest; where all images
    of each lie in a folder of their own, that folder's name is the name of the class, else its number is.

    Raises:
        DataError: lists are missing, or listing the lines that cannot be used.
    """
    root = options.root
    given = {"train": options.train, "test": options.test}
    missing = [f"data.{key}" for key, value in {"root": root, **given}.items() if value is None]
    problems = [f"needs {', '.join(missing)}; such as {_EXAMPLE}"] if missing else []
    if root is not None and not root.is_dir():
        problems.append(
            f"data.root is {root}, which is not a folder; expected the folder that the paths in the "
            "lists are relative to"
        )
    if problems or root is None:
        raise DataError(f"data set 'list': {'; '.join(problems)}")
    given["validation"] = options.validation if isinstance(options.validation, Path) else None
    files = {key: _find(value, root, key) for key, value in given.items() if value is not None}
    lines = {key: read_lines(file) for key, file in files.items()}
    _check(lines, files, root, allow_outside_root=options.allow_outside_root)
    names, label_of = _classes(lines, files)
    parts = {key: [ImageFile(line.path, root, label_of[line.label]) for line in own] for key, own in lines.items()}
    held_out = parts.get("validation", [])
    notes = _numbered_otherwise(lines, files, names, label_of)
    source = load_files("list", [*parts["train"], *held_out], parts["test"], names, options, notes)
    if held_out:
        source = with_validation(source, {file.name for file in held_out})
    return with_groups(source, None if options.group is None else _groups(lines, files))


def _numbered_otherwise(
    lines: Mapping[str, list[Line]], files: Mapping[str, Path], names: Sequence[str], label_of: Mapping[str, int]
) -> list[str]:
    """A note for each list with images in the folder of another class than their number says."""
    notes = []
    for key, own in lines.items():
        folder_of = {line.path: posixpath.basename(posixpath.dirname(line.path)) for line in own}
        wrong = [line for line in own if folder_of[line.path] in {*names} - {names[label_of[line.label]]}]
        if wrong:
            first = wrong[0]
            notes.append(
                f"{files[key].name}: {counted(len(wrong), 'image')} in the folder of another class than by number, "
                f"such as {first.path!r}, which is {first.label} and so {names[label_of[first.label]]!r}: are the "
                f"classes numbered as in {files['train'].name}?"
            )
    return notes


def _groups(lines: Mapping[str, list[Line]], files: Mapping[str, Path]) -> dict[str, str] | None:
    """The group of each path, if the lists have a column of them; then every line has one."""
    every = [(key, line) for key, own in lines.items() for line in own]
    if all(line.group is None for _, line in every):
        return None
    without = [f"{files[key].name}, line {line.number}" for key, line in every if is_no_group(line.group)]
    if without:
        raise DataError(
            listed(first_of(without), f"{counted(len(without), 'line')} without a group, which others have:")
        )
    return {line.path: line.group or "" for _, line in every}


def read_lines(file: Path) -> list[Line]:
    """The lines that are not empty, each cut at its last space or tab, or at two tabs.

    Raises:
        DataError: the file is no text, or lists nothing; or naming the lines without a label.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text in UTF-8: {error}") from error
    found, problems = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        columns = [column.strip() for column in line.split("\t")]
        parts = line.rsplit(maxsplit=1)
        if len(columns) == 3 and columns[0] and columns[1]:
            found.append(Line(number, *columns))
        elif len(parts) == 2:
            found.append(Line(number, parts[0].strip(), parts[1]))
        elif parts:
            problems.append(f"line {number}: {line.strip()[:80]!r} has no label after its path")
    if problems:
        raise DataError(listed(first_of(problems), f"{counted(len(problems), 'problem')} in {file}:"))
    if not found:
        raise DataError(f"{file} lists no image")
    return found


def _find(file: Path, root: Path, key: str) -> Path:
    places = [file] if file.is_absolute() else [file, root / file]
    for place in places:
        if place.is_file():
            return place
    raise DataError(f"data.{key} is {file}, and there is no such file; looked at {' and '.join(map(str, places))}")


def _check(lines: dict[str, list[Line]], files: dict[str, Path], root: Path, *, allow_outside_root: bool) -> None:
    """Let pass lists whose images are there, each once."""
    problems: list[str] = []
    first_place: dict[str, str] = {}
    there: dict[str, frozenset[str]] = {}  # by folder: asking for each file alone takes minutes for a million
    for key, of_split in lines.items():
        for line in of_split:
            where, path = f"{files[key].name}, line {line.number}", posixpath.normpath(line.path)
            if not allow_outside_root and (problem := way_out(line.path, "data.root")):
                problems.append(f"{where}: {line.path!r} {problem}; data.allow_outside_root: true allows it")
                continue
            if path in first_place:
                problems.append(f"{where}: {line.path!r} is listed before ({first_place[path]})")
                continue
            first_place[path] = where
            folder, name = posixpath.split(path)
            if folder not in there:
                there[folder] = _names_in(root / folder)
            if name not in there[folder]:
                problems.append(f"{where}: {line.path!r} does not exist in {root}")
    if problems:
        raise DataError(listed(first_of(problems), f"{counted(len(problems), 'problem')} in the lists of images:"))


def _names_in(folder: Path) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


def _classes(lines: Mapping[str, list[Line]], files: Mapping[str, Path]) -> tuple[list[str], dict[str, int]]:
    """The names of the classes, and the label that each word stands for."""
    folders_of: dict[str, set[str]] = defaultdict(set)
    for line in lines["train"]:
        folders_of[line.label].add(posixpath.dirname(line.path))
    for key, own in lines.items():
        if extra := {line.label for line in own} - set(folders_of):
            raise DataError(
                f"{files[key]} has the labels {some_of(natural_sorted(extra))}, of which {files['train']} has no image"
            )
    if not all(word.isdecimal() for word in folders_of):
        names = natural_sorted(folders_of)
        return names, {name: label for label, name in enumerate(names)}
    label_of = {word: int(word) for word in folders_of}
    numbers = sorted(set(label_of.values()))
    if numbers != list(range(len(numbers))):
        absent = sorted(set(range(numbers[-1] + 1)) - set(numbers))
        raise DataError(
            f"{files['train']} has labels from {numbers[0]} to {numbers[-1]}, but no image of "
            f"{some_of([str(number) for number in absent])}; expected every number from 0"
        )
    names = [str(number) for number in numbers]
    last = {label_of[word]: {posixpath.basename(folder) for folder in found} for word, found in folders_of.items()}
    folders = ["".join(last[number]) if len(last[number]) == 1 else "" for number in numbers]
    own_folders = all(folders) and len(set(folders)) == len(folders)
    return folders if own_folders else names, label_of
