from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from distail.errors import ConfigError
from distail.evaluation.metrics import evaluate_predictions
from distail.report.results_table import COLUMNS, DEFAULT_COLUMNS, caption, cell, results_table, table_rows
from distail.report.table import Table
from distail.report.views import BestEpoch, ReportView, RunView


def printed(table: Table, width: int = 400) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    table.print(console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.fixture
def no_few() -> RunView:
    """All classes have more than 100 images: nobody is medium or few, and few is not zero."""
    figures = evaluate_predictions(torch.eye(3)[[0, 0, 2]], torch.tensor([0, 1, 2]), [500, 400, 300])
    cost = {"seconds": 3812.4, "parameters": 464_154, "macs": 69_100_000, "size": 3_145_728, "latency": 1.25}
    return RunView("kd", "student", figures, **cost, class_counts=[500, 400, 300])


def cells_of(markdown: str) -> list[list[str]]:
    return [[part.strip() for part in line.strip("|").split("|")] for line in markdown.splitlines() if line[:1] == "|"]


def test_markdown_has_every_figure_in_its_column(no_few: RunView) -> None:
    header, rule, row = cells_of(results_table([no_few]).to_markdown())
    assert dict(zip(header, row, strict=True)) == {
        "Model": "kd",
        "Role": "student",
        "Top-1": "66.7",
        "Balanced accuracy": "66.7",
        "Macro F1": "55.6",
        "G-mean": "0.0",
        "Head third": "100.0",
        "Medium third": "0.0",
        "Tail third": "100.0",
        "Many-shot": "66.7",
        "Medium-shot": "no such class",
        "Few-shot": "no such class",
        "Worst class": "0.0",
        "ECE": f"{no_few.metrics['ece']:.1f}",  # type: ignore[index]
        "Size, MiB": "3.00",
        "Latency, ms": "1.25",
        "Seconds": "3,812",
        "Parameters, millions": "0.46",
        "MACs, millions": "69.1",
    }
    assert len(rule) == len(header)


def test_columns_are_chosen_and_ordered_by_name(no_few: RunView) -> None:
    header, _, row = cells_of(results_table([no_few], ["tail", "top1"]).to_markdown())
    assert header == ["Model", "Role", "Tail third", "Top-1"]
    assert row == ["kd", "student", "100.0", "66.7"]


def test_an_unknown_column_is_refused_with_the_nearest_name(no_few: RunView) -> None:
    with pytest.raises(ConfigError, match=r"'tial'.*'tail'"):
        results_table([no_few], ["tial"])


def test_the_caption_states_the_rules_of_the_groupings_it_shows() -> None:
    assert "100 training images" in caption()
    assert "largest third" in caption()
    assert "third" not in caption(["top1", "few"])
    assert "100" not in caption(["top1", "tail"])
    assert caption(["top1"]).count(";") == 0
    assert results_table([], ["few"]).to_markdown().endswith(caption(["few"]))


@pytest.mark.parametrize("name", ["ce, adjusted", "kd, adjusted (tau 0.5)"])
def test_the_caption_says_what_adjusted_is_where_a_run_is_so_by_itself(name: str) -> None:
    assert "log(class prior)" in caption(["top1"], runs=[RunView(name, "student")])
    assert "log(class prior)" not in caption(["top1"], runs=[RunView("ce", "student")])


def test_a_group_of_classes_without_test_images_is_told_from_one_without_classes() -> None:
    figures = evaluate_predictions(torch.eye(3)[[0, 1]], torch.tensor([0, 1]), [500, 50, 30])
    run = RunView("kd", "student", figures, best_on_validation=BestEpoch(0, figures))
    columns = ["tail", "few"]
    known = replace(run, class_counts=[500, 50, 30])
    _, _, *rows = cells_of(results_table([known], columns).to_markdown())
    assert [row[2:] for row in rows] == [["no test image", "no such class"]] * 2
    assert "no test image" in printed(results_table([known], columns))
    _, _, *rows = cells_of(results_table([run], columns).to_markdown())
    assert [row[2:] for row in rows] == [["not measured"] * 2] * 2


def test_what_was_not_measured_is_not_zero() -> None:
    row = table_rows([RunView("broken", "student")])[0]
    assert {cell(row, COLUMNS[name]) for name in DEFAULT_COLUMNS} == {"not measured"}


def test_best_on_validation_has_a_row_of_its_own_that_says_so(view: ReportView) -> None:
    names = [row.name for row in table_rows(view.runs)]
    assert names[:3] == ["teacher", "kd", "kd, best on validation (epoch 3)"]
    assert len(names) == 4


def test_names_cannot_break_the_markdown_table(no_few: RunView) -> None:
    text = results_table([replace(no_few, name="a|b\n| c <img src=x> \\")], ["top1"]).to_markdown()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 3
    assert lines[2].replace("\\|", "").count("|") == lines[0].count("|")
    assert "<img" not in text


def test_rich_prints_the_same_words(no_few: RunView, view: ReportView) -> None:
    for models_as_columns in (True, False):
        text = printed(results_table([no_few], title="[bold]results", models_as_columns=models_as_columns))
        for expected in ("[bold]results", "no such class", "66.7", "3,812", "Few-shot", "largest third"):
            assert expected in text
    assert "</script>" in printed(results_table(view.runs))


def test_markup_in_names_is_printed_and_not_obeyed(no_few: RunView) -> None:
    assert "[red]kd[/red]" in printed(results_table([replace(no_few, name="[red]kd[/red]")], models_as_columns=True))
    assert "[red]kd[/red]" in printed(results_table([replace(no_few, name="[red]kd[/red]")], models_as_columns=False))


def test_a_few_models_fit_a_narrow_terminal_whole(no_few: RunView) -> None:
    text = printed(results_table([no_few, replace(no_few, name="bkd")], models_as_columns=True), width=80)
    assert "…" not in text
    assert sum("Balanced accuracy" in line for line in text.splitlines()) == 1
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_model_that_is_called_by_its_role_is_called_so_once():
    runs = [RunView("teacher", "teacher"), RunView("kd", "student")]
    columns = results_table(runs, ["seconds"], models_as_columns=True).columns
    assert columns == ["Metric", "teacher", "kd (student)"]
