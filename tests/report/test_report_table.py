"""What a table must survive: cells that a spreadsheet, LaTeX, Markdown or a terminal would run or break on."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from distail.report.table import Table, escape_latex, escape_markdown, one_line

NAMES = ["kd", "a rather long name of a method", "=HYPERLINK(1)"]
TABLE = Table(
    ["Model", "Balanced accuracy", "Few-shot", "Verdict"],
    [[name, "41.2 ± 0.5", "no such class", "more than the noise of seeds and test images"] for name in NAMES],
    "Results",
    "Percent of 100 images",
    text_columns=frozenset({0, 3}),
)


def printed(table: Table, width: int, *, terminal: bool) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    table.print(console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_pipe_gets_the_full_width_whatever_the_console_takes_for_its_own() -> None:
    text = printed(TABLE, 40, terminal=False)
    assert [line.split()[-1] for line in text.splitlines() if "41.2" in line] == ["images"] * 3
    for cell in (*NAMES, "no such class", "more than the noise of seeds and test images", "Balanced accuracy"):
        assert any(cell in line for line in text.splitlines()), cell


@pytest.mark.parametrize("width", [60, 80, 200])
def test_on_a_terminal_text_gives_way_and_numbers_stay_whole(width: int) -> None:
    text = printed(TABLE, width, terminal=True)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("41.2 ± 0.5") == text.count("no such class") == 3
    assert "…" not in text
    cut = printed(replace(TABLE, cut_text=True), width, terminal=True)
    assert max(map(len, cut.splitlines())) <= width
    assert ("…" in cut) == (width < 200)
    assert len(cut.splitlines()) <= len(text.splitlines())


def test_numbers_stay_whole_on_a_terminal_that_is_too_narrow_for_them() -> None:
    assert printed(TABLE, 20, terminal=True).count("41.2 ± 0.5") == 3


def test_no_name_steers_the_terminal() -> None:
    for cell in ("[red]x[/red]", "\x1b[2Jx", "a\nb\rc"):
        text = printed(Table(["Model [b]"], [[cell]], title="[i]t[/i]", caption="[u]c"), 80, terminal=True)
        assert "\x1b" not in text
        assert "\r" not in text
        assert "[i]t[/i]" in text
        assert "[u]c" in text
    assert "[red]x[/red]" in printed(Table(["x"], [["[red]x[/red]"]]), 80, terminal=True)


@given(st.lists(st.lists(st.text(max_size=12), min_size=3, max_size=3), max_size=4))
def test_any_cells_leave_every_table_whole(rows: list[list[str]]) -> None:
    table = Table(["Model", "Top-1", "ECE"], rows)
    markdown = table.to_markdown().split("\n")
    assert len(markdown) == len(rows) + 2
    assert {line.replace("\\\\", "").replace("\\|", "").count("|") for line in markdown} == {4}
    latex = table.to_latex().split("\n")
    assert sum(line.endswith(r"\\") for line in latex) == len(rows) + 1
    assert {line.replace(r"\&", "").count("&") for line in latex if line.endswith(r" \\")} == {2}
    read = list(csv.reader(io.StringIO(table.to_csv())))
    assert len(read) == len(rows) + 1
    assert {len(row) for row in read} == {3}
    printed(table, 40, terminal=True)


@pytest.mark.parametrize("cell", ["=1+1", "+1.0 to +2.0", "-x", "@SUM(A1)", "\t=1", "\n=1", "-1_0", "+"])
def test_csv_quotes_what_a_spreadsheet_would_run(cell: str) -> None:
    _, row = csv.reader(io.StringIO(Table(["x"], [[cell]]).to_csv()))
    assert row == [f"'{cell.strip()}"]


@pytest.mark.parametrize("cell", ["-1", "+0.5", "-1.5e-07", "1e+38", "-.5", "5.", "", "kd=1", "a-b"])
def test_csv_leaves_numbers_and_names_alone(cell: str) -> None:
    _, row = csv.reader(io.StringIO(Table(["x", "y"], [[cell, ""]]).to_csv()))
    assert row == [cell, ""]


@pytest.mark.parametrize("sign", "\\|*_`<[")
def test_every_sign_of_markdown_is_escaped(sign: str) -> None:
    assert escape_markdown(f"a{sign}b") not in (f"a{sign}b", "ab")


@pytest.mark.parametrize("sign", "\\&%$#_{}~^<>±|[*")
def test_every_sign_of_latex_is_escaped(sign: str) -> None:
    assert escape_latex(sign) != sign
    assert escape_latex(f"a{sign}b").startswith("a")


def test_a_caption_is_a_comment_of_one_line_in_latex_and_stands_below_in_markdown() -> None:
    table = replace(TABLE, caption="Percent\n\\end{x} of *all*")
    assert table.to_latex().splitlines()[0] == r"% Percent \end{x} of *all*"
    assert table.to_markdown().splitlines()[-1] == r"Percent \\end{x} of \*all\*"


@pytest.mark.parametrize("terminal", [False, True])
def test_brackets_in_a_cell_are_no_markup(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    Table(["what it is"], [["the schedule is [ours]: that of the pairs"]], text_columns=frozenset({0})).print(console)
    assert "the schedule is [ours]: that of the pairs" in console.file.getvalue()  # type: ignore[attr-defined]


def test_what_markdown_strikes_out_or_sets_as_mathematics_stays_text() -> None:
    assert escape_markdown("~~$x$~~") == r"\~\~\$x\$\~\~"


class _Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@given(st.text(), st.text())
def test_html_shows_any_text_as_it_is(cell: str, caption: str) -> None:
    parsed = _Cells()
    parsed.feed(Table(["a", "b"], [[cell, "1"]], caption=caption).to_html())
    parsed.close()
    shown = [text for text in (one_line(caption), "a", "b", one_line(cell), "1") if text]
    assert parsed.texts == shown
    assert {*parsed.tags} <= {"table", "caption", "thead", "tbody", "tr", "th", "td"}
