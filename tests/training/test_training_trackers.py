"""Trackers named in the configuration: told every epoch once, also after a stop; none of them can end a run."""

from __future__ import annotations

import accelerate.tracking
import pytest
from accelerate.tracking import GeneralTracker

import distail
from distail.errors import ConfigError
from distail.training.history import History
from distail.training.trackers import build_trackers, tracker_problems

CONFIG = {"seed": 3, "data": {"name": "digits", "augment": ["crop"]}, "teacher": None}


class Notebook(GeneralTracker):
    """A tracker as a program may register its own with Accelerate."""

    name = "notebook"
    requires_logging_directory = False
    runs: list = []  # noqa: RUF012

    def __init__(self, run_name, **options):
        super().__init__()
        self.run_name, self.config, self.told, self.finished = run_name, None, [], False

    @property
    def tracker(self):
        return self.told

    def start(self):
        self.runs.append(self)

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step=None, **options):
        if self.run_name == "broken":
            raise ConnectionError("no route to host")
        assert all(step > earlier for earlier, _ in self.told), "a tracker may refuse steps that do not rise"
        self.told.append((step, values))

    def finish(self):
        self.finished = True


class Filed(Notebook):
    name = "filed"
    requires_logging_directory = True

    def __init__(self, run_name, logging_dir):
        super().__init__(run_name)
        self.folder = logging_dir


@pytest.fixture
def runs(monkeypatch):
    monkeypatch.setattr(Notebook, "runs", [])
    for kind in (Notebook, Filed):
        monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, kind.name, kind)
    return Notebook.runs


def row(stage, epoch):
    return {"stage": stage, "epoch": epoch, "loss": 1.0 / (epoch + 1), "terms": {"supervised": 0.5}, "validation": None}


def test_every_epoch_is_told_by_name_with_rising_steps(runs, tmp_path):
    history = History(tmp_path, build_trackers(["notebook"], "quick-seed3", tmp_path, CONFIG, print))
    for stage in ("teacher", "student"):
        history.rewind(stage, [])
        for epoch in range(2):
            history.append(row(stage, epoch))
    history.close()
    (run,) = runs
    assert run.run_name == "quick-seed3"
    assert run.config == {"seed": 3, "data.name": "digits", "data.augment": "['crop']", "teacher": None}
    assert [step for step, _ in run.told] == [0, 1, 2, 3]
    assert run.told[3][1] == {"student/loss": 0.5, "student/terms/supervised": 0.5, "student/epoch": 1}
    assert run.finished


def test_a_resumed_run_is_told_whole_and_without_repeats(runs, tmp_path):
    def start():
        return History(tmp_path, build_trackers(["notebook"], "quick", tmp_path, CONFIG, print))

    first = start()
    first.rewind("student", [])
    for epoch in range(3):
        first.append(row("student", epoch))
    second = start()  # killed without a word; the newest checkpoint lies one epoch back
    second.rewind("student", [row("student", 0), row("student", 1)])
    second.append(row("student", 2))
    second.close()
    assert [values["student/epoch"] for _, values in runs[1].told] == [0, 1, 2]
    assert [step for step, _ in runs[1].told] == [0, 1, 2]


@pytest.mark.parametrize("lost", [0, 1])
def test_a_resumed_student_of_a_trained_teacher_opens_one_run(runs, tmp_path, lost):
    """Also where the newest checkpoint lies behind what had been written."""

    def start():
        return History(tmp_path, build_trackers(["notebook"], "quick", tmp_path, CONFIG, print))

    teacher, student = [row("teacher", 0), row("teacher", 1)], [row("student", epoch) for epoch in range(3)]
    first = start()
    for stage, rows in (("teacher", teacher), ("student", student)):
        first.rewind(stage, [])
        for each in rows:
            first.append(each)
    first.close()
    second = start()
    second.rewind("teacher", teacher)
    assert second.rows() == [*teacher, *student]
    kept = student[: len(student) - lost]
    second.rewind("student", kept)
    assert second.rows() == [*teacher, *kept]
    for each in student[len(kept) :]:
        second.append(each)
    second.close()
    assert len(runs) == 2
    assert runs[1].told == runs[0].told


def test_a_tracker_that_wants_a_folder_gets_one_in_the_run(runs, tmp_path):
    history = History(tmp_path, build_trackers(["filed", "filed"], "quick", tmp_path / "run", CONFIG, print))
    history.rewind("student", [])
    history.append(row("student", 0))
    assert [run.folder for run in runs] == [str(tmp_path / "run" / "filed")]
    assert (tmp_path / "run" / "filed").is_dir()


def test_a_tracker_that_fails_is_told_of_once_and_ends_nothing(runs, tmp_path):
    told = []
    history = History(tmp_path, build_trackers(["notebook"], "broken", tmp_path, CONFIG, told.append))
    history.rewind("student", [])
    for epoch in range(3):
        history.append(row("student", epoch))
    history.close()
    (said,) = told
    assert "notebook" in said
    assert "no route to host" in said
    assert len(history.rows()) == 3


def test_unknown_and_absent_trackers_are_problems_before_any_work(monkeypatch):
    monkeypatch.setattr(accelerate.tracking, "_available_trackers", [accelerate.utils.LoggerType.TENSORBOARD])
    unknown, absent = tracker_problems(["tensorboard", "tensorbord", "mlflow"])
    assert unknown.startswith("unknown tracker 'tensorbord'. Did you mean 'tensorboard'? Valid: aim, ")
    assert absent == "mlflow is not installed here (pip install mlflow); installed: tensorboard"


def test_the_configuration_names_them(runs, tmp_path):
    experiment = {
        "name": "quick",
        "output": str(tmp_path / "run"),
        "data": {"name": "digits", "imbalance_factor": 20, "validation": 0},
        "student": "resnet8",
        "method": "ce",
        "training": {"epochs": 1},
        "trainer": {"device": "cpu", "trackers": ["notebook"]},
    }
    with pytest.raises(ConfigError, match=r"trainer\.trackers: unknown tracker 'notebok'\. Did you mean 'notebook'"):
        distail.run({**experiment, "trainer": {"trackers": ["notebok"]}})
    assert not (tmp_path / "run").exists()
    distail.run(experiment)
    assert [sorted(values)[0] for _, values in runs[0].told] == ["student/epoch"]
    assert runs[0].config["method.name"] == "ce"
    assert not (tmp_path / "run" / "tensorboard").exists()
