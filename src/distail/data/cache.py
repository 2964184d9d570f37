"""What was learned by decoding kept on disk, so that images are decoded once.

A file is one safetensors file, named by a fingerprint of where its content came from. Nothing depends on the cache:
where it cannot be written, or a file in it is damaged, data is decoded as if there were none, and a note says so.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distail.data.dataset import LabeledImages, Source
from distail.file_lock import FolderInUseError, lock_folder
from distail.files import read_tensors, remove_stale_temporaries, write_tensors

Made = TypeVar("Made")
Packed = tuple[Mapping[str, Tensor], Mapping[str, Any]]

_FORMAT = 6
_SAMPLED_FILES = 64
_SAMPLED_BYTES = 65536


def cache_folder() -> Path:
    """`$DISTAIL_CACHE`, else `$XDG_CACHE_HOME/distail`, else `~/.cache/distail`.

    Raises:
        RuntimeError: it would lie in a home folder, and there is none.
    """
    if folder := os.environ.get("DISTAIL_CACHE"):
        return Path(folder).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path("~/.cache").expanduser()) / "distail"


def fingerprint(facts: Iterable[object], files: Sequence[tuple[str, Path]]) -> str:
    """A hash of the facts (layout, options, labels) and of each file's relative name, size and time of change.

    The first bytes of up to 64 files are hashed as well: file times alone do not tell data sets apart whose times were
    set to a constant, as packages and images of containers do.
    """
    digest = hashlib.sha256(json.dumps([_FORMAT, *facts], sort_keys=True).encode())
    for name, path in files:
        digest.update(json.dumps([name, *_state(path)]).encode())
    for _, path in files[:: max(1, -(-len(files) // _SAMPLED_FILES))]:
        digest.update(_beginning(path))
    return digest.hexdigest()


def cached(name: str, key: str, decode: Callable[[], Source]) -> Source:
    """The data set from the cache, or decoded and put there; its notes say what is wrong with the cache."""
    source, notes = remembered(f"{name}-{key[:32]}", decode, _pack, _unpack)
    return replace(source, notes=(*source.notes, *notes))


def remembered(
    file: str, make: Callable[[], Made], pack: Callable[[Made], Packed], unpack: Callable[[Packed], Made]
) -> tuple[Made, list[str]]:
    """Whatever can be packed as tensors and plain values, from the cache, or made and put there; and notes on that."""
    try:
        path = cache_folder() / f"{file}.safetensors"
    except RuntimeError:  # as in a container whose user is a bare number
        return make(), [
            "decoded images are not cached: there is no home folder. Set DISTAIL_CACHE to a folder for them"
        ]
    notes: list[str] = []
    try:
        return unpack(_read(path)), notes
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        notes.append(f"the cached data in {path} cannot be used ({error}): images are decoded again")
    made = make()
    try:
        _write(path, pack(made))
    except FolderInUseError:  # by one who writes the same, most often
        pass
    except OSError as error:
        notes.append(f"decoded images are not cached in {path.parent} ({error}): the next run decodes them again")
    return made, notes


def _state(path: Path) -> tuple[int, int, int]:
    # A file that is not there, such as a broken link, is for decoding to report, with all others that cannot be read.
    try:
        state = path.stat()
    except OSError:
        return -1, -1, -1
    # The mode: a file that could not be read may be allowed by now.
    return state.st_size, state.st_mtime_ns, state.st_mode


def _beginning(path: Path) -> bytes:
    try:
        if not path.is_file():  # reading from a pipe or a device could last for ever
            return b""
        with path.open("rb") as file:
            return file.read(_SAMPLED_BYTES)
    except OSError:
        return b""


def _pack(source: Source) -> Packed:
    tensors: dict[str, Tensor] = {}
    for split, data in (("train", source.train), ("test", source.test)):
        assert isinstance(data, LabeledImages)
        tensors |= {split: data.images, f"{split}_labels": data.labels}
        if data.digests is not None:
            tensors[f"{split}_digests"] = data.digests
        if data.names is not None and len(data):
            tensors[f"{split}_names"] = torch.from_numpy(data.names.view(np.uint8).reshape(len(data), -1).copy())
    return tensors, {"class_names": source.class_names, "skipped": source.skipped, "notes": source.notes}


def _unpack(packed: Packed) -> Source:
    tensors, facts = packed
    train, test = (
        LabeledImages(
            tensors[split],
            tensors[f"{split}_labels"],
            tensors.get(f"{split}_digests"),
            _as_names(tensors.get(f"{split}_names")),
        )
        for split in ("train", "test")
    )
    return Source(train, test, tuple(facts["class_names"]), tuple(facts["skipped"]), tuple(facts["notes"]))


def _as_names(bytes_NL: Tensor | None) -> NDArray[np.bytes_] | None:
    if bytes_NL is None:
        return None
    return bytes_NL.numpy().view(f"S{bytes_NL.shape[1]}")[:, 0]


def _read(path: Path) -> Packed:
    from safetensors import SafetensorError

    try:
        tensors, metadata = read_tensors(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    return tensors, json.loads(metadata["distail"])


def _write(path: Path, packed: Packed) -> None:
    tensors, facts = packed
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock_folder(path.parent) as lock:
        if not lock.missing:  # else nobody knows what is stale
            remove_stale_temporaries(path.parent)
        write_tensors(path, tensors, {"distail": json.dumps(facts)})
