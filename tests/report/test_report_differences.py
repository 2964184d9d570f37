"""What the page says of differences, where only some of it is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from distail.report.build import report_view
from distail.report.differences import difference_data, difference_tables


def only_images_known(stored: dict[str, Any]) -> None:
    """As with one seed: nothing is known over seeds, and test images say more than noise."""
    for one in stored["differences"]:
        known = one["over"] == "test images"
        one |= {"inside_noise": not known, "p_corrected": 0.01 if known else None, "p": 0.01 if known else None}
        one["interval"] = [0.5, 2.5] if known else None


def nothing_known(stored: dict[str, Any]) -> None:
    for one in stored["differences"]:
        one |= {"inside_noise": True, "p_corrected": None, "p": None, "interval": None}


def test_one_seed_shows_what_test_images_say_and_does_not_call_it_noise(make_comparison: Callable[..., Path]) -> None:
    view = report_view([make_comparison(seeds=(0,), change=only_images_known)])
    tables = difference_tables(view)
    assert [table.how for table in tables] == ["paired over test images"]
    cells = [cell for _, row in tables[0].rows for cell in row]
    assert not any(cell.doubt for cell in cells)
    assert all(cell.interval and cell.p for cell in cells)
    for chart in difference_data(view):
        assert all(row.interval is not None and not row.doubt for row in chart.rows)


def test_what_is_not_known_is_not_called_noise(make_comparison: Callable[..., Path]) -> None:
    view = report_view([make_comparison(seeds=(0,), change=nothing_known)])
    tables = difference_tables(view)
    assert [table.how for table in tables] == ["paired over seeds"]
    assert {cell.doubt for _, row in tables[0].rows for cell in row} == {"not known"}
    for chart in difference_data(view):
        assert {row.doubt for row in chart.rows} == {"not known"}


def test_a_metric_without_a_corrected_p_value_was_not_tested_and_two_seeds_are_too_few(
    make_comparison: Callable[..., Path],
) -> None:
    def two_seeds(stored: dict[str, Any]) -> None:
        for one in stored["differences"]:
            tested, images = one["figure"] == "balanced_accuracy", one["over"] == "test images"
            one |= {"inside_noise": not (tested and images), "p": 0.01, "interval": [0.5, 2.5]}
            one["p_corrected"] = (0.01 if images else 0.3) if tested else None

    view = report_view([make_comparison(seeds=(0, 1), change=two_seeds)])
    images, seeds = difference_tables(view)
    assert (images.how, seeds.how) == ("paired over test images", "paired over seeds")
    place = images.columns.index("Balanced accuracy")
    for table, doubt in ((images, ""), (seeds, "too few seeds to tell")):
        for _, row in table.rows:
            assert row[place].doubt == doubt
            assert {cell.doubt for i, cell in enumerate(row) if i != place} == {"not tested"}
    balanced = next(chart for chart in difference_data(view) if chart.title == "Balanced accuracy")
    assert not any(row.doubt for row in balanced.rows)


def test_a_verdict_is_that_of_the_comparison_which_knows_what_was_paired(make_comparison: Callable[..., Path]) -> None:
    def lost_a_seed(stored: dict[str, Any]) -> None:
        for one in stored["differences"]:
            seeds = one["over"] == "seeds"
            one |= {"seeds": 2, "verdict": "too few seeds to tell" if seeds else "inside the noise"}
            one |= {"inside_noise": True, "p": 0.2, "p_corrected": 0.9}

    images, seeds = difference_tables(report_view([make_comparison(seeds=(0, 1, 2, 3, 4, 5), change=lost_a_seed)]))
    for table, doubt in ((images, "inside the noise"), (seeds, "too few seeds to tell")):
        assert {cell.doubt for _, row in table.rows for cell in row} == {doubt}


def test_noise_over_test_images_is_noise_though_seeds_say_more(make_comparison: Callable[..., Path]) -> None:
    def one_way(stored: dict[str, Any]) -> None:
        for one in stored["differences"]:
            noise = one["over"] == "test images"
            one |= {"inside_noise": noise, "p_corrected": 0.9 if noise else 0.01, "p": 0.01, "interval": [0.5, 2.5]}

    for chart in difference_data(report_view([make_comparison(seeds=(0, 1), change=one_way)])):
        assert {row.doubt for row in chart.rows} == {"inside the noise"}


def test_the_teachers_bias_is_there_though_the_first_method_had_no_teacher(
    make_comparison: Callable[..., Path],
) -> None:
    folder = make_comparison(methods=("ce", "kd"), seeds=(0,))
    without = folder / "runs" / "ce-seed0" / "predictions.safetensors"
    from safetensors.torch import load_file, save_file

    save_file({name: value for name, value in load_file(without).items() if name != "teacher_logits"}, without)
    assert report_view([folder]).bias is not None


def test_what_a_model_predicted_is_that_of_its_lowest_seed(make_comparison: Callable[..., Path]) -> None:
    def reordered(stored: dict[str, Any]) -> None:
        stored["runs"].reverse()
        stored["seeds"].reverse()

    asked, turned = (make_comparison(name, change=change) for name, change in (("a", lambda _: None), ("b", reordered)))
    for one, other in zip(report_view([asked]).runs, report_view([turned]).runs, strict=True):
        assert (one.name, one.seeds, list(one.predicted)) == (other.name, other.seeds, list(other.predicted))
