from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distail.errors import ConfigError
from distail.report.build import report_view, write_report
from distail.report.page import write_page
from distail.report.read_run import run_view_from_folder

MakeFolder = Callable[..., Path]


def test_a_finished_run_is_read_whole(make_folder: MakeFolder, counts: list[int]) -> None:
    view = run_view_from_folder(make_folder())
    teacher, student = view.runs
    assert (teacher.name, teacher.role, student.name, student.role) == ("teacher", "teacher", "bkd", "student")
    assert (teacher.seconds, student.seconds) == (20.5, 10.25)
    assert (teacher.parameters, student.macs) == (1000, 3000)
    assert view.class_counts == counts
    assert view.class_names[0] == "digit 0"
    assert view.title == "digits-bkd"
    assert view.problems == []
    assert view.bias is not None
    assert sum(item.count for item in student.reliability) == 20 * len(counts)
    assert sum(item.count for item in teacher.reliability) == 20 * len(counts)
    assert [row["epoch"] for row in teacher.history] == [0, 1, 2, 3]
    assert student.best_on_validation is not None
    assert view.config.startswith("name: digits-bkd")


def test_stored_figures_agree_with_the_bias_from_stored_logits(make_folder: MakeFolder) -> None:
    view = run_view_from_folder(make_folder())
    assert view.bias is not None
    assert view.bias["recall"] == pytest.approx(view.runs[0].metrics["groups"]["thirds"])  # type: ignore[index]


def test_a_run_without_a_teacher_shows_none(make_folder: MakeFolder) -> None:
    view = run_view_from_folder(make_folder(method="ce", teacher=False))
    assert [run.role for run in view.runs] == ["student"]
    assert view.bias is None
    assert view.problems == []


def test_a_reconstruction_is_called_one(make_folder: MakeFolder) -> None:
    assert "reconstruction" in " ".join(run_view_from_folder(make_folder("a", method="krdistill")).notes)
    composed = {"representation": "balanced_prototypes"}
    folder = make_folder("b", method="composition", change=lambda r: r["config"].update(method=composed))
    assert "reconstruction" in " ".join(run_view_from_folder(folder).notes)
    assert run_view_from_folder(make_folder("c")).notes == []


