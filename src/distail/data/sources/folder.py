"""``folder``: any tree of class folders."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from distail.data.images import Source
from distail.data.options import SourceOptions
from distail.data.sources.class_folders import IMAGE_SUFFIXES, check_same_classes, class_folder_names, image_files
from distail.data.sources.encoded import load_files
from distail.data.sources.locate import locate
from distail.data.splits import fixed_test_split
from distail.errors import DataError

_TEST_NAMES = ("test", "val")
_LIKE_SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "eval", "dev"})
_log = logging.getLogger(__name__)


def load_folder(root: Path | None, options: SourceOptions) -> Source:
    """``root`` holds ``train/`` and ``test/`` (or ``val/``) of class folders, or class folders alone.

    Class folders alone (or ``train/`` alone) lend a stratified fifth, the same for every run's seed, as the test set.
    Class names are the folders' names in natural order.
    """
    place = locate(
        "folder",
        root,
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
    if len(tests) > 1:
        _log.warning("%s holds both test/ and val/: test/ is the test set and val/ is not used", place)
    names = _at_least_two(check_same_classes(train, tests[0]), train)
    labels = {name: label for label, name in enumerate(names)}
    test_files = image_files(tests[0], labels, place)
    if not test_files:
        raise DataError(f"{tests[0]} holds no image ({_suffixes()})")
    return load_files("folder", "train and test", image_files(train, labels, place), test_files, names, options)


def _refuse_splits_as_classes(place: Path) -> None:
    like = [name for name in class_folder_names(place) if name.casefold() in _LIKE_SPLITS]
    if len(like) > 1:
        raise DataError(
            f"{place} holds {', '.join(f'{name}/' for name in like)}, which look like parts of a data set, not like "
            "classes; expected train/ and test/ (or val/), so written"
        )


def _load_and_split(place: Path, options: SourceOptions) -> Source:
    names = _at_least_two(class_folder_names(place), place)
    files = image_files(place, {name: label for label, name in enumerate(names)}, place)
    if not files:
        raise DataError(f"the class folders of {place} hold no image ({_suffixes()})")
    train, test = fixed_test_split(torch.tensor([file.label for file in files]))
    return load_files("folder", "one tree", [files[row] for row in train], [files[row] for row in test], names, options)


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
