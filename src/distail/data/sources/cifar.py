"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), in whichever published layout they are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from distail.config.schema import Data
from distail.data.dataset import Source
from distail.data.sources.cifar_formats import (
    CIFAR10_BINARY,
    CIFAR100_BINARY,
    BinaryLayout,
    find_binary,
    load_binary,
)
from distail.data.sources.encoded import load_files
from distail.data.sources.folder import check_same_classes, image_files
from distail.data.sources.locate import not_found, places_to_look
from distail.data.sources.parquet import find_parquet, load_parquet
from distail.errors import DataError, listed

CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""

CIFAR100_NAMES = tuple(_FINE.split())
Loader = Callable[[], Source]


def load_class_folders(folder: Path, class_names: tuple[str, ...], options: Data) -> Source:
    """Folders named by class (`airplane`) or by label (`0`); labels are the official ones either way."""
    found = check_same_classes(folder / "train", folder / "test")
    numbers = tuple(str(label) for label in range(len(class_names)))
    expected = numbers if set(found) <= set(numbers) else class_names
    differences = [f"{extra}: not a class of {options.name}" for extra in found if extra not in expected]
    differences += [f"{missing}: missing" for missing in expected if missing not in found]
    if differences:
        raise DataError(listed(differences, f"the class folders of {folder} are not those of {options.name}:"))
    labels = {folder_name: label for label, folder_name in enumerate(expected)}
    train, notes = image_files(folder / "train", labels, folder)
    test, test_notes = image_files(folder / "test", labels, folder)
    return load_files("class folders", train, test, class_names, options, [*notes, *test_notes])


@dataclass(frozen=True)
class _Cifar:
    class_names: tuple[str, ...]
    binary: BinaryLayout
    pickled: tuple[str, ...]


_CIFAR10 = _Cifar(CIFAR10_NAMES, CIFAR10_BINARY, ("cifar-10-python.tar.gz", "cifar-10-batches-py"))
_CIFAR100 = _Cifar(CIFAR100_NAMES, CIFAR100_BINARY, ("cifar-100-python.tar.gz", "cifar-100-python"))


def load_cifar10(options: Data) -> Source:
    """50,000 and 10,000 images, 32x32 RGB, ten classes."""
    return _load(_CIFAR10, options)


def load_cifar100(options: Data) -> Source:
    """50,000 and 10,000 images, 32x32 RGB, a hundred fine classes."""
    return _load(_CIFAR100, options)


def _load(cifar: _Cifar, options: Data) -> Source:
    places = places_to_look(options)
    for place in places:
        if loader := _loader(cifar, place, options):
            return loader()
    download = f"https://www.cs.toronto.edu/~kriz/{cifar.binary.archive}"
    pickled = [place / name for place in places for name in cifar.pickled if (place / name).exists()]
    if pickled:
        raise DataError(
            f"{pickled[0]} is the pickled Python version of {options.name}, and distail unpickles nothing: loading a "
            f"pickle runs any code in it. Download the binary version, {download}, and put it next to it"
        )
    layouts = (
        "Layouts: train.parquet and test.parquet; train/<class>/*.png and test/<class>/*.png; "
        f"or the authors' binary version, {download}."
    )
    raise not_found(options, places, layouts)


def _loader(cifar: _Cifar, place: Path, options: Data) -> Loader | None:
    """How to load what lies in `place`, if it is one of the layouts."""
    if parquet := find_parquet(place):
        return partial(load_parquet, parquet, cifar.class_names, options)
    if (place / "train").is_dir() and (place / "test").is_dir():
        return partial(load_class_folders, place, cifar.class_names, options)
    binary = find_binary(place, cifar.binary)
    return None if binary is None else partial(load_binary, binary, cifar.binary, cifar.class_names)
