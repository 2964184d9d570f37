"""`folder`: any tree of class folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

import torch

from distail.config.schema import Data
from distail.data.class_names import natural_sorted
from distail.data.dataset import Source
from distail.data.sources.encoded import ImageFile, load_files, with_validation
from distail.data.sources.locate import locate
from distail.data.splits import fixed_test_split
from distail.errors import DataError, counted, listed, some_of

IMAGE_SUFFIXES = frozenset(
    {".apng", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg"}
    | {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
# What lies beside images and is none: nobody misses it in a class.
_COMPANIONS = frozenset(
    {".csv", ".db", ".html", ".ini", ".json", ".log", ".md", ".tsv", ".txt", ".xml", ".yaml", ".yml"}
)
# What a system or a storage box puts into folders: thumbnails, deleted files, lost ones.
_SYSTEM_FOLDERS = frozenset(
    {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"}
)
_TEST_NAMES = ("test", "val", "valid", "validation")
_LIKE_SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "eval", "dev"})


def load_folder(options: Data) -> Source:
    """`root` holds `train/` and `test/` (or `val/`, `valid/`, `validation/`) of class folders, or class folders alone.

    Beside `train/` and `test/` the folder `val/` (or `valid/`, `validation/`) is the validation set.

    Class folders alone (or `train/` alone) lend a stratified fifth, the same for every run's seed, as the test set.
    Class names are the folders' names in natural order.
    """
    place = locate(
        options,
        lambda place: place if place.is_dir() else None,
        hint="It holds train/ and test/ of class folders, or class folders alone.",
    )
    train = place / "train"
    # Without train/, valid/ may be a class beside invalid/.
    test_names = _TEST_NAMES if train.is_dir() else _TEST_NAMES[:2]
    tests = [place / name for name in test_names if (place / name).is_dir()]
    if tests and not train.is_dir():
        raise DataError(f"{place} holds {tests[0].name}/ but no train/")
    if not tests:
        _refuse_splits_as_classes(place)
        if train.is_dir():
            return _load_and_split(train, options, _unused(place, train))
        return _load_and_split(place, options)
    if not class_folder_names(tests[0]) and _holds_images(tests[0]):
        raise DataError(
            f"{tests[0]} holds images, but no class folders, so their labels are unknown; expected the class "
            f"folders of {train}. Without {tests[0].name}/ a stratified fifth of train/ is the test set"
        )
    names = _usable(check_same_classes(train, tests[0]), train)
    labels = {name: label for label, name in enumerate(names)}
    train_files, notes = image_files(train, labels, place)
    test_files, test_notes = image_files(tests[0], labels, place)
    own = [folder for folder in tests[1:] if tests[0].name == _TEST_NAMES[0] and class_folder_names(folder)][:1]
    held_out: list[ImageFile] = []
    for folder in own:
        check_same_classes(train, folder, every=False)
        there = {*class_folder_names(folder)}
        held_out, own_notes = image_files(folder, {name: labels[name] for name in names if name in there}, place)
        test_notes += own_notes
    if not test_files:
        raise DataError(f"{tests[0]} holds no image ({_suffixes()})")
    instead = [f"{place} holds no test/: {tests[0].name}/ is the test set"] * (tests[0].name != _TEST_NAMES[0])
    notes = [*instead, *_unused(place, train, tests[0], *own), *notes, *test_notes]
    if not held_out:
        return load_files("train and test", train_files, test_files, names, options, notes)
    source = load_files("train, val and test", [*train_files, *held_out], test_files, names, options, notes)
    return with_validation(source, {file.name for file in held_out})


def class_folder_names(folder: Path) -> list[str]:
    """The names of the folders in `folder`, in natural order; hidden ones and a system's own are not classes.

    Composed (NFC): some systems write the accents of file names apart, and the same class may have both in two places.
    """
    return natural_sorted(normalize("NFC", name) for name in _folders(folder))


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.is_dir() and _counts(entry.name)]


def image_files(folder: Path, labels: Mapping[str, int], relative_to: Path) -> tuple[list[ImageFile], list[str]]:
    """The images of every class folder at any depth, class by class, in natural order; and notes on what is not read.

    Raises:
        OSError: a folder cannot be read.
    """
    files, linked = [], []
    passed_over: dict[str, Counter[str]] = {}
    on_disk = {normalize("NFC", name): name for name in _folders(folder)}
    for name, label in labels.items():
        found: list[str] = []
        others: Counter[str] = Counter()
        for place, folders, names in os.walk(folder / on_disk.get(name, name), onerror=_stop):
            here = Path(place)
            folders[:] = [inner for inner in folders if _counts(inner)]
            linked += [here / inner for inner in folders if (here / inner).is_symlink()]
            for file in filter(_counts, names):
                suffix = os.path.splitext(file)[1].lower()
                if suffix in IMAGE_SUFFIXES:
                    found.append((here / file).relative_to(relative_to).as_posix())
                elif suffix not in _COMPANIONS:
                    others[suffix] += 1
        files += [ImageFile(path, relative_to, label) for path in natural_sorted(found)]
        if others:
            passed_over[f"{name}/ ({others.total()} beside {counted(len(found), 'image')})"] = others
    notes = []
    if passed_over:
        notes.append(_passed_over_note(folder, passed_over))
    if linked:
        links = counted(len(linked), "link")
        notes.append(f"{folder}: {links} to folders within classes, which are not followed ({linked[0]})")
    return files, notes


def _passed_over_note(folder: Path, passed_over: Mapping[str, Counter[str]]) -> str:
    """`passed_over`: how many files of each suffix, by class."""
    total: Counter[str] = sum(passed_over.values(), Counter())
    suffixes = [f"{count:,} {repr(suffix) if suffix else 'without suffix'}" for suffix, count in total.most_common()]
    classes = sorted(passed_over, key=lambda name: -passed_over[name].total())
    return (
        f"{folder}: {counted(total.total(), 'file')} in class folders ignored, because they do not have an image "
        f"suffix: {some_of(suffixes)}; in {some_of(classes, 3)}"
    )


def check_same_classes(train: Path, test: Path, *, every: bool = True) -> list[str]:
    """The class names of both folders; without `every` the second may lack some.

    Raises:
        DataError: they differ; every difference is listed.
    """
    in_train, in_test = class_folder_names(train), class_folder_names(test)
    differences = [f"{name}: only in {train.name}/" for name in in_train if every and name not in set(in_test)]
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
            "classes; expected train/ and test/ (or val/, valid/, validation/), spelled like this"
        )


def _unused(place: Path, *used: Path) -> list[str]:
    """A note on the folders beside those of the splits."""
    others = [f"{name}/" for name in class_folder_names(place) if place / name not in used]
    if not others:
        return []
    are = "are" if len(others) > 1 else "is"
    sets = f"train/ and {used[1].name}/ are the training and the test set" if len(used) > 1 else "train/ is all data"
    return [
        f"{place}: {sets}, and {some_of(others)} {are} not used"
        + ("" if len(used) > 2 else "; validation images are drawn from train/ (data.validation)")
    ]


def _load_and_split(place: Path, options: Data, notes: Sequence[str] = ()) -> Source:
    names = _usable(class_folder_names(place), place)
    files, found = image_files(place, {name: label for label, name in enumerate(names)}, place)
    if not files:
        raise DataError(f"the class folders of {place} hold no image ({_suffixes()})")
    train, test = fixed_test_split(torch.tensor([file.label for file in files]))
    notes = [*notes, *found]
    return load_files("one tree", [files[row] for row in train], [files[row] for row in test], names, options, notes)


def _usable(names: list[str], place: Path) -> list[str]:
    """The names of two classes at least, which are no parts of a data set or kinds of image instead."""
    if len(names) < 2:
        found = f"only one, {names[0]}/" if names else "none"
        if _holds_images(place):
            found += ", and images (if the folder is itself a class, list the images in a manifest, data.name: csv)"
        raise DataError(
            f"{place} must hold a folder of images for each class, two at least; found {found}. "
            "data.root is the folder that holds train/ and test/, or the class folders themselves"
        )
    inner = {normalize("NFC", name): _folders_alone(place / name) for name in _folders(place)}
    parts = [name for name in names if inner[name]]
    largest = max(inner.values(), key=len)
    if len(parts) * 2 > len(names) and len(largest) > 1 and all(inner[name] <= largest for name in parts):
        raise DataError(
            f"{place}: {some_of([f'{name}/' for name in parts])} contain no images, but all the same subfolders "
            f"({some_of(natural_sorted(largest), 4)}), so they look like parts of a data set, not like classes; "
            "expected the class folders themselves, or train/ and test/ (or val/) of them. Where those are classes, "
            "list the images in a manifest (data.name: csv)"
        )
    return names


def _folders_alone(folder: Path) -> set[str]:
    """The names of the folders in a folder that has no image of its own, or none; a folder alone in one is entered."""
    while not _holds_images(folder):
        inner = _folders(folder)
        if len(inner) != 1 or (folder / inner[0]).is_symlink():
            return set(inner)
        folder = folder / inner[0]
    return set()


def _holds_images(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(
            os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and _counts(entry.name) for entry in entries
        )


def _suffixes() -> str:
    return f"files that end in {', '.join(sorted(IMAGE_SUFFIXES))}"


def _stop(error: OSError) -> None:
    raise error  # a folder that may not be read must not leave its class smaller


def _counts(name: str) -> bool:
    return not name.startswith(".") and name.casefold() not in _SYSTEM_FOLDERS