def _without(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def _with(name: str, content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return write


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without("result.json"), "not finished"),
        (_without("result.json", "metrics.jsonl", "predictions.safetensors", "config.yaml"), "not finished"),
        (_with("result.json", b'{"schema'), "result.json cannot be read"),
        (_with("result.json", b"\xff\xfe\x00"), "result.json cannot be read"),
        (_with("result.json", b"[1, 2]"), "no mapping"),
        (_with("result.json", b"{}"), "no usable class_counts"),
        (_with("result.json", b'{"class_counts": [1, 0], "student": 7}'), "no usable class_counts"),
        (
            _with("result.json", b'{"class_counts": [1, 2], "student": {"test": {"top1": 3}}}'),
            "no complete test metrics",
        ),
        (_without("predictions.safetensors"), "no predictions.safetensors"),
        (_with("predictions.safetensors", b"damaged"), "predictions.safetensors cannot be used"),
        (_with("metrics.jsonl", b'{"stage": "student", "epoch": 0, "loss": 1.0}\n{"stage": "stu'), "1 of 2 lines"),
        (_with("metrics.jsonl", b"\xff\xff\n[3]\n"), "2 of 2 lines"),
    ],
)
def test_what_is_missing_or_damaged_is_said_on_the_page(
    make_folder: MakeFolder, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = make_folder()
    damage(folder)
    view = run_view_from_folder(folder)
    assert any(message in problem for problem in view.problems), view.problems
    page = write_page(tmp_path / "report.html", view).read_text(encoding="utf-8")
    assert "What is missing" in page
    assert page.rstrip().endswith("</html>")


def test_predictions_of_other_classes_are_a_problem_and_no_crash(make_folder: MakeFolder) -> None:
    folder, other = make_folder("a"), make_folder("b")
    result = (folder / "result.json").read_text().replace('"class_counts": [400, ', '"class_counts": [')
    (other / "result.json").write_text(result)
    problems = " ".join(run_view_from_folder(other).problems)
    assert "12 classes, but class_counts names 11" in problems
    assert "no complete test metrics of the student" in problems


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        run_view_from_folder(tmp_path / "nowhere")


def test_several_runs_share_one_teacher(make_folder: MakeFolder) -> None:
    view = report_view([make_folder("a", method="kd", seed=1), make_folder("b", method="bkd", seed=2)])
    assert [run.name for run in view.runs] == ["teacher", "kd", "bkd"]
    assert view.bias is not None
    assert view.title == "digits-kd, digits-bkd"
    assert "# a\n" in view.config
    assert "# b\n" in view.config


def test_a_student_without_a_teacher_may_come_first(make_folder: MakeFolder) -> None:
    alone = make_folder("a", method="ce", teacher=False)
    view = report_view([alone, make_folder("b")])
    assert [run.name for run in view.runs] == ["teacher", "ce", "bkd"]
    assert view.bias == run_view_from_folder(make_folder("c")).bias is not None


def test_the_same_method_twice_is_told_apart_by_its_folder(make_folder: MakeFolder) -> None:
    view = report_view([make_folder("a", seed=1), make_folder("b", seed=2)], title="two seeds")
    assert [run.name for run in view.runs] == ["teacher", "bkd (a)", "bkd (b)"]
    assert view.title == "two seeds"


def test_different_teachers_stay_apart(make_folder: MakeFolder) -> None:
    def better(result: dict[str, dict[str, dict[str, float]]]) -> None:
        result["teacher"]["test"]["top1"] = 99.0

    view = report_view([make_folder("a", method="kd"), make_folder("b", change=better)])
    assert [run.name for run in view.runs] == ["teacher (a)", "teacher (b)", "kd", "bkd"]
    assert view.bias is None


def test_other_images_are_noted_and_other_classes_refused(make_folder: MakeFolder) -> None:
    first = make_folder("a")
    other = make_folder("b", change=lambda r: r.update(subset_sha256="cd" * 32))
    assert "b was trained on other images" in report_view([first, other]).notes[0]
    strange = make_folder("c", change=lambda r: r["class_names"].reverse())
    with pytest.raises(ConfigError, match=r"c has 12 classes \(digit 11, .*the first run 12 \(digit 0"):
        report_view([first, strange])


def test_other_test_images_with_the_same_labels_are_noted_too(make_folder: MakeFolder) -> None:
    def tested_on(digest: str) -> Callable[[dict[str, Any]], None]:
        return lambda result: result.update(identity={"test_data": digest})

    clean, again, noisy = (
        make_folder(name, change=tested_on(digest * 32))
        for name, digest in (("clean", "aa"), ("again", "aa"), ("noisy", "bb"))
    )
    words = "noisy was tested on other images than the first run"
    assert any(words in note for note in report_view([clean, noisy]).notes)
    assert not any("tested on other images" in note for note in report_view([clean, again]).notes)
    beside = report_view([clean, noisy])
    assert [bool(run.predicted) for run in beside.runs if run.role == "student"] == [True, False]


def test_an_unfinished_run_beside_a_finished_one_is_named(make_folder: MakeFolder, tmp_path: Path) -> None:
    unfinished = make_folder("a", method="kd")
    (unfinished / "result.json").unlink()
    view = report_view([unfinished, make_folder("b")])
    assert view.problems[0].startswith("a: This run is not finished")
    assert len(view.class_counts) == 12
    path = write_report(tmp_path / "report.html", [unfinished, tmp_path / "b"])
    assert "bkd reaches" in path.read_text(encoding="utf-8")


def test_no_folder_at_all_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no folder was named"):
        report_view([])
