"""Tiny ImageNet: 200 classes of 64x64 RGB, 100,000 and 10,000 images (Le and Yang 2015), as its authors packed it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from distail.config.schema import Data
from distail.data.dataset import Source
from distail.data.sources.encoded import ImageFile, load_files
from distail.data.sources.folder import class_folder_names, image_files
from distail.data.sources.locate import locate
from distail.errors import DataError, first_of, listed

_ARCHIVE = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


def load_tiny_imagenet(options: Data) -> Source:
    """`train/<wnid>/images/*.JPEG`; `val/` with its annotations is the test set, since the real one has no labels.

    `wnids.txt` gives the order of the classes, `words.txt` their names if it is there.
    """
    folder = locate(
        options,
        _find,
        hint=f"It needs wnids.txt, train/ and val/val_annotations.txt, as in {_ARCHIVE}.",
    )
    wnids = list(dict.fromkeys(_lines(folder / "wnids.txt")))
    in_train = class_folder_names(folder / "train")
    differences = [f"{wnid}: in wnids.txt but not in train/" for wnid in wnids if wnid not in set(in_train)]
    differences += [f"{wnid}: in train/ but not in wnids.txt" for wnid in in_train if wnid not in set(wnids)]
    if differences:
        raise DataError(listed(differences, f"{folder}: wnids.txt and train/ differ:"))
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    train, notes = image_files(folder / "train", labels, folder)
    return load_files("tiny-imagenet", train, _test(folder, labels), _names(folder, wnids), options, notes)


def _find(place: Path) -> Path | None:
    for folder in (place, place / "tiny-imagenet-200"):
        if (folder / "wnids.txt").is_file() and (folder / "train").is_dir():
            return folder
    return None


def _test(folder: Path, labels: dict[str, int]) -> list[ImageFile]:
    annotations = folder / "val" / "val_annotations.txt"
    if not annotations.is_file():
        raise DataError(f"{annotations} does not exist; it holds the labels of the test set")
    files, problems = [], []
    for number, line in enumerate(_lines(annotations), start=1):
        name, wnid, *_ = [*line.split("\t"), "", ""]
        path = folder / "val" / "images" / name
        if wnid not in labels:
            problems.append(f"line {number}: {wnid!r} is not in wnids.txt")
        elif Path(name).name != name or not path.is_file():
            problems.append(f"line {number}: there is no image val/images/{name}")
        else:
            files.append(ImageFile(f"val/images/{name}", folder, labels[wnid]))
    if problems or not files:
        raise DataError(listed(first_of(problems or ["it is empty"]), f"{annotations} cannot be used:"))
    return files


def _names(folder: Path, wnids: list[str]) -> list[str]:
    """The first synonym of each class; with its wnid where two classes share one ("crane" is a bird and a machine)."""
    words = folder / "words.txt"
    synonyms = dict(line.split("\t", 1) for line in _lines(words) if "\t" in line) if words.is_file() else {}
    names = [synonyms.get(wnid, wnid).split(",")[0].strip() for wnid in wnids]
    shared = Counter(names)
    return [name if shared[name] == 1 else f"{name} ({wnid})" for name, wnid in zip(names, wnids, strict=True)]


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8: {error}") from error
