"""History as data: one line an epoch in `metrics.jsonl`, the same numbers for TensorBoard and other trackers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from distail import files
from distail.evaluation.run_files import EpochRow, RunFiles, read_epochs
from distail.training.trackers import Tracker


class History:
    """The rows of all stages of a run, in a file that a resumed stage rewinds to its checkpoint."""

    def __init__(
        self, folder: Path, trackers: Sequence[Tracker] = (), before_write: Callable[[], None] = lambda: None
    ) -> None:
        self._before_write = before_write
        self._path = RunFiles(folder).metrics
        self._trackers = trackers
        self._rewound: set[str] = set()  # stages
        self._tracked: list[str] | None = None  # lines; None: a tracker may hold what an earlier process told it

    def rewind(self, stage: str, rows: Sequence[EpochRow]) -> None:
        """Make the file hold what it held when `stage` had finished exactly `rows`, and trackers show just that.

        Trackers are not told of a stage that has not been rewound yet: it may lose its last rows.
        """
        found = self.rows()
        first = next((place for place, row in enumerate(found) if row["stage"] == stage), len(found))
        others = [row for row in found[first:] if row["stage"] != stage]
        wanted = [*found[:first], *rows, *others]
        files.write_text(self._path, "".join(map(_line, wanted)))
        self._rewound.add(stage)
        shown = [row for row in wanted if row["stage"] in self._rewound]
        tracked = self._tracked
        if tracked is None or [_line(row) for row in shown[: len(tracked)]] != tracked:
            for tracker in self._trackers:
                tracker.start_again()
            tracked = []
        self._tracked = tracked
        self._track(shown[len(tracked) :])

    def append(self, row: EpochRow) -> None:
        """Add one finished epoch.

        Raises:
            OSError: naming the file.
        """
        self._before_write()
        with files.naming(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(_line(row))
            file.flush()
            files.sync(file.fileno())  # a result that was synced must not outlive the rows that it came from
        self._track([row])

    def rows(self) -> list[EpochRow]:
        """All rows that are whole; a line cut off by a kill is left out."""
        return read_epochs(self._path)[0]

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()

    def _track(self, rows: Sequence[EpochRow]) -> None:
        for tracker in self._trackers:
            for row in rows:
                tracker.write(row)
        self._tracked = [*(self._tracked or []), *(_line(row) for row in rows)]


def _line(row: EpochRow) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
