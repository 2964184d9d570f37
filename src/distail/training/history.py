"""History as data: one line an epoch in `metrics.jsonl`, the same figures for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distail import files
from distail.training.events import Events

Row = dict[str, Any]


class History:
    """The rows of all stages of a run, in a file that a resumed stage rewinds to its checkpoint."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "metrics.jsonl"
        self._events = Events(folder / "tensorboard")
        self._events_are_ours = False

    def rewind(self, stage: str, rows: Sequence[Row]) -> None:
        """Make the file hold what it held when `stage` had finished exactly `rows`, and TensorBoard show just that."""
        found = self.rows()
        wanted = [*(row for row in found if row["stage"] != stage), *rows]
        files.write_text(self._path, "".join(map(_line, wanted)))
        if wanted != found or not self._events_are_ours:
            self._events.start_again()
            for row in wanted:
                self._events.write(row)
        self._events_are_ours = True

    def append(self, row: Row) -> None:
        """Add one finished epoch.

        Raises:
            OSError: naming the file.
        """
        with files.naming(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(_line(row))
        self._events.write(row)

    def rows(self) -> list[Row]:
        """All rows that are whole; a line cut off by a kill is left out."""
        if not self._path.is_file():
            return []
        return list(_whole_lines(self._path.read_text(encoding="utf-8", errors="replace")))

    def close(self) -> None:
        self._events.close()


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
