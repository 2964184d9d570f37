"""Encoded images and labels to a source: what every source of image files shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from distail.data.cache import cached, fingerprint
from distail.data.decode import EncodedImage, decode_all
from distail.data.images import LabelledImages, Source
from distail.data.long_tail import class_counts, require_every_class
from distail.data.options import SourceOptions


@dataclass(frozen=True)
class ImageFile:
    """One image on disk: ``name`` relative to the data set, with forward slashes."""

    name: str
    path: Path
    label: int


@dataclass(frozen=True)
class EncodedSplit:
    """Encoded images with their labels."""

    images: Sequence[EncodedImage]
    labels: Sequence[int]


def load_files(
    name: str,
    layout: str,
    train: Sequence[ImageFile],
    test: Sequence[ImageFile],
    class_names: Sequence[str],
    options: SourceOptions,
) -> Source:
    """Image files decoded, or taken from the cache if they were decoded before and have not changed."""
    require_every_class(
        class_counts(torch.tensor([file.label for file in train], dtype=torch.int64), len(class_names)),
        tuple(class_names),
    )
    files = [*train, *test]
    key = fingerprint(
        [layout, *options.identity(), len(train), list(class_names), [file.label for file in files]],
        [(file.name, file.path) for file in files],
    )
    return cached(name, key, lambda: decode_source(_encoded(train), _encoded(test), class_names, options))


def decode_source(
    train: EncodedSplit, test: EncodedSplit, class_names: Sequence[str], options: SourceOptions
) -> Source:
    """Both splits decoded together, so that one rule of colour and size and one list of problems holds for both."""
    decoded = decode_all([*train.images, *test.images], options)
    labels = torch.tensor([*train.labels, *test.labels], dtype=torch.int64)[decoded.rows]
    in_train = int((decoded.rows < len(train.images)).sum())
    return Source(
        LabelledImages(decoded.images[:in_train], labels[:in_train]),
        LabelledImages(decoded.images[in_train:], labels[in_train:]),
        tuple(class_names),
        decoded.skipped,
    )


def _encoded(files: Sequence[ImageFile]) -> EncodedSplit:
    return EncodedSplit(
        [EncodedImage(file.name, file.path.read_bytes) for file in files], [file.label for file in files]
    )
