"""Trees with one folder of images for each class."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from distail.data.natural import natural_sorted
from distail.data.sources.encoded import ImageFile
from distail.errors import DataError, listed

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
_UNREAD_SUFFIXES = frozenset(
    {".avif", ".dng", ".eps", ".heic", ".heif", ".ico", ".jp2", ".jxl", ".psd", ".raw", ".svg", ".tga"}
)

_log = logging.getLogger(__name__)


def class_folder_names(folder: Path) -> list[str]:
    """The names of the folders in ``folder``, in natural order; hidden ones and ``__MACOSX`` are not classes."""
    with os.scandir(folder) as entries:
        return natural_sorted(entry.name for entry in entries if entry.is_dir() and _counts(entry.name))


def image_files(folder: Path, labels: Mapping[str, int], relative_to: Path) -> list[ImageFile]:
    """The images of every class folder at any depth, class by class, in natural order."""
    files = []
    unread: list[str] = []
    linked: list[str] = []
    for name, label in labels.items():
        found: list[str] = []
        for place, folders, names in os.walk(folder / name, onerror=_stop):
            folders[:] = [inner for inner in folders if _counts(inner)]
            here = Path(place)
            linked += [str(here / inner) for inner in folders if (here / inner).is_symlink()]
            unread += [suffix for file in names if _counts(file) and (suffix := _suffix(file)) in _UNREAD_SUFFIXES]
            found += [
                (here / file).relative_to(relative_to).as_posix()
                for file in names
                if _counts(file) and _suffix(file) in IMAGE_SUFFIXES
            ]
        files += [ImageFile(path, relative_to, label) for path in natural_sorted(found)]
    if unread:
        _log.warning(
            "%s: %d files are of image formats that are not read and were passed over (%s)",
            folder,
            len(unread),
            ", ".join(sorted(set(unread))),
        )
    if linked:
        _log.warning(
            "%s: %d folders within classes are links, which are not followed (%s)", folder, len(linked), linked[0]
        )
    return files


def check_same_classes(train: Path, test: Path) -> list[str]:
    """The class names of both folders; ``DataError`` lists the differences."""
    in_train, in_test = class_folder_names(train), class_folder_names(test)
    differences = [f"{name}: only in {train.name}/" for name in in_train if name not in set(in_test)]
    differences += [f"{name}: only in {test.name}/" for name in in_test if name not in set(in_train)]
    if differences:
        raise DataError(
            listed(differences, f"{train} and {test} must hold the same class folders; {len(differences)} differ:")
        )
    return in_train


def _stop(error: OSError) -> None:
    raise error  # a folder that may not be read must not leave its class smaller


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _counts(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"
