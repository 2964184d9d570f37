"""What is shown while runs are under way, and what a run tells of itself."""

import io

import pytest
from rich.console import Console

from distail.compare.progress import ComparisonBars, ComparisonLines, default_reporter
from distail.compare.status import StatusReporter, read_status, write_status
from distail.training.progress import Silent


def happen(reporter):
    reporter.begin(3, 1, 2)
    reporter.started("kd [x]-seed0")
    reporter.progress("kd [x]-seed0", {})
    reporter.progress("kd [x]-seed0", {"stage": "student", "steps": 10, "done": 4, "loss": 0.5, "balanced": 41.2})
    reporter.message("stopping")
    reporter.ended("kd [x]-seed0", "finished", "top-1 50.0")
    reporter.ended("never-started", "failed", "not started, because its teacher failed")
    reporter.started("left-over")
    reporter.finish()


def test_without_a_terminal_there_is_one_line_an_event():
    console = Console(file=io.StringIO(), width=40)
    happen(default_reporter(console))
    assert console.file.getvalue().splitlines() == [
        "3 runs, 1 already finished; at most 2 in parallel",
        "kd [x]-seed0: started",
        "stopping",
        "kd [x]-seed0: top-1 50.0",
        "never-started: not started, because its teacher failed",
        "left-over: started",
    ]
    assert isinstance(default_reporter(console), ComparisonLines)


def test_a_run_under_way_says_every_half_minute_how_far_it_is():
    console, now = Console(file=io.StringIO(), width=40), [0.0]
    reporter = ComparisonLines(console, lambda: now[0])
    reporter.started("kd-seed0")
    for done in range(1, 8):
        now[0] += 15
        reporter.progress("kd-seed0", {"stage": "teacher", "steps": 100, "done": done, "loss": 0.5})
    assert console.file.getvalue().splitlines() == [
        "kd-seed0: started",
        "kd-seed0: teacher  loss 0.500  step 2 of 100  about 24 min left",
        "kd-seed0: teacher  loss 0.500  step 4 of 100  about 24 min left",
        "kd-seed0: teacher  loss 0.500  step 6 of 100  about 24 min left",
    ]


def test_on_a_terminal_every_run_has_a_bar_that_fits_80_columns():
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    reporter = default_reporter(console)
    assert isinstance(reporter, ComparisonBars)
    reporter.begin(3, 1, 2)
    reporter.started("kd [x]-seed0")
    reporter.progress("kd [x]-seed0", {"stage": "student", "steps": 10, "done": 4, "loss": 0.5, "balanced": 41.2})
    shown = Console(width=80, record=True, file=io.StringIO())
    shown.print(reporter._progress.get_renderable())
    lines = shown.export_text().splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= 80
    assert "runs" in lines[0]
    assert "1/3" in lines[0]
    assert "kd [x]-seed0" in lines[1]
    assert "4/10" in lines[1]
    reporter.finish()


def test_live_bars_survive_everything_that_happens():
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    happen(ComparisonBars(console))
    assert "top-1 50.0" in console.file.getvalue()


def test_a_run_tells_its_stage_steps_and_figures(tmp_path):
    path = tmp_path / "status" / "kd.json"
    log = Silent()
    reporter = StatusReporter(path, log)
    reporter.start("student", 3, 5, 4)
    assert read_status(path) == {"state": "running", "stage": "student", "steps": 15, "done": 4}
    reporter._written = 0.0
    reporter.epoch({"loss": 0.5, "validation": {"balanced_accuracy": 40.0}}, 3)
    reporter.step()
    assert read_status(path) == {
        "state": "running",
        "stage": "student",
        "steps": 15,
        "done": 5,
        "loss": 0.5,
        "balanced": 40.0,
    }


def test_a_teachers_run_is_not_told_as_a_student(tmp_path):
    reporter = StatusReporter(tmp_path / "teacher.json", Silent(), {"student": "teacher"})
    reporter.start("student", 3, 5, 0)
    assert read_status(tmp_path / "teacher.json")["stage"] == "teacher"


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_a_status_that_cannot_be_read_is_none(tmp_path, content):
    path = tmp_path / "status.json"
    assert read_status(path) == {}
    path.write_text(content)
    assert read_status(path) == {}
    write_status(path, {"state": "finished"})
    assert read_status(path) == {"state": "finished"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["status.json"]
