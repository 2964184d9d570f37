from __future__ import annotations

import io
import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from distail.audit.from_file import AuditInput
from distail.audit.sample_weights import StudentHeads
from distail.audit.show import print_audit, to_markdown
from distail.audit.tables import audit_tables

NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def found(classes: int = 30, samples: int = 400, student: bool = False, largest: int = 99_999) -> dict[str, Any]:
    rng = np.random.default_rng(classes)
    target = torch.from_numpy(rng.integers(0, classes, samples))
    counts = [max(1, int(largest * 0.7**c)) for c in range(classes)]
    logits = torch.from_numpy(rng.normal(size=(samples, classes)) + np.log(counts))
    names = [f"an {'extraordinarily ' * (c % 4)}long [bold]name[/bold] | of *kind* {c}" for c in range(classes)]
    heads = StudentHeads(logits.roll(1, 1), logits.flip(1)) if student else None
    return AuditInput(
        "the teacher of runs/x", "images", "train", "nowhere", logits, target, tuple(counts), names, student=heads
    ).audit()


def printed(audit: dict[str, Any], width: int = 80, **options: Any) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    print_audit(audit, console, **options)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(("classes", "student"), [(30, False), (30, True), (2, False)])
def test_the_tables_fit_80_columns_and_cut_names_but_no_numbers(classes: int, student: bool) -> None:
    audit = found(classes, student=student)
    text = printed(audit)
    *lines, command = text.splitlines()  # which is copied, and stays one line
    assert command == audit["command"]
    assert max(map(len, lines)) <= 80
    for table in audit_tables(audit):
        numeric = [i for i in range(len(table.columns)) if i not in table.text_columns]
        for row in table.rows:
            assert all(row[i] in text for i in numeric)
            line = " +".join(re.escape(row[i]) for i in numeric)
            assert re.search(line, text), (table.title, row)
    assert "[bold]" in text


def test_every_number_of_the_summary_stands_in_a_table() -> None:
    audit = found(9)
    tables = audit_tables(audit, all_classes=True)
    cells = {number for table in tables for row in table.rows for cell in row for number in NUMBER.findall(cell)}
    cells |= {number for table in tables for number in NUMBER.findall(table.caption)}
    assert audit["summary"][-1].startswith("Recommended")  # whose numbers are tested where it is made
    for sentence in audit["summary"][:-1]:
        for number in NUMBER.findall(sentence.replace("T^2", "T")):
            assert number in cells, (number, sentence)


def test_only_the_worst_classes_unless_all_are_asked_for() -> None:
    audit = found(30)
    worst, every = audit_tables(audit)[-1], audit_tables(audit, all_classes=True)[-1]
    assert len(worst.rows) == 10
    assert "--all-classes shows the other 20" in worst.caption
    assert len(every.rows) == 30
    recalls = sorted(row["recall"] for row in audit["classes"] if row["recall"] is not None)
    assert [row[3] for row in worst.rows] == [f"{value:.1f}" for value in recalls[:10]]
    assert len(printed(audit, all_classes=True).splitlines()) == len(printed(audit).splitlines()) + 20 - 1


def test_what_cannot_be_measured_is_a_dash_and_never_zero() -> None:
    target = torch.tensor([0, 0, 1])
    audit = AuditInput("x", "y", None, "z", 5 * torch.eye(3)[[0, 0, 1]], target, (300, 50, 5)).audit()
    groups = audit_tables(audit)[0]
    few = groups.columns.index("Few\nshot")
    by_title = {row[0]: row for row in groups.rows}
    assert (by_title["Classes"][few], by_title["Images here"][few], by_title["Recall"][few]) == ("1", "0", "-")
    assert by_title["Confidence, if wrong"][-1] == "-"
    assert "Most frequent wrong predictions for tail images" in [table.title for table in audit_tables(found())]
    assert "Most frequent wrong predictions for tail images" not in [table.title for table in audit_tables(audit)]
    assert printed(audit)


def test_the_terminal_says_first_what_was_audited_and_last_the_summary() -> None:
    audit = found()
    text = " ".join(printed(audit).split())
    assert text.startswith("Audit of the teacher of runs/x on images with class counts from nowhere")
    assert text.endswith(" ".join([*audit["summary"][-1].split(), audit["command"]]))
    assert "not the paper's" in text


def test_markdown_holds_every_class_and_escapes_what_would_break_it() -> None:
    audit = found(12)
    page = to_markdown(audit)
    lines = [line for line in page.splitlines() if line.startswith("|")]
    for line, follower in pairwise(lines):
        if set(follower) <= set("|-:"):
            assert line.replace("\\|", "").count("|") == follower.count("|")
    assert page.count("\\*kind\\* 11") >= 1
    assert all(title in page for title in ("## How biased", "## Summary", "## Every class"))
