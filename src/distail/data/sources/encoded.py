"""Encoded images and labels to a source: what every source of image files shares."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from distail.config.schema import Data
from distail.data.cache import cached, fingerprint, remembered
from distail.data.class_names import check_class_names
from distail.data.dataset import Examples, Groups, LabeledImages, Source, StreamedImages, image_names
from distail.data.decode import EncodedImage, decode_all, decoding_options, read_image_file
from distail.data.labels import labels_of
from distail.data.long_tail import class_counts, require_every_class
from distail.data.sources.rows import group_codes
from distail.data.streaming import decoding_processes, pack, scan_images, streaming_reason, unpack
from distail.data.workers import DecodeFiles


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image on disk: `name` relative to `folder`, with forward slashes."""

    name: str
    folder: Path
    label: int | tuple[bool, ...]

    @property
    def path(self) -> Path:
        return self.folder / self.name


@dataclass(frozen=True)
class EncodedSplit:
    """Encoded images with their labels."""

    images: Sequence[EncodedImage]
    labels: Sequence[int | tuple[bool, ...]]


def load_files(
    layout: str,
    train: Sequence[ImageFile],
    test: Sequence[ImageFile],
    class_names: Sequence[str],
    options: Data,
    notes: Sequence[str] = (),
) -> Source:
    """Image files decoded, or scanned and left on disk; from the cache if that was done before and none has changed.

    All lie in one folder. `options` and the memory there is decide which of the two (`distail.data.streaming`).
    `notes` are what was found out on the way; the source has them before its own.

    Raises:
        DataError: class names, labels or images cannot be used.
    """
    check_class_names(class_names, f"data set {options.name!r}")
    require_every_class(
        class_counts(labels_of([file.label for file in train]), len(class_names)),
        tuple(class_names),
    )
    files = [*train, *test]
    key = fingerprint(
        [layout, *decoding_options(options), len(train), list(class_names), [file.label for file in files]],
        [(file.name, file.path) for file in files],
    )
    reason = streaming_reason(files, options)
    if reason is None:
        source = cached(
            options.name,
            key,
            lambda: decode_source(_encoded(train), _encoded(test), class_names, options, digests=True),
        )
    else:
        source = _streamed(key, files, len(train), class_names, options, reason)
    return replace(source, notes=(*notes, *source.notes))


def with_validation(source: Source, held_out: set[str]) -> Source:
    """The training images that have these names as the data's own validation set."""
    train = source.train
    assert isinstance(train, LabeledImages | StreamedImages)
    is_own = torch.tensor([name in held_out for name in image_names(train, "")])
    return replace(
        source,
        train=train.subset((~is_own).nonzero().flatten()),
        validation=train.subset(is_own.nonzero().flatten()) if is_own.any() else None,
    )


def with_groups(source: Source, group_of: Mapping[str, str] | None) -> Source:
    """The groups of the images that could be read, by their names; None where there are none."""
    if group_of is None:
        return source
    texts = np.array(list(group_of.values()), dtype=str)
    code_of = dict(zip(group_of, group_codes(texts).tolist(), strict=True))

    def of(images: Examples) -> torch.Tensor:
        return torch.tensor([code_of[name] for name in image_names(images, "")])

    held_out = source.validation
    return replace(source, groups=Groups(of(source.train), of(source.test), None if held_out is None else of(held_out)))


def with_file_rows(source: Source, row_of: Mapping[str, int]) -> Source:
    """Where in one file the images that could be read are listed, by their names: `Source.file_rows`."""

    def of(*parts: Examples | None) -> torch.Tensor:
        return torch.tensor(
            [row_of[name] for images in parts if images is not None for name in image_names(images, "")]
        )

    return replace(source, file_rows=(of(source.train, source.validation), of(source.test)))


def decode_source(
    train: EncodedSplit,
    test: EncodedSplit,
    class_names: Sequence[str],
    options: Data,
    *,
    digests: bool = False,
) -> Source:
    """Both splits decoded together, so that one rule of color and size and one list of problems holds for both.

    `digests`: the images are files of their own, and are known by the SHA-256 of each from now on.
    """
    decoded = decode_all([*train.images, *test.images], options)
    labels = labels_of([*train.labels, *test.labels])[decoded.rows]
    known = decoded.digests if digests else None
    encoded = [*train.images, *test.images]
    names = np.array([os.fsencode(encoded[row].name) for row in decoded.rows.tolist()], dtype=np.bytes_)
    in_train = int((decoded.rows < len(train.images)).sum())
    train_images, test_images = (
        LabeledImages(decoded.images[part], labels[part], None if known is None else known[part], names[part])
        for part in (slice(in_train), slice(in_train, None))
    )
    return Source(train_images, test_images, tuple(class_names), decoded.skipped, decoded.notes)


def _streamed(
    key: str, files: Sequence[ImageFile], in_train: int, class_names: Sequence[str], options: Data, reason: str
) -> Source:
    folder, workers = str(files[0].folder), decoding_processes(options)
    names = np.array([os.fsencode(file.name) for file in files])
    found, notes = remembered(
        f"{options.name}-{key[:32]}-files", lambda: scan_images(folder, names, options, workers), pack, unpack
    )
    everything = StreamedImages(
        names=names[found.rows.numpy()],
        labels=labels_of([file.label for file in files])[found.rows],
        digests=found.digests,
        sums=found.sums,
        squares=found.squares,
        decode=DecodeFiles(folder, options.image_size, found.image_shape, options.bit_depth),
        workers=workers,
    )
    of_train = found.rows < in_train
    how = f"images stay on disk ({reason}), decoded batch by batch; worker processes: {workers}"
    return Source(
        everything.subset(of_train.nonzero().flatten()),
        everything.subset((~of_train).nonzero().flatten()),
        tuple(class_names),
        found.skipped,
        (how, *found.notes, *notes),
    )


def _encoded(files: Sequence[ImageFile]) -> EncodedSplit:
    return EncodedSplit(
        [EncodedImage(file.name, partial(read_image_file, file.path)) for file in files], [file.label for file in files]
    )
