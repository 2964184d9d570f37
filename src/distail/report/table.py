"""A table of text that writes itself: on a terminal, as Markdown, as LaTeX, as HTML and as CSV."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Grid

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
FORMULA_SIGNS = ("=", "+", "-", "@")
_MOST_COLUMNS = 100_000  # of characters, where nothing limits them
_WIDEST_WORD = 12  # of a title that may be broken to save room
_LEAST_TEXT = 6
_GAP = 2  # between columns

_MARKDOWN = {**{sign: f"\\{sign}" for sign in "\\|*_`[~$"}, "<": "&lt;"}
_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    # After the end of a row these two would be read as its options.
    **{sign: f"{{{sign}}}" for sign in "[*"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
}


@dataclass(frozen=True)
class Table:
    """Rows of text under titles.

    Attributes:
        columns: titles; a line break is kept on the terminal.
        rows: each with one cell a column.
        title: shown above it on the terminal.
        caption: what the numbers are; below the table on the terminal and in Markdown, a comment in LaTeX.
        text_columns: positions of the columns of text; all others hold numbers, which stand on the right and stay whole
            however narrow the terminal is.
        cut_text: whether text that has no room ends in an ellipsis; otherwise it goes on in a next line.

    >>> table = Table(["Model", "Top-1"], [["kd_2", "41.5"], ["=1+1", "-3"]])
    >>> print(table.to_markdown())
    | Model | Top-1 |
    |---|---:|
    | kd\\_2 | 41.5 |
    | =1+1 | -3 |
    >>> print(table.to_csv(), end="")
    Model,Top-1
    kd_2,41.5
    '=1+1,-3
    >>> Table(["A"], [["1"]]).to_html().partition("<tbody>")[2]
    '<tr><td style="text-align: left">1</td></tr></tbody></table>'
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    caption: str = ""
    text_columns: frozenset[int] = frozenset({0})
    cut_text: bool = False

    def print(self, console: Console) -> None:
        """Fitted to a terminal; at full width anywhere else, so that a pipe or a file loses nothing."""
        from rich.text import Text

        if self.title:
            console.print(Text(one_line(self.title), style="bold"))
        console.print(self.grid(console), crop=False)
        if self.caption:
            console.print(Text(one_line(self.caption), style="dim"))

    def grid(self, console: Console) -> Grid:
        """The table alone as it is printed there, for a display that is drawn again."""
        from rich.measure import Measurement

        grid = self._grid(narrow=False)
        width = Measurement.get(console, console.options.update(width=_MOST_COLUMNS), grid).maximum
        if not console.is_terminal:
            grid.width = width
        elif width > console.width:
            grid = self._grid(narrow=True)
            least = sum((column.width or _LEAST_TEXT) + _GAP for column in grid.columns)
            grid.width = least if least > console.width else None
        return grid

    def to_markdown(self) -> str:
        """The table, and its caption below it."""
        lines = [_markdown_row(cells) for cells in (self.columns, *self.rows)]
        rules = ["---" if position in self.text_columns else "---:" for position in range(len(self.columns))]
        lines.insert(1, f"|{'|'.join(rules)}|")
        return "\n".join([*lines, "", escape_markdown(self.caption)] if self.caption else lines)

    def to_latex(self) -> str:
        """A `tabular` with booktabs rules; nothing but `\\usepackage{booktabs}` is needed."""
        alignment = "".join("l" if position in self.text_columns else "r" for position in range(len(self.columns)))
        header, *rows = [rf"{' & '.join(map(escape_latex, cells))} \\" for cells in (self.columns, *self.rows)]
        return "\n".join(
            [
                *([latex_comment(self.caption)] if self.caption else []),
                rf"\begin{{tabular}}{{{alignment}}}",
                r"\toprule",
                header,
                r"\midrule",
                *rows,
                r"\bottomrule",
                r"\end{tabular}",
            ]
        )

    def to_html(self) -> str:
        """A `table` of HTML with its caption, which needs no style sheet."""

        def line(cells: Sequence[str], tag: str) -> str:
            sides = ("left" if position in self.text_columns else "right" for position in range(len(self.columns)))
            each = zip(cells, sides, strict=True)
            return "".join(f'<{tag} style="text-align: {side}">{escape_html(cell)}</{tag}>' for cell, side in each)

        style = "caption-side: bottom; text-align: left"
        caption = f'<caption style="{style}">{escape_html(self.caption)}</caption>' if self.caption else ""
        body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in self.rows)
        return f"<table>{caption}<thead><tr>{line(self.columns, 'th')}</tr></thead><tbody>{body}</tbody></table>"

    def to_csv(self) -> str:
        """Titles and rows; what a spreadsheet would take for a formula is quoted by an apostrophe."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for cells in (self.columns, *self.rows):
            writer.writerow([_spreadsheet_text(cell) for cell in cells])
        return text.getvalue()

    def _grid(self, *, narrow: bool) -> Grid:
        """For the terminal; a narrow one breaks the titles of numbers to leave room for text."""
        from rich import box
        from rich.cells import cell_len
        from rich.table import Table as Grid
        from rich.text import Text

        grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        for position, column_title in enumerate(self.columns):
            title = Text("\n".join(map(one_line, column_title.split("\n"))), overflow="fold")
            if position in self.text_columns:
                grid.add_column(title)
                continue
            cells = [one_line(row[position]) for row in self.rows]
            words = [min(cell_len(word), _WIDEST_WORD) for word in column_title.split()]
            width = max([*map(cell_len, cells), *words], default=0)
            grid.add_column(title, justify="right", width=width if narrow else None)
        for row in self.rows:
            cells = [one_line(cell) for cell in row]
            if self.cut_text:
                grid.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in cells))
            else:
                grid.add_row(*(Text(cell, overflow="fold") for cell in cells))
        return grid


def one_line(text: str) -> str:
    """Text without line breaks and without what steers a terminal.

    >>> one_line("a\\n  b \\x1b[2J")
    'a b [2J'
    """
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def escape_markdown(text: str) -> str:
    """One line of Markdown that shows the text as it is.

    >>> print(escape_markdown("kd_2 | <b>"))
    kd\\_2 \\| &lt;b>
    """
    return "".join(_MARKDOWN.get(sign, sign) for sign in one_line(text))


def escape_html(text: str) -> str:
    """One line of HTML that shows the text as it is.

    >>> escape_html('a < "b"')
    'a &lt; &quot;b&quot;'
    """
    return html.escape(one_line(text))


def escape_latex(text: str) -> str:
    """Text that LaTeX sets as it is.

    >>> print(escape_latex("bkd_2: 5% & 40.1 ± 0.3"))
    bkd\\_2: 5\\% \\& 40.1 $\\pm$ 0.3
    """
    return "".join(_LATEX.get(sign, sign) for sign in one_line(text))


def latex_comment(text: str) -> str:
    """The text as a comment of one line."""
    return f"% {one_line(text)}"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escape_markdown, cells))} |"


def _spreadsheet_text(cell: str) -> str:
    cell = one_line(cell)
    return f"'{cell}" if cell.startswith(FORMULA_SIGNS) and not NUMBER.fullmatch(cell) else cell
