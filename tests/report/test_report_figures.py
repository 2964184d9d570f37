from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from distail.errors import ConfigError
from distail.report.build import report_view
from distail.report.figures import FIGURES, recall_figure, write_figures
from distail.report.style import STUDENTS, TEACHERS
from distail.report.views import ReportView, RunView


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_same_input_gives_the_same_bytes(tmp_path: Path, large_view: ReportView, ending: str) -> None:
    first, second = (
        recall_figure(tmp_path / name / f"recall.{ending}", large_view.runs, large_view.class_counts, title="$x_ / 7%")
        for name in ("a", "b")
    )
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size > 5000


def test_a_pdf_is_written(tmp_path: Path, view: ReportView) -> None:
    assert recall_figure(tmp_path / "recall.pdf", view.runs, view.class_counts).read_bytes().startswith(b"%PDF")


def test_an_svg_says_in_words_what_it_shows(tmp_path: Path, view: ReportView, hostile: str) -> None:
    root = ElementTree.parse(recall_figure(tmp_path / "recall.svg", view.runs, view.class_counts)).getroot()
    assert root.attrib["role"] == "img"
    assert " ".join(f"bkd{hostile} from".split()) in " ".join(root.attrib["aria-label"].split())
    assert f"bkd{hostile}"[:20] in "".join(root.itertext())


def test_png_is_sharp_enough_for_print(tmp_path: Path, view: ReportView) -> None:
    with Image.open(recall_figure(tmp_path / "recall.png", view.runs, view.class_counts)) as image:
        assert image.width == 1280
        assert 600 < image.height < 900
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 50


def test_svg_holds_the_colors_of_every_model(tmp_path: Path, view: ReportView) -> None:
    path = recall_figure(tmp_path / "recall.svg", view.runs, view.class_counts)
    ElementTree.parse(path)
    text = path.read_text().lower()
    for style in (TEACHERS[0], *STUDENTS[:2]):
        assert style.light.lower() in text


def test_models_without_figures_keep_the_styles_of_the_others(tmp_path: Path, view: ReportView) -> None:
    runs = [RunView("unfinished", "student"), view.runs[1]]
    text = recall_figure(tmp_path / "recall.svg", runs, view.class_counts).read_text().lower()
    assert STUDENTS[1].light.lower() in text
    assert STUDENTS[0].light.lower() not in text


def test_what_cannot_be_drawn_is_refused(tmp_path: Path, view: ReportView) -> None:
    with pytest.raises(ConfigError, match=r"unknown figure format 'sgv'\. Did you mean 'svg'"):
        recall_figure(tmp_path / "recall.sgv", view.runs, view.class_counts)
    with pytest.raises(ConfigError, match="none of the 1 models has test metrics"):
        recall_figure(tmp_path / "recall.png", [RunView("kd", "student")], view.class_counts)


def test_every_figure_that_has_numbers_is_written_twice(tmp_path: Path, make_comparison: Callable[..., Path]) -> None:
    view = report_view([make_comparison()])
    written = write_figures(tmp_path / "figures", view)
    names = [f"{name}.{ending}" for name in FIGURES for ending in ("png", "svg")]
    assert [path.name for path in written] == names
    for path in written:
        if path.suffix == ".svg":
            ElementTree.parse(path)
            continue
        with Image.open(path) as image:
            assert image.width >= 840
            assert len(image.convert("RGB").getcolors(1 << 24) or []) > 50
    before = {path.name: path.read_bytes() for path in written}
    assert {path.name: path.read_bytes() for path in write_figures(tmp_path / "again", view)} == before


def test_a_run_without_predictions_has_fewer_figures(tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    folder = make_folder()
    (folder / "predictions.safetensors").unlink()
    assert {path.stem for path in write_figures(tmp_path / "f", report_view([folder]))} == {"recall", "groups", "cost"}
    (folder / "result.json").unlink()
    assert write_figures(tmp_path / "g", report_view([folder])) == []
    assert not (tmp_path / "g").exists()
