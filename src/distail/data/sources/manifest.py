"""``csv``: images listed in a manifest."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from pathlib import Path, PurePosixPath, PureWindowsPath

import torch

from distail.data.class_names import check_class_names
from distail.data.images import Source
from distail.data.natural import natural_sorted
from distail.data.options import SourceOptions
from distail.data.sources.encoded import ImageFile, load_files
from distail.data.sources.manifest_rows import Row, read_rows
from distail.data.splits import fixed_test_split
from distail.errors import DataError, counted, first_of, listed

_SPLITS = ("train", "test")


def load_manifest(root: Path | None, options: SourceOptions) -> Source:
    """``root`` is a CSV file with the columns ``path``, ``label`` and optionally ``split`` (``train`` or ``test``).

    Tabs or semicolons may stand for its commas. Paths are relative to the manifest's folder and may not leave it, by ..
    or by symbolic links either, unless ``allow_outside_root``. Labels may be any text: class names are the
    distinct labels in natural order. Without ``split`` a stratified fifth, the same for every run's seed, is the test
    set. Raises ``DataError`` listing the rows that cannot be used.
    """
    if root is None:
        raise DataError("data set 'csv' needs data.root: the path of the manifest, a CSV file with columns path,label")
    if not root.is_file():
        raise DataError(f"data.root is {root}, which is not a file; expected a CSV file with columns path,label")
    rows = read_rows(root)
    _check_rows(rows, root, allow_outside_root=options.allow_outside_root)
    names = natural_sorted({row.label for row in rows})
    check_class_names(names, str(root))
    label_of = {name: label for label, name in enumerate(names)}
    files = [ImageFile(row.path, root.parent, label_of[row.label]) for row in rows]
    if rows[0].split is None:
        train, test = (part.tolist() for part in fixed_test_split(torch.tensor([file.label for file in files])))
    else:
        train, test = ([place for place, row in enumerate(rows) if row.split == split] for split in _SPLITS)
    return load_files("csv", "csv", [files[row] for row in train], [files[row] for row in test], names, options)


def _check_rows(rows: list[Row], manifest: Path, *, allow_outside_root: bool) -> None:
    inside = None if allow_outside_root else manifest.parent.resolve()
    problems = [f"line {row.line}: {problem}" for row in rows for problem in _problems(row, manifest.parent, inside)]
    lines_of = defaultdict(list)
    for row in rows:
        lines_of[posixpath.normpath(row.path) if row.path else ""].append(row.line)
    problems += [
        f"lines {', '.join(str(line) for line in lines)}: {path!r} is listed more than once"
        for path, lines in lines_of.items()
        if path and len(lines) > 1
    ]
    missing_splits = [
        split for split in _SPLITS if rows[0].split is not None and all(row.split != split for row in rows)
    ]
    if missing_splits and not problems:
        problems.append(
            f"no row has the split {missing_splits[0]!r}; without a column split a stratified fifth is the test set"
        )
    if problems:
        raise DataError(listed(first_of(problems), f"{counted(len(problems), 'problem')} in {manifest}:"))


def _problems(row: Row, folder: Path, inside: Path | None) -> list[str]:
    problems = []
    if not row.label:
        problems.append("there is no label")
    if row.split is not None and row.split not in _SPLITS:
        problems.append(f"split is {row.split!r}; expected train or test")
    if problem := _path_problem(row.path, folder, inside):
        problems.append(problem)
    return problems


def _path_problem(path: str, folder: Path, inside: Path | None) -> str | None:
    if not path:
        return "there is no path"
    if inside is not None and (problem := _way_out(path, folder, inside)):
        return f"{path!r} {problem}; data.allow_outside_root: true allows it"
    try:
        if (folder / path).is_file():
            return None
        exists = (folder / path).exists()
    except OSError as error:
        return f"{path!r}: {error.strerror or error}"
    slashes = " (folders are separated by / here)" if "\\" in path else ""
    return f"{path!r} is not a file" if exists else f"{path!r} does not exist{slashes}"


def _way_out(path: str, folder: Path, inside: Path) -> str | None:
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).drive:
        return "is absolute; paths are relative to the manifest's folder"
    if ".." in PurePosixPath(path).parts:
        return "leaves the manifest's folder by .."
    try:
        resolved = (folder / path).resolve()
    except (OSError, RuntimeError):  # a link to itself, which is neither inside nor outside: it does not exist
        return None
    return None if resolved.is_relative_to(inside) else "leaves the manifest's folder by a symbolic link"
