"""History as data: one line an epoch in `metrics.jsonl`, the same figures for TensorBoard and other trackers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distail import files
from distail.training.trackers import Tracker

Row = dict[str, Any]


class History:
    """The rows of all stages of a run, in a file that a resumed stage rewinds to its checkpoint."""

    def __init__(self, folder: Path, trackers: Sequence[Tracker] = ()) -> None:
        self._path = folder / "metrics.jsonl"
        self._trackers = trackers
        self._told_by_us = False

    def rewind(self, stage: str, rows: Sequence[Row]) -> None:
        """Make the file hold what it held when `stage` had finished exactly `rows`, and trackers show just that."""
        found = self.rows()
        wanted = [*(row for row in found if row["stage"] != stage), *rows]
        files.write_text(self._path, "".join(map(_line, wanted)))
        if wanted != found or not self._told_by_us:
            for tracker in self._trackers:
                tracker.start_again()
                for row in wanted:
                    tracker.write(row)
        self._told_by_us = True

    def append(self, row: Row) -> None:
        """Add one finished epoch.

        Raises:
            OSError: naming the file.
        """
        with files.naming(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(_line(row))
        for tracker in self._trackers:
            tracker.write(row)

    def rows(self) -> list[Row]:
        """All rows that are whole; a line cut off by a kill is left out."""
        if not self._path.is_file():
            return []
        return list(_whole_lines(self._path.read_text(encoding="utf-8", errors="replace")))

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()


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
