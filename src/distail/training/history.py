"""History as data: one line an epoch in `metrics.jsonl`, the same figures for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distail import files

Row = dict[str, Any]


class History:
    """The rows of all stages of a run, in a file that a resumed stage rewinds to its checkpoint."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "metrics.jsonl"
        self._events = folder / "tensorboard"
        self._writer: Any = None

    def rewind(self, stage: str, rows: Sequence[Row]) -> None:
        """Make the file hold what it held when `stage` had finished exactly `rows`."""
        others = [row for row in self.rows() if row["stage"] != stage]
        files.write_text(self._path, "".join(map(_line, [*others, *rows])))

    def append(self, row: Row) -> None:
        """Add one finished epoch."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(row))
        writer = self._tensorboard()
        for name, value in _flat(row):
            writer.add_scalar(f"{row['stage']}/{name}", value, row["epoch"])
        writer.flush()

    def rows(self) -> list[Row]:
        """All rows that are whole; a line cut off by a kill is left out."""
        if not self._path.is_file():
            return []
        return list(_whole_lines(self._path.read_text(encoding="utf-8")))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _tensorboard(self) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self._events)
        return self._writer


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _whole_lines(text: str) -> Iterator[Row]:
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and "stage" in row:
            yield row


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "epoch":
            yield f"{prefix}{name}", float(value)
