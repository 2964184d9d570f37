"""Writing files so that a kill at any moment leaves the old content or the new one, never half of it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_TEMPORARY = re.compile(r"\..+\.\w+\.tmp")
# Some network and user-space file systems have no such operation; it is a rename's safety net, not its condition.
_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}
MEGABYTE = 2**20
DAMAGED_ARCHIVE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, NotImplementedError, MemoryError)
"""What reading an archive of arrays raises where it is damaged, beside ValueError. NotImplementedError is zipfile's, of
a compression that this Python lacks."""
CONTENT_HASH = "content_sha256"
"""The key of a safetensors file's metadata that holds the hash of its tensors and of the rest of its metadata."""


def write_bytes(path: Path, *content: bytes | memoryview) -> None:
    """Write one part after the other to a temporary file beside `path`, sync it to disk, rename it over `path`.

    Raises:
        OSError: naming `path`; what was there before is still there, and nothing else.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                for part in content:
                    file.write(part)
                file.flush()
                sync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the system inside name `path`, as those of a full disk do not by themselves."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def remove_stale_temporaries(folder: Path) -> None:
    """Remove what processes that were killed while writing left in this folder; not what lies in folders below."""
    for path in folder.glob(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # which opens no folders, and has renames in its journal
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync(descriptor: int) -> None:
    """To the disk, where the file system can say so."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def take_room(file: IO[bytes], size: int) -> None:
    """Let a new file have so many bytes on the disk, so that a full disk is told now.

    Raises:
        OSError: there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, 2**20):  # macOS
        file.write(bytes(min(2**20, size - start)))
    file.flush()


def write_text(path: Path, content: str) -> None:
    """`write_bytes` for text in UTF-8; what stands for bytes of a file's name that are no text becomes an escape."""
    write_bytes(path, content.encode("utf-8", "backslashreplace"))


def write_json(path: Path, content: Any) -> None:
    """`write_text` for JSON that a person can read."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """`write_bytes` for a safetensors file that carries its hash; the same content always gives the same bytes.

    Tensors that share memory, such as tied weights, are each written whole.
    """
    written: dict[str, Tensor] = {}
    stored: set[int] = set()
    for name, tensor in tensors.items():
        found = tensor.detach().cpu().contiguous()
        storage = found.untyped_storage().data_ptr()
        # safetensors refuses two names for one memory; on loading both are filled with the same values.
        written[name] = found.clone() if storage in stored else found
        stored.add(storage)
    facts = {**(metadata or {}), CONTENT_HASH: tensors_hash(written, metadata or {})}
    head, order = _head(written, facts)
    write_bytes(path, head, *(_memory(written[name]) for name in order))


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """safetensors' `safe_open`, which takes no names that are not UTF-8, for files of any name.

    Raises:
        OSError: it cannot be read.
        SafetensorError: it is no safetensors file, or is cut off.
    """
    from safetensors import safe_open

    with ExitStack() as held:
        name: Path | str = path
        if not is_utf8(path) and os.name == "posix":
            name = f"/dev/fd/{held.enter_context(path.open('rb')).fileno()}"
        yield held.enter_context(safe_open(name, framework="pt"))


def is_utf8(path: Path) -> bool:
    """Whether a file's name is text, and not bytes that Python keeps as halves of characters.

    >>> is_utf8(Path("é")), is_utf8(Path("\\udce9"))
    (True, False)
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; where it carries its hash, the hash is checked.

    Raises:
        OSError: it cannot be read.
        SafetensorError: it is no safetensors file, or is cut off.
        ValueError: its content is not what was written.
    """
    with open_tensors(path) as file:
        metadata = dict(file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    stored = metadata.pop(CONTENT_HASH, None)
    if stored is not None and stored != tensors_hash(tensors, metadata):
        raise ValueError("its content does not match its hash")
    return tensors, metadata


def file_hash(path: Path) -> str:
    """SHA-256 of all bytes of a file."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def tensors_hash(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """SHA-256 of tensors by name, their types, shapes and values, and of plain facts beside them."""
    digest = hashlib.sha256(json.dumps(sorted((metadata or {}).items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_memory(tensor))
    return digest.hexdigest()


def _head(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """What comes before the tensors in a safetensors file, and the order in which they follow.

    As safetensors' `save` writes it, which would hold all of them in memory a second time; but for its metadata, whose
    order is that of a hash map that is seeded anew in every process.
    """
    from safetensors.torch import save

    start = 8
    empty = save({name: tensor.new_empty(0) for name, tensor in tensors.items()}, metadata=dict(metadata))
    header = json.loads(empty[start : start + int.from_bytes(empty[:start], "little")])
    order, place = [name for name in header if name in tensors], 0
    for name in order:
        size = tensors[name].nbytes
        header[name] |= {"shape": list(tensors[name].shape), "data_offsets": [place, place + size]}
        place += size
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % start)
    return len(text).to_bytes(start, "little") + text, order


def _memory(tensor: Tensor) -> memoryview:
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy().data
