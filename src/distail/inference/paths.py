"""Image files as a user names them: one by one, by folder, or by a list of them."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from distail.data.class_names import natural_sorted
from distail.data.sources.folder import IMAGE_SUFFIXES
from distail.errors import ConfigError, Problems

LISTS = (".csv", ".txt")


def image_paths(given: Sequence[Path]) -> Iterator[Path]:
    """The files, in the order given, one after another: a list may be longer than memory.

    A folder stands for every image in it, at any depth, in natural order. A list is a text file (`.txt`) with a path a
    line, or `.csv` with a column `path`; its paths are relative to its folder.

    Raises:
        ConfigError: something is not there or holds no image; all problems are told before the first file.
    """
    problems = Problems()
    for path in given:
        problems.attempt(lambda path=path: _check(path))  # type: ignore[misc]
    problems.stop("no predictions")
    return (file for path in given for file in _files(path))


def _check(path: Path) -> None:
    if path.is_dir():
        if next(_in_folder(path), None) is None:
            raise ConfigError(f"{str(path)!r} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    elif not path.is_file():
        raise ConfigError(
            f"there is no {str(path)!r} (current directory {Path.cwd()}); expected an image, a folder of images, or a "
            f"list of them ({' or '.join(LISTS)})"
        )
    elif path.suffix.lower() == ".csv":
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            columns = csv.DictReader(file).fieldnames or []
        if "path" not in columns:
            raise ConfigError(f"{str(path)!r} has the columns {', '.join(columns) or '(none)'}; expected a column path")


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        return _in_folder(path)
    return _in_list(path) if path.suffix.lower() in LISTS else iter([path])


def _in_folder(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = natural_sorted(name for name in folders if not name.startswith("."))
        for name in natural_sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                yield Path(place, name)


def _in_list(path: Path) -> Iterator[Path]:
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        table = csv.DictReader(file) if path.suffix.lower() == ".csv" else None
        named = (
            (row.get("path") or "" for row in table) if table is not None else (line.rstrip("\r\n") for line in file)
        )
        yield from (path.parent / name for name in named if name.strip())
