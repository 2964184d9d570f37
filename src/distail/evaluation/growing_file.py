"""A safetensors file that is written block by block, and whose writing goes on where it was stopped.

Shapes: M rows of a block.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import torch
from torch import Tensor

from distail import files
from distail.errors import DataError
from distail.json_values import as_text, as_whole, read_json

_NAMES = {
    torch.float32: "F32",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.uint8: "U8",
}


@dataclass(frozen=True)
class Column:
    """An array of the file: its number format, and what follows after the rows in its shape."""

    dtype: torch.dtype
    width: tuple[int, ...] = ()

    @property
    def row_bytes(self) -> int:
        """Of one row."""
        return self.dtype.itemsize * math.prod(self.width)


class GrowingFile:
    """Arrays of the same number of rows in `path`, which appears with `finish`; until then `path`.partial grows.

    `path`.partial.json says how many rows are on the disk; whoever opens the same again goes on after those.

    Args:
        columns: the arrays by name.
        facts: texts beside them; a part that was written with other ones is not gone on with.

    Raises:
        DataError: the disk has no room, or the folder cannot be written.
    """

    def __init__(self, path: Path, columns: Mapping[str, Column], rows: int, facts: Mapping[str, str]) -> None:
        self.path, self.rows, self._columns = path, rows, columns
        self._part = path.with_name(f"{path.name}.partial")
        self._journal = path.with_name(f"{path.name}.partial.json")
        header, self._starts, size = _layout(columns, rows, facts)
        self._identity = header.decode()
        self.done = self._on_disk(size)
        """Rows that are written."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = self._part.open("r+b" if self.done else "w+b")
            if not self.done:
                files.take_room(self._file, size)
                self._file.seek(0)
                self._file.write(len(header).to_bytes(8, "little") + header)
        except OSError as error:
            raise self._error(error) from None

    def __enter__(self) -> GrowingFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, name: str, first: int, block_M: Tensor) -> None:
        """Rows of one array from `first` on; they count once `keep` has been called."""
        column = self._columns[name]
        block_M = block_M.to(column.dtype).contiguous()
        try:
            self._file.seek(self._starts[name] + first * column.row_bytes)
            self._file.write(block_M.reshape(-1).view(torch.uint8).numpy().data)
        except OSError as error:
            raise self._error(error) from None

    def keep(self, rows: int) -> None:
        """The first `rows` of all arrays have been written, and stay whatever happens."""
        try:
            self._file.flush()
            files.sync(self._file.fileno())
            files.write_json(self._journal, {"rows": rows, "header": self._identity})
        except OSError as error:
            raise self._error(error) from None
        self.done = rows

    def finish(self) -> None:
        """Give the file its name."""
        self.keep(self.rows)
        self._file.close()
        self._part.replace(self.path)
        self._journal.unlink(missing_ok=True)

    def _on_disk(self, size: int) -> int:
        if not self._journal.is_file() or not self._part.is_file() or self._part.stat().st_size != size:
            return 0
        try:
            journal = read_json(self._journal)
        except ValueError:
            return 0
        same = as_text(journal.get("header")) == self._identity
        return (as_whole(journal.get("rows")) or 0) if same else 0

    def _error(self, error: OSError) -> DataError:
        return DataError(
            f"{self.path} cannot be written: {error.strerror or error}. Run the same command again to continue after "
            f"{getattr(self, 'done', 0):,} rows"
        )


def _layout(columns: Mapping[str, Column], rows: int, facts: Mapping[str, str]) -> tuple[bytes, dict[str, int], int]:
    """The header, where each array starts in the file, and the file's size."""
    entries: dict[str, object] = {"__metadata__": dict(sorted(facts.items()))}
    starts, at = {}, 0
    # The largest numbers first: each array then begins at a multiple of its numbers' size.
    for name in sorted(columns, key=lambda name: (-columns[name].dtype.itemsize, name)):
        end = at + rows * columns[name].row_bytes
        shape = [rows, *columns[name].width]
        entries[name] = {"dtype": _NAMES[columns[name].dtype], "shape": shape, "data_offsets": [at, end]}
        starts[name], at = at, end
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return header, {name: 8 + len(header) + start for name, start in starts.items()}, 8 + len(header) + at
