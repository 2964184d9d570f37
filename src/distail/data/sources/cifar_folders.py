"""CIFAR as PNG files in class folders: train/<class>/*.png and test/<class>/*.png."""

from __future__ import annotations

from pathlib import Path

from distail.data.images import Source
from distail.data.options import SourceOptions
from distail.data.sources.class_folders import check_same_classes, image_files
from distail.data.sources.encoded import load_files
from distail.errors import DataError, listed


def holds_class_folders(folder: Path) -> bool:
    """Whether ``folder`` has both splits as folders."""
    return (folder / "train").is_dir() and (folder / "test").is_dir()


def load_class_folders(name: str, folder: Path, class_names: tuple[str, ...], options: SourceOptions) -> Source:
    """Folders named by class (``airplane``) or by label (``0``); labels are the official ones either way."""
    found = check_same_classes(folder / "train", folder / "test")
    numbers = tuple(str(label) for label in range(len(class_names)))
    expected = numbers if set(found) <= set(numbers) else class_names
    differences = [f"{extra}: not a class of {name}" for extra in found if extra not in expected]
    differences += [f"{missing}: missing" for missing in expected if missing not in found]
    if differences:
        raise DataError(listed(differences, f"the class folders of {folder} are not those of {name}:"))
    labels = {folder_name: label for label, folder_name in enumerate(expected)}
    train, test = (image_files(folder / split, labels, folder) for split in ("train", "test"))
    return load_files(name, "class folders", train, test, class_names, options)
