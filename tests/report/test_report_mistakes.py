"""A student's mistakes by name: which classes are confused, and which images it is sure and wrong about."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distail.errors import CheckpointError
from distail.report.mistakes import read_mistakes
from distail.report.page import render_page
from distail.report.views import ReportView

ROWS = [
    ("a.png", "cat", "cat", 0.9),
    ("b.png", "cat", "dog", 0.5),
    ("c,<b>.png", "cat", "dog", 0.8),
    ("d.png", "dog", "cat", 0.99),
    ("e.png", "dog", "dog", 0.6),
]


def write(path, rows=ROWS):
    lines = [f'"{image}",{label},{answer},{probability}' for image, label, answer, probability in rows]
    path.write_text("\n".join(["path,label,answer,probability", *lines]) + "\n")
    return path


def test_pairs_by_their_number_and_images_by_how_sure_the_student_is(tmp_path):
    found = read_mistakes(write(tmp_path / "p.csv"))
    assert (found.images, found.wrong, found.confused) == (5, 3, 2)
    assert [(pair.label, pair.answer, pair.images, pair.share) for pair in found.pairs] == [
        ("cat", "dog", 2, pytest.approx(200 / 3)),
        ("dog", "cat", 1, 50.0),
    ]
    assert [image.path for image in found.sure] == ["d.png", "c,<b>.png", "b.png"]
    page = render_page(replace(ReportView("x"), mistakes=found))
    assert "c,&lt;b&gt;.png" in page
    assert 'href="#mistakes"' in page


def test_a_thousand_classes_stay_a_short_table(tmp_path):
    rows = [(f"{i}.png", f"class {i % 1000}", f"class {(i * 7) % 1000}", 0.5) for i in range(5000)]
    found = read_mistakes(write(tmp_path / "p.csv", rows))
    assert (len(found.pairs), len(found.sure), found.images) == (15, 15, 5000)


def test_nothing_wrong_and_nothing_there_show_nothing(tmp_path):
    assert read_mistakes(tmp_path / "missing.csv") is None
    found = read_mistakes(write(tmp_path / "p.csv", ROWS[:1]))
    assert 'id="mistakes"' not in render_page(replace(ReportView("x"), mistakes=found))


@pytest.mark.parametrize(
    "text", ["", "path,label\na,b\n", "path,label,answer,probability\na,b,c,x\n", "path,label,answer,probability\na\n"]
)
def test_another_table_is_told(tmp_path, text):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(CheckpointError, match=r"p\.csv"):
        read_mistakes(tmp_path / "p.csv")
