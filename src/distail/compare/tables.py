"""A comparison as tables: terminal, Markdown and LaTeX for people, CSV for programs, with the same numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distail import files
from distail.compare.status import FAILED, FINISHED
from distail.compare.summary import METRIC_TITLES, RULES, paired_seeds, plain, signed, verdict
from distail.report.results_table import PROTOCOL
from distail.report.views import NOT_MEASURED, unmeasured_group

if TYPE_CHECKING:
    from rich.console import Console


Content = Mapping[str, Any]
Cells = list[list[str]]
ON_A_TERMINAL = ("top1", "balanced_accuracy", "groups.thirds.head", "groups.thirds.medium", "groups.thirds.tail")
CAPTION = (
    f"{PROTOCOL}; mean ± deviation over seeds; intervals are 95 %, over seeds by Student's t, over test images by "
    "paired bootstrap, each for itself: only verdicts are corrected for the number of differences"
)
CSV_COLUMNS = (
    "method",
    "figure",
    "seeds",
    "mean",
    "deviation",
    "interval_low",
    "interval_high",
    "paired_seeds",
    "difference",
    "seeds_low",
    "seeds_high",
    "seeds_p",
    "seeds_p_corrected",
    "images_low",
    "images_high",
    "images_p",
    "images_p_corrected",
    "verdict",
)


def write_tables(folder: Path, content: Content) -> list[Path]:
    """Write `comparison.md`, `.csv` and `.tex` into the folder."""
    paths = []
    for suffix, text in (("md", markdown(content)), ("csv", comma_separated(content)), ("tex", latex(content))):
        paths.append(folder / f"comparison.{suffix}")
        files.write_text(paths[-1], text)
    return paths


def print_tables(content: Content, console: Console) -> None:
    """The main figures and the sentences; the files have the rest."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    header, *rows = figure_cells(content, ON_A_TERMINAL)
    table = Table(title=escape(content["name"]), box=SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(escape(name), justify="right" if i else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
    console.print(f"{CAPTION}; {RULES[0]}.", highlight=False, style="dim")
    for sentence in content["statements"]:
        console.print(f"- {sentence}", highlight=False, markup=False)


def figure_cells(content: Content, figures: Sequence[str]) -> Cells:
    """A header and a row for each method: mean ± deviation."""
    return [
        ["Method", "Seeds", *(METRIC_TITLES[name] for name in figures)],
        *(
            [
                method,
                str(sum(run["method"] == method and run["state"] == FINISHED for run in content["runs"])),
                *(_figure_cell(content, method, name) for name in figures),
            ]
            for method in content["methods"]
        ),
    ]


def difference_cells(content: Content, figures: Sequence[str]) -> Cells:
    """A header and a row for each method and figure: the seeds paired, the difference, intervals, p values, verdict."""
    header = ["Method", "Figure", "Seeds", "Difference", "Over seeds", "p", "Over test images", "p", "Verdict"]
    rows = []
    for method in content["methods"]:
        for name in figures:
            by = _differences(content, method, name)
            if by:
                seeds, images = (_over(by, over) for over in ("seeds", "test images"))
                pairs, difference = str(paired_seeds(content, method, name)), next(iter(by.values()))["difference"]
                known = [*seeds, *images, verdict(list(by.values()))]
                rows.append([method, METRIC_TITLES[name], pairs, signed(difference), *known])
    return [header, *rows]


def interval_cells(content: Content) -> Cells:
    """A header and a row for each method and figure: mean, deviation, interval."""
    rows = []
    for method, figures in content["figures"].items():
        for name, title in METRIC_TITLES.items():
            figure = figures[name]
            if figure["mean"] is not None:
                interval = figure["interval"]
                rows.append(
                    [
                        method,
                        title,
                        str(len(figure["values"])),
                        plain(figure["mean"]),
                        "" if figure["deviation"] is None else plain(figure["deviation"]),
                        "" if interval is None else f"{plain(interval[0])} to {plain(interval[1])}",
                    ]
                )
    return [["Method", "Figure", "Seeds", "Mean", "Deviation", "95 % interval"], *rows]


def markdown(content: Content) -> str:
    """All tables with the sentences below them."""

    def escaped(text: str) -> str:
        return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())

    parts = [f"# {escaped(content['name'])}", *(_markdown_table(cells, escaped) for cells in _all(content))]
    parts.insert(2, "; ".join([CAPTION, *RULES]) + ".")
    parts.append("\n".join(f"- {escaped(sentence)}" for sentence in content["statements"]))
    return "\n\n".join(parts) + "\n"


def latex(content: Content) -> str:
    """All tables as `tabular` with booktabs rules; nothing but `\\usepackage{booktabs}` is needed."""
    comments = [f"% {' '.join(text.split())}" for text in (CAPTION, *RULES, *content["statements"])]
    return "\n".join([*comments, *(_latex_table(cells) for cells in _all(content))]) + "\n"


def comma_separated(content: Content) -> str:
    """One row for each method and figure, numbers unrounded, empty where there is none."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for method, figures in content["figures"].items():
        for name, figure in figures.items():
            by = _differences(content, method, name)
            row = {
                "method": method,
                "figure": name,
                "seeds": len(figure["values"]),
                "mean": figure["mean"],
                "deviation": figure["deviation"],
                **_ends("interval", figure["interval"]),
                "paired_seeds": paired_seeds(content, method, name) if by else None,
                "difference": next((one["difference"] for one in by.values()), None),
                "verdict": verdict(list(by.values())) if by else None,
            }
            for over, short in (("seeds", "seeds"), ("test images", "images")):
                one = by.get(over, {})
                row |= {**_ends(short, one.get("interval")), f"{short}_p": one.get("p")}
                row[f"{short}_p_corrected"] = one.get("p_corrected")
            writer.writerow(row)
    return text.getvalue()


def _all(content: Content) -> list[Cells]:
    tables = [
        figure_cells(content, tuple(METRIC_TITLES)),
        difference_cells(content, tuple(METRIC_TITLES)),
        interval_cells(content),
    ]
    return [cells for cells in (*tables, _grid_cells(content)) if len(cells) > 1]


def _grid_cells(content: Content) -> Cells:
    """Every grid point with its validation figure and the seeds behind it: only the chosen ones have test figures."""
    points = [] if content["grid"] is None else content["grid"]["points"]
    return [
        ["Point", "Seeds", "Validation, balanced accuracy", "Chosen"],
        *([one["label"], _seeds_behind(one), _validation(one), "yes" if one["chosen"] else ""] for one in points),
    ]


def _seeds_behind(point: Mapping[str, Any]) -> str:
    known, asked = len(point["validation"]), len(point["runs"])
    return str(asked) if known == asked else f"{known} of {asked}"


def _validation(point: Mapping[str, Any]) -> str:
    return _unknown(run["state"] for run in point["runs"]) if point["mean"] is None else plain(point["mean"])


def _figure_cell(content: Content, method: str, name: str) -> str:
    figure = content["figures"][method][name]
    if figure["mean"] is not None:
        deviation = figure["deviation"]
        return plain(figure["mean"]) + ("" if deviation is None else f" ± {plain(deviation)}")
    states = {run["state"] for run in content["runs"] if run["method"] == method}
    grouped = name.startswith("groups.") and FINISHED in states
    return unmeasured_group(name, content["class_counts"]) if grouped else _unknown(states)


def _unknown(states: Iterable[str]) -> str:
    """What stands in place of a figure that no run has."""
    found = set(states)
    return NOT_MEASURED if FINISHED in found else FAILED if FAILED in found else "missing"


def _differences(content: Content, method: str, figure: str) -> dict[str, Mapping[str, Any]]:
    return {one["over"]: one for one in content["differences"] if (one["method"], one["figure"]) == (method, figure)}


def _over(by: Mapping[str, Mapping[str, Any]], over: str) -> tuple[str, str]:
    one = by.get(over)
    if one is None or one["interval"] is None:
        return "not known", ""
    return f"{signed(one['interval'][0])} to {signed(one['interval'][1])}", _p(one["p_corrected"])


def _p(value: float | None) -> str:
    return "" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _ends(name: str, interval: Sequence[float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _markdown_table(cells: Cells, escaped: Callable[[str], str]) -> str:
    header, *rows = cells
    lines = [f"| {' | '.join(map(escaped, row))} |" for row in (header, *rows)]
    lines.insert(1, f"|---|{'---:|' * (len(header) - 1)}")
    return "\n".join(lines)


def _latex_table(cells: Cells) -> str:
    header, *rows = (" & ".join(map(escape_latex, row)) + r" \\" for row in cells)
    columns = "l" + "r" * (len(cells[0]) - 1)
    return "\n".join(
        [
            "",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            header,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
}


def escape_latex(text: str) -> str:
    """Text that LaTeX sets as it is.

    >>> print(escape_latex("bkd_2: 5% & 40.1 ± 0.3"))
    bkd\\_2: 5\\% \\& 40.1 $\\pm$ 0.3
    """
    return "".join(_LATEX.get(sign, sign) for sign in text)
