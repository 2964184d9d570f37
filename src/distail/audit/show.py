"""An audit on the terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from distail import files
from distail.audit.content import AuditReport
from distail.audit.multi_label import MultiLabelReport
from distail.audit.multi_label_tables import multi_label_tables
from distail.audit.tables import audit_tables
from distail.audit.target import load_target
from distail.errors import ConfigError, did_you_mean
from distail.functional.checks import check_number, check_temperature
from distail.report.table import Table, escape_markdown
from distail.terminal import printable_json
from distail.training.progress import default_reporter

if TYPE_CHECKING:
    from rich.console import Console


Report = AuditReport | MultiLabelReport


def run_audit(
    target: Path,
    words: Sequence[str],
    console: Console,
    *,
    split: str | None,
    class_counts: str | None,
    temperature: float | None,
    keep_head: float,
    all_classes: bool,
    as_json: bool,
    output: Path | None,
) -> None:
    """`distail audit`: audit, print, and write where there is an output.

    Raises:
        DistailError: as `distail.audit.target.load_target`; before any work for the options.
    """
    if output is not None and output.suffix not in WRITERS:
        raise ConfigError(f"--output {str(output)!r}: {did_you_mean(output.suffix, WRITERS)}")
    if temperature is not None:
        check_temperature(temperature)
    check_number("--keep-head", keep_head, least=0.0, most=100.0)
    reporter = default_reporter()
    found = load_target(target, words, split=split, class_counts=class_counts, reporter=reporter)
    report = found.audit(temperature, keep_head)
    if output is not None:
        files.write_text(output, WRITERS[output.suffix](report))
        reporter.message(f"written to {output}")
    if as_json:
        print(to_json(report), end="")
    else:
        print_audit(report, console, all_classes=all_classes)


def print_audit(report: Report, console: Console, *, all_classes: bool = False) -> None:
    """Print what was audited, the warnings, the tables and the summary."""
    for line in _heading(report):
        console.print(line, highlight=False, markup=False)
    for caution in report["cautions"]:
        console.print(f"Warning: {caution}", highlight=False, markup=False, style="yellow")
    for table in _tables(report, all_classes=all_classes):
        console.print()
        table.print(console)
    console.print("\nSummary", style="bold")
    for sentence in report["summary"]:
        console.print(f"- {sentence}", highlight=False, markup=False)
    if report["command"]:
        console.print(f"\n{report['command']}", highlight=False, markup=False, soft_wrap=True)


def to_markdown(report: Report) -> str:
    """The whole audit, every class of it, as a Markdown page."""
    lines = ["# Audit", "", *(f"{escape_markdown(line)}  " for line in _heading(report)), ""]
    for caution in report["cautions"]:
        lines.append(f"> Warning: {escape_markdown(caution)}\n>")
    for table in _tables(report, all_classes=True):
        lines += ["", f"## {escape_markdown(table.title)}", "", table.to_markdown()]
    lines += ["", "## Summary", ""]
    for sentence in report["summary"]:
        lines.append(f"- {escape_markdown(sentence)}")
    if report["command"]:
        lines += ["", "```sh", report["command"], "```"]
    return "\n".join([*lines, ""])


def to_json(report: Report) -> str:
    """The whole audit as JSON that a person can read."""
    return printable_json(json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)) + "\n"


WRITERS: dict[str, Callable[[Report], str]] = {".json": to_json, ".md": to_markdown}


def _tables(report: Report, *, all_classes: bool) -> list[Table]:
    if "debias" in report:
        return multi_label_tables(cast(MultiLabelReport, report), all_classes=all_classes)
    return audit_tables(report, all_classes=all_classes)


def _heading(report: Report) -> list[str]:
    about = report["audited"]
    return [
        f"Audit of {about['what']}",
        f"on {about['images']}",
        f"with class counts from {about['class_counts_from']}",
    ]
