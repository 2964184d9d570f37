"""`folder`: any tree of class folders."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from distail.config.schema import Data
from distail.data.class_names import natural_sorted
from distail.data.dataset import Source
from distail.data.sources.encoded import ImageFile, load_files
from distail.data.sources.locate import locate
from distail.data.splits import fixed_test_split
from distail.errors import DataError, counted, listed

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
_UNREAD_SUFFIXES = frozenset(
    {".avif", ".dng", ".eps", ".heic", ".heif", ".ico", ".jp2", ".jxl", ".psd", ".raw", ".svg", ".tga"}
)
_TEST_NAMES = ("test", "val")
_LIKE_SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "eval", "dev"})


def load_folder(options: Data) -> Source:
    """`root` holds `train/` and `test/` (or `val/`) of class folders, or class folders alone.

    Class folders alone (or `train/` alone) lend a stratified fifth, the same for every run's seed, as the test set.
    Class names are the folders' names in natural order.
    """
    place = locate(
        options,
        lambda place: place if place.is_dir() else None,
        hint="It holds train/ and test/ of class folders, or class folders alone.",
    )
    train = place / "train"
    tests = [place / name for name in _TEST_NAMES if (place / name).is_dir()]
    if tests and not train.is_dir():
        raise DataError(f"{place} holds {tests[0].name}/ but no train/")
    if not tests:
        _refuse_splits_as_classes(place)
        return _load_and_split(train if train.is_dir() else place, options)
    names = _at_least_two(check_same_classes(train, tests[0]), train)
    labels = {name: label for label, name in enumerate(names)}
    train_files, notes = image_files(train, labels, place)
    test_files, test_notes = image_files(tests[0], labels, place)
    if not test_files:
        raise DataError(f"{tests[0]} holds no image ({_suffixes()})")
    notes += test_notes
    if len(tests) > 1:
        notes.append(f"{place} holds both test/ and val/: test/ is the test set and val/ is not used")
    return load_files("train and test", train_files, test_files, names, options, notes)


def class_folder_names(folder: Path) -> list[str]:
    """The names of the folders in `folder`, in natural order; hidden ones and `__MACOSX` are not classes."""
    with os.scandir(folder) as entries:
        return natural_sorted(entry.name for entry in entries if entry.is_dir() and _counts(entry.name))


def image_files(folder: Path, labels: Mapping[str, int], relative_to: Path) -> tuple[list[ImageFile], list[str]]:
    """The images of every class folder at any depth, class by class, in natural order; and notes on what is not read.

    Raises:
        OSError: a folder cannot be read.
    """
    files, unread, linked = [], [], []
    for name, label in labels.items():
        found: list[str] = []
        for place, folders, names in os.walk(folder / name, onerror=_stop):
            here = Path(place)
            folders[:] = [inner for inner in folders if _counts(inner)]
            linked += [here / inner for inner in folders if (here / inner).is_symlink()]
            for file in filter(_counts, names):
                suffix = os.path.splitext(file)[1].lower()
                if suffix in IMAGE_SUFFIXES:
                    found.append((here / file).relative_to(relative_to).as_posix())
                elif suffix in _UNREAD_SUFFIXES:
                    unread.append(suffix)
        files += [ImageFile(path, relative_to, label) for path in natural_sorted(found)]
    notes = []
    if unread:
        suffixes = ", ".join(sorted(set(unread)))
        notes.append(f"{folder}: {counted(len(unread), 'file')} of image formats that are not read ({suffixes})")
    if linked:
        links = counted(len(linked), "link")
        notes.append(f"{folder}: {links} to folders within classes, which are not followed ({linked[0]})")
    return files, notes


def check_same_classes(train: Path, test: Path) -> list[str]:
    """The class names of both folders.

    Raises:
        DataError: they differ; every difference is listed.
    """
    in_train, in_test = class_folder_names(train), class_folder_names(test)
    differences = [f"{name}: only in {train.name}/" for name in in_train if name not in set(in_test)]
    differences += [f"{name}: only in {test.name}/" for name in in_test if name not in set(in_train)]
    if differences:
        raise DataError(
            listed(differences, f"{train} and {test} must hold the same class folders; {len(differences)} differ:")
        )
    return in_train


def _refuse_splits_as_classes(place: Path) -> None:
    like = [name for name in class_folder_names(place) if name.casefold() in _LIKE_SPLITS]
    if len(like) > 1:
        raise DataError(
            f"{place} holds {', '.join(f'{name}/' for name in like)}, which look like parts of a data set, not like "
            "classes; expected train/ and test/ (or val/), so written"
        )


def _load_and_split(place: Path, options: Data) -> Source:
    names = _at_least_two(class_folder_names(place), place)
    files, notes = image_files(place, {name: label for label, name in enumerate(names)}, place)
    if not files:
        raise DataError(f"the class folders of {place} hold no image ({_suffixes()})")
    train, test = fixed_test_split(torch.tensor([file.label for file in files]))
    return load_files("one tree", [files[row] for row in train], [files[row] for row in test], names, options, notes)


def _at_least_two(names: list[str], place: Path) -> list[str]:
    if len(names) < 2:
        found = f"only one, {names[0]}/" if names else "none"
        raise DataError(
            f"{place} must hold a folder of images for each class, two at least; found {found}. "
            "data.root is the folder that holds train/ and test/, or the class folders themselves"
        )
    return names


def _suffixes() -> str:
    return f"files that end in {', '.join(sorted(IMAGE_SUFFIXES))}"


def _stop(error: OSError) -> None:
    raise error  # a folder that may not be read must not leave its class smaller


def _counts(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"
