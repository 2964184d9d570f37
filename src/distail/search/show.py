"""What a finished search prints."""

from __future__ import annotations

from rich.console import Console

from distail.compare.tables import print_tables
from distail.search.progress import trials_table
from distail.search.search import Search
from distail.search.statements import statements, what_mattered

_SHOWN = 10


def print_search(found: Search, console: Console) -> None:
    """The best trials, what the comparison of the choice says, and where its configuration lies."""
    content = found.content
    trials_table(content, _SHOWN).print(console)
    for sentence in (*statements(content, found.comparison.content), what_mattered(content)):
        if sentence:
            console.print(f"- {sentence}", highlight=False, markup=False)
    console.print()
    print_tables(found.comparison.content, console)
    trains = f"distail run {found.folder}/best.yaml trains the choice; " if content["finalists"] else ""
    console.print(
        f"{trains}open {found.folder}/report.html.",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
