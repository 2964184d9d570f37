"""An audit on the terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distail import files
from distail.audit.tables import AuditTable, audit_tables
from distail.audit.target import audited
from distail.errors import ConfigError, did_you_mean
from distail.functional.checks import check_temperature
from distail.training.progress import default_reporter

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod
    from rich.table import Table


GAP = 1
LEAST_NAME = 6


def run_audit(
    target: Path,
    words: Sequence[str],
    console: Console,
    *,
    split: str | None,
    class_counts: str | None,
    temperature: float | None,
    all_classes: bool,
    as_json: bool,
    output: Path | None,
) -> None:
    """`distail audit`: audit, print, and write where asked to.

    Raises:
        DistailError: as `distail.audit.target.audited`; before any work for the options.
    """
    if output is not None and output.suffix not in WRITERS:
        raise ConfigError(f"--output {str(output)!r}: {did_you_mean(output.suffix, WRITERS)}")
    if temperature is not None:
        check_temperature(temperature)
    say = default_reporter().message
    found = audited(target, words, split=split, class_counts=class_counts, say=say).audit(temperature)
    if output is not None:
        files.write_text(output, WRITERS[output.suffix](found))
        say(f"written to {output}")
    if as_json:
        print(as_json_text(found), end="")
    else:
        print_audit(found, console, all_classes=all_classes)


def print_audit(found: Mapping[str, Any], console: Console, *, all_classes: bool = False) -> None:
    """What was audited, what to beware of, the tables, and last the summary in words."""
    for line in _heading(found):
        console.print(line, highlight=False, markup=False)
    for caution in found["cautions"]:
        console.print(f"Beware: {caution}", highlight=False, markup=False, style="yellow")
    for table in audit_tables(found, all_classes=all_classes):
        console.print()
        console.print(_rich(table, console.width))
    console.print("\nIn words", style="bold")
    for sentence in found["summary"]:
        console.print(f"- {sentence}", highlight=False, markup=False)


def as_markdown(found: Mapping[str, Any]) -> str:
    """The whole audit, every class of it, as a Markdown page."""
    lines = ["# Audit", "", *(f"{line}  " for line in map(_escaped, _heading(found)))]
    lines += ["", *(f"> Beware: {_escaped(caution)}\n>" for caution in found["cautions"])]
    for table in audit_tables(found, all_classes=True):
        lines += ["", f"## {table.title}", "", _markdown_row(table.columns)]
        lines.append(f"|{''.join('---|' if i in table.text_columns else '---:|' for i in range(len(table.columns)))}")
        lines += [_markdown_row(row) for row in table.rows]
        lines += ["", _escaped(table.caption)]
    return "\n".join([*lines, "", "## In words", "", *(f"- {_escaped(text)}" for text in found["summary"]), ""])


def as_json_text(found: Mapping[str, Any]) -> str:
    """The whole audit as JSON that a person can read."""
    return json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


WRITERS: dict[str, Callable[[Mapping[str, Any]], str]] = {".json": as_json_text, ".md": as_markdown}


def _heading(found: Mapping[str, Any]) -> list[str]:
    about = found["audited"]
    return [
        f"Audit of {about['what']}",
        f"on {about['images']}",
        f"with class counts from {about['class_counts_from']}",
    ]


def _rich(table: AuditTable, console_width: int) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    shown = Table(
        title=table.title,
        title_justify="left",
        caption=escape(table.caption),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, GAP, 0, 0),
    )
    for position, (title, width) in enumerate(zip(table.columns, _widths(table, console_width), strict=True)):
        justify: JustifyMethod = "left" if position in table.text_columns else "right"
        shown.add_column(title, justify=justify, no_wrap=True, overflow="ellipsis", width=width)
    for row in table.rows:
        shown.add_row(*map(escape, row))
    return shown


def _widths(table: AuditTable, console_width: int) -> list[int]:
    """Numbers get what they need; where that leaves too little, names are cut, the longest first."""
    widths = [
        max(len(line) for text in (title, *(row[position] for row in table.rows)) for line in text.splitlines())
        for position, title in enumerate(table.columns)
    ]
    while sum(widths) + (GAP + 1) * len(widths) > console_width:
        longest = max(table.text_columns, key=lambda position: widths[position])
        if widths[longest] <= LEAST_NAME:
            break
        widths[longest] -= 1
    return widths


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |"


def _escaped(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").split())
