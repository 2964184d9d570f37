"""`distail export` on the terminal and on the run's page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distail.export.export import Options, export, raise_if_lost
from distail.report.build import write_report
from distail.report.export_tables import EXPORT, cost_table, export_notes, parity_table
from distail.training.progress import default_reporter

if TYPE_CHECKING:
    from rich.console import Console


def run_export(run: Path, options: Options, overrides: Sequence[str], output: Path | None, console: Console) -> None:
    """Export, print what each file costs and answers, and write the run's page anew where it shows it.

    Raises:
        DistailError: as `export`.
        IncompleteError: as `raise_if_lost`; everything is written.
    """
    folder, content = export(run, options, overrides, output, default_reporter())
    cost_table(content).print(console)
    console.print()
    parity_table(content).print(console)
    lines = [*export_notes(content), f"{folder}: the files, and export.json with all results."]
    if folder.resolve() == (run / EXPORT).parent.resolve():
        lines.append(f"{write_report(run / 'report.html', [run])} shows them.")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    raise_if_lost(content)
