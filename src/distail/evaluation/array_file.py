"""Arrays by name out of one safetensors, npz or parquet file, mapped where the file can be. Nothing is unpickled.

Shapes: N rows, W width of a row.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from distail.errors import DataError, did_you_mean
from distail.files import DAMAGED_ARCHIVE, open_tensors

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_AT_ONCE, _BYTES_AT_ONCE = 1 << 16, 1 << 20
_NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_LOCAL_HEADER = 30  # bytes before the name of a zip's member
Array = Tensor | NDArray[np.bytes_]


@dataclass(frozen=True)
class ArrayFile:
    """What a file holds; an array is read, or mapped, when it is asked for.

    Attributes:
        kind: what the format calls an array.
        names: of its arrays.
        facts: texts beside them: metadata of safetensors and parquet, and arrays of npz that are one text.
    """

    path: Path
    kind: str
    names: tuple[str, ...]
    facts: Mapping[str, str]
    read: Callable[[str], Array]

    def numbers(self, name: str) -> Tensor:
        """An array of numbers, of any type that torch can reckon with: uint16 and larger ones as int64.

        Raises:
            DataError: it holds no numbers, or is damaged.
        """
        found = self.read(name)
        if not isinstance(found, Tensor):
            raise DataError(f"{self.path}: {name} are of type text; expected numbers.")
        return signed(found, name, self.path)

    def texts(self, name: str) -> NDArray[np.bytes_]:
        """An array (N,) of texts in UTF-8; in safetensors, which knows none, uint8 (N, W) filled up with zeros.

        Raises:
            DataError: it holds no texts, or is damaged.
        """
        found = self.read(name)
        if not isinstance(found, Tensor):
            return found
        if found.dtype != torch.uint8 or found.ndim != 2 or not found.shape[1]:
            raise DataError(f"{self.path}: {name} are numbers; expected texts (in safetensors uint8 (N, bytes)).")
        return found.contiguous().numpy().view(f"S{found.shape[1]}").reshape(-1)

    def list_fact(self, name: str) -> tuple[str, ...] | None:
        """A fact that is a JSON list of texts, such as `class_names`; None where there is none.

        Raises:
            DataError: it is something else.
        """
        if name not in self.facts:
            return None
        try:
            found = json.loads(self.facts[name])
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise DataError(f"{self.path}: {name} is {self.facts[name][:80]!r}; expected a JSON list of texts.")
        return tuple(found)


def open_arrays(path: Path) -> ArrayFile:
    """The arrays of a file.

    Raises:
        DataError: no such file, another kind of file, a damaged one, or pickled arrays.
    """
    if not path.is_file():
        raise DataError(f"there is no file {str(path)!r} (current directory {Path.cwd()}).")
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise DataError(f"{str(path)!r} cannot be read: its name ends in {kind!r}. {did_you_mean(kind, FORMATS)}")
    return FORMATS[kind](path)


def _open_safetensors(path: Path) -> ArrayFile:
    try:
        with open_tensors(path) as file:
            # Views of the mapped file: of none of them anything has been read yet.
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            facts = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} cannot be read as safetensors, or is damaged: {error}") from None
    return ArrayFile(path, "tensors", tuple(tensors), facts, tensors.__getitem__)


def _open_npz(path: Path) -> ArrayFile:
    def guarded(work: Callable[[], Any], name: str = "") -> Any:
        try:
            return work()
        except DataError:
            raise
        except ValueError as error:
            if "pickle" in str(error):
                way = "numpy.savez(path, logits=logits.astype('float32'), labels=labels.astype('int64'))"
                if name:
                    way = f"{name}={name}.astype(str) if they are texts, otherwise {name}.astype('float32')"
                raise DataError(
                    f"{path} holds pickled objects{f' in the array {name}' if name else ''}, which are never loaded "
                    f"because they could run code. Store plain arrays: {way}."
                ) from None
            raise DataError(f"{path} cannot be read as npz, or is damaged: {error}") from None
        except DAMAGED_ARCHIVE as error:
            raise DataError(f"{path} cannot be read as npz, or is damaged: {error or type(error).__name__}") from None

    def load(name: str | None = None) -> Any:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path} holds a single array; expected an archive: numpy.savez(path, logits=, labels=).")
        with archive:
            return tuple(archive.files) if name is None else archive[name]

    names = guarded(load)
    members = {info.filename.removesuffix(".npy"): info for info in guarded(lambda: zipfile.ZipFile(path).infolist())}
    facts = {}
    for name in names:
        if name in ("class_names", *FACTS):
            texts = np.asarray(guarded(partial(load, name), name)).astype(str)
            facts[name] = str(texts) if texts.ndim == 0 else json.dumps(texts.tolist())

    def read(name: str) -> Array:
        found = guarded(lambda: _mapped(path, members[name]), name)
        return _array(guarded(lambda: load(name), name) if found is None else found, name, path)

    return ArrayFile(path, "arrays", names, facts, read)


FACTS = ("subset_sha256", "validation_sha256", "test_sha256", "posterior")
"""Texts that say of which data, and of what kind of teacher, the answers in a file are."""


def _mapped(path: Path, member: zipfile.ZipInfo) -> NDArray[Any] | None:
    """An array of an npz file where it lies there as it is; None for one that is compressed, or of an odd kind."""
    if member.compress_type != zipfile.ZIP_STORED:
        return None
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(_LOCAL_HEADER)
        file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), os.SEEK_CUR)
        read_header = _NPY_HEADERS.get(np.lib.format.read_magic(file))
        if read_header is None:
            return None
        shape, fortran, dtype = read_header(file)
        if dtype.hasobject or fortran or 0 in shape or not shape:
            return None
        return np.memmap(path, dtype, mode="c", offset=file.tell(), shape=shape)


def _array(array: NDArray[Any], name: str, path: Path) -> Array:
    if array.dtype.kind == "S":
        return array
    if array.dtype.kind == "U":
        blocks = [array[at : at + _ROWS_AT_ONCE] for at in range(0, len(array), _ROWS_AT_ONCE)]
        return np.concatenate([np.char.encode(block, "utf-8") for block in blocks]) if blocks else array.astype("S1")
    if array.dtype.kind not in "iuf":
        raise DataError(f"{path}: {name} are of type {array.dtype}; expected numbers.")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    return torch.from_numpy(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))


def signed(numbers: Tensor, name: str, path: Path) -> Tensor:
    """Whole numbers without sign, with which torch cannot reckon, as int64.

    Raises:
        DataError: some are too large; `name` and `path` say where.
    """
    if numbers.dtype not in (torch.uint16, torch.uint32, torch.uint64):
        return numbers
    signed = numbers.view(torch.int64) if numbers.dtype == torch.uint64 else numbers.to(torch.int64)
    if (signed < 0).any():
        largest = max(numbers.flatten().tolist())
        raise DataError(f"{path}: {name} hold {largest}; expected numbers below 2**63, labels from 0 on.")
    return signed


def _open_parquet(path: Path) -> ArrayFile:
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = tuple(file.schema_arrow.names)
            metadata = file.schema_arrow.metadata or {}
    # Of a damaged file pyarrow raises its own exceptions, which are several of Python's as well, and Python's.
    except Exception as error:
        raise DataError(f"{path} cannot be read as parquet: {' '.join(str(error).split())}") from error
    facts = {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in metadata.items()}
    return ArrayFile(path, "columns", names, facts, lambda name: _column(path, name))


def _column(path: Path, name: str) -> Array:
    """One column: texts, numbers (N,), or lists of W numbers (N, W), which go to a mapped file without a name."""
    import pyarrow as pa

    kind, blocks = None, []
    with tempfile.TemporaryFile(prefix="distail-") as file:
        for first, column in _blocks(path, name):
            if column.null_count:
                raise DataError(f"{path}: the column {name} is empty in {column.null_count} rows; expected none.")
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                blocks.append(np.asarray(column.cast(pa.binary()).to_pylist(), dtype=np.bytes_))
            elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
                blocks.append(column.to_numpy(zero_copy_only=False).copy())
            elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or _is_fixed(column.type):
                block_RW = _lists(column, path, name, first, kind)
                kind = (block_RW.dtype, block_RW.shape[1])
                _append(file, block_RW)
            else:
                raise DataError(f"{path}: the column {name} is {column.type}; expected numbers, lists or texts.")
        if kind is not None:
            dtype, width = kind
            mapped = np.memmap(file, dtype, mode="r+")
            return torch.from_numpy(mapped.reshape(-1, width))
    return _array(np.concatenate(blocks) if blocks else np.zeros(0), name, path)


def _blocks(path: Path, name: str) -> Iterator[tuple[int, pa.Array]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # With a buffer a column comes piece by piece; without, all of it, as it lies in the file, is in memory at once.
        with pq.ParquetFile(path, buffer_size=_BYTES_AT_ONCE) as file:
            first = 0
            for batch in file.iter_batches(_ROWS_AT_ONCE // 16, columns=[name], use_threads=False):
                yield first, batch.column(0)
                first += len(batch)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path} cannot be read as parquet: {' '.join(str(error).split())}") from error
    finally:
        pa.default_memory_pool().release_unused()


def _is_fixed(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_fixed_size_list(kind))


def _lists(column: pa.Array, path: Path, name: str, first: int, kind: Any) -> NDArray[Any]:
    import pyarrow.compute as pc

    widths = np.asarray(pc.list_value_length(column))
    width = int(widths[0]) if kind is None else kind[1]
    odd = np.flatnonzero(widths != width)
    if len(odd):
        raise DataError(
            f"{path}: the column {name} has {widths[odd[0]]} numbers in row {first + odd[0]} and {width} in others; "
            "expected as many in every row."
        )
    values = column.flatten()
    if values.null_count:
        raise DataError(f"{path}: the column {name} holds lists with empty places; expected numbers.")
    return np.ascontiguousarray(values.to_numpy(zero_copy_only=False)).reshape(-1, width)


def _append(file: IO[bytes], block: NDArray[Any]) -> None:
    try:
        file.write(block.data.cast("B"))
        file.flush()
    except OSError as error:
        raise DataError(
            f"there is no space in {tempfile.gettempdir()} to unpack the file ({error.strerror}); set TMPDIR to a "
            "folder with enough space, or store it as safetensors, which needs none."
        ) from None


FORMATS: dict[str, Callable[[Path], ArrayFile]] = {
    ".safetensors": _open_safetensors,
    ".npz": _open_npz,
    ".parquet": _open_parquet,
}
