"""The order of runs, and what becomes of the others when one fails, dies or is told to stop."""

import signal
import time
from pathlib import Path

import pytest

from distail.compare.plan import Job
from distail.compare.scheduler import Schedule, State
from distail.compare.status import write_status
from distail.config.schema import Experiment
from distail.errors import DataError
from distail.evaluation.run_files import FAILED, FINISHED, MISSING, STOPPED
from distail.files import write_json
from distail.training.checkpoint import Checkpoint, CheckpointFolder
from distail.training.signals import Interrupted, StopRequest
from helpers.comparison_cases import Quiet

TEST = {"top1": 50.0, "balanced_accuracy": 40.0, "per_class_recall": [60.0, 20.0]}
RESULT = {
    "schema_version": 1,
    "class_counts": [9, 5],
    "teacher": None,
    "student": {"test": TEST},
    "timing": {"student": {"seconds": 1.0}},
}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def job(folder, name, after=None):
    raw = {"name": name, "output": str(folder / name), "data": "digits", "student": "resnet8", "method": "ce"}
    return Job(name, Experiment.from_mapping(raw), after)


class Scripted:
    """Ends each run a look after it started, as its script says."""

    def __init__(self, parallel, **script):
        self.parallel, self.script = parallel, script
        self.started, self.most, self._running, self.stopped = [], 0, [], False

    def start(self, spec):
        self.started.append(spec["name"])
        self._running.append(spec)
        self.most = max(self.most, len(self._running))

    def ended(self):
        if not self._running or (self.script.get(self._running[0]["name"]) == "forever" and not self.stopped):
            return {}
        spec = self._running.pop(0)
        end = self.script.get(spec["name"], FINISHED)
        if end == FINISHED:
            output = Path(spec["experiment"]["output"])
            write_json(output / "result.json", RESULT)
            (output / "config.yaml").write_text(Experiment.from_mapping(spec["experiment"]).to_yaml())
        elif isinstance(end, dict):
            write_status(Path(spec["status"]), end)
        elif end == "forever":
            write_status(Path(spec["status"]), {"state": STOPPED, "problem": "stopped by SIGTERM"})
        return {spec["name"]: end if end not in (FINISHED, "forever") and isinstance(end, str) else None}

    def stop(self, name=None):
        self.stopped = name or True


def once(request):
    if request.signal_number is None:
        request.receive(signal.SIGTERM)


def run_jobs(folder, jobs, engine, request=None, reporter=None):
    schedule = Schedule(jobs, folder)
    writes = []
    try:
        schedule.run_jobs(engine, reporter or Quiet(), request or StopRequest(), lambda: writes.append(1))
    finally:
        schedule.writes = len(writes)
        run_jobs.last = schedule
    return schedule


def test_a_finished_run_whose_weights_were_lost_is_finished_again(tmp_path):
    jobs = [job(tmp_path, "t")]
    run_jobs(tmp_path, jobs, Scripted(1))
    assert Schedule(jobs, tmp_path).left == []
    CheckpointFolder(jobs[0].folder.checkpoints("student")).save(Checkpoint(3, {}, {}))
    assert Schedule(jobs, tmp_path).left == ["t"]


def test_students_wait_for_their_teacher_and_others_do_not(tmp_path):
    jobs = [job(tmp_path, "t"), job(tmp_path, "kd", "t"), job(tmp_path, "bkd", "t"), job(tmp_path, "ce")]
    engine = Scripted(2)
    schedule = run_jobs(tmp_path, jobs, engine)
    assert engine.started[:2] == ["t", "ce"]
    assert sorted(engine.started) == ["bkd", "ce", "kd", "t"]
    assert engine.most == 2
    assert {state.state for state in schedule.states.values()} == {FINISHED}
    assert schedule.writes == 4


def test_finished_runs_are_not_started_again(tmp_path):
    jobs = [job(tmp_path, "t"), job(tmp_path, "kd", "t")]
    run_jobs(tmp_path, jobs, Scripted(1))
    engine = Scripted(1)
    reporter = Quiet()
    run_jobs(tmp_path, [*jobs, job(tmp_path, "bkd", "t")], engine, reporter=reporter)
    assert engine.started == ["bkd"]
    assert ("begin", 3, 2) in reporter.events


def test_a_run_that_fails_stops_none_but_its_students(tmp_path):
    jobs = [job(tmp_path, "t0"), job(tmp_path, "t1"), job(tmp_path, "a", "t0"), job(tmp_path, "b", "t1")]
    problem = {"state": FAILED, "kind": "TrainingError", "problem": "the loss is not finite"}
    schedule = run_jobs(tmp_path, jobs, Scripted(1, t0=problem))
    assert schedule.states["t0"] == State(FAILED, "the loss is not finite")
    assert schedule.states["a"] == State(FAILED, "its teacher failed: the loss is not finite")
    assert schedule.states["b"] == schedule.states["t1"] == State(FINISHED)


def test_a_process_that_dies_is_a_failure_with_its_cause(tmp_path):
    reporter = Quiet()
    schedule = run_jobs(tmp_path, [job(tmp_path, "a")], Scripted(1, a="ended by SIGKILL"), reporter=reporter)
    assert schedule.states["a"] == State(FAILED, "ended by SIGKILL")
    assert any("logs/a.log" in event[-1] for event in reporter.events if event[0] == "ended")


def test_what_a_dead_process_left_of_an_earlier_start_is_not_believed(tmp_path):
    write_status(tmp_path / "status" / "a.json", {"state": FAILED, "problem": "long ago"})
    schedule = run_jobs(tmp_path, [job(tmp_path, "a")], Scripted(1, a="ended by SIGKILL"))
    assert schedule.states["a"].problem == "ended by SIGKILL"


def test_images_that_no_run_could_use_end_the_comparison(tmp_path):
    problem = {"state": FAILED, "kind": "DataError", "problem": "no such folder"}
    engine = Scripted(2, a=problem, b="forever")
    with pytest.raises(DataError, match="no such folder"):
        run_jobs(tmp_path, [job(tmp_path, name) for name in "abcd"], engine)
    assert engine.stopped
    assert "d" not in engine.started
    assert run_jobs.last.states["b"].state == MISSING


def test_a_signal_stops_every_run_and_starts_none(tmp_path):
    request = StopRequest()
    engine = Scripted(2, a="forever", b="forever")
    engine.start_of_all = engine.start
    engine.start = lambda spec: (engine.start_of_all(spec), once(request))
    with pytest.raises(Interrupted) as caught:
        run_jobs(tmp_path, [job(tmp_path, name) for name in "abc"], engine, request)
    assert caught.value.signal_number == signal.SIGTERM
    assert engine.started == ["a", "b"]
    assert {state.state for state in run_jobs.last.states.values()} == {MISSING}


@pytest.mark.parametrize("problem", ["stopped by SIGTERM", "interrupted"])
def test_a_teacher_that_somebody_else_stopped_has_failed_and_so_have_its_students(tmp_path, problem):
    jobs = [job(tmp_path, "t"), job(tmp_path, "kd", "t"), job(tmp_path, "bkd", "t"), job(tmp_path, "ce")]
    engine = Scripted(1, t={"state": STOPPED, "kind": "Interrupted", "problem": problem})
    looks = iter(range(100))
    engine.ended_of_all = engine.ended
    engine.ended = lambda: (next(looks), engine.ended_of_all())[1]  # a loop that never ends runs out of looks
    schedule = run_jobs(tmp_path, jobs, engine)
    assert schedule.states["t"] == State(FAILED, f"it was {problem} from outside")
    for name in ("kd", "bkd"):
        assert schedule.states[name] == State(FAILED, f"its teacher failed: it was {problem} from outside")
    assert schedule.states["ce"] == State(FINISHED)
    assert sorted(engine.started) == ["ce", "t"]


def test_a_signal_that_reached_the_run_first_is_still_the_comparisons_own(tmp_path):
    request = StopRequest()
    engine = Scripted(1, t={"state": STOPPED, "kind": "Interrupted", "problem": "stopped by SIGTERM"})
    engine.ended_of_all = engine.ended
    engine.ended = lambda: (once(request), engine.ended_of_all())[1]
    with pytest.raises(Interrupted):
        run_jobs(tmp_path, [job(tmp_path, "t"), job(tmp_path, "kd", "t")], engine, request)
    assert {state.state for state in run_jobs.last.states.values()} == {MISSING}


def test_a_run_that_was_begun_before_is_said_to_be_unfinished(tmp_path):
    one = job(tmp_path, "a")
    one.folder.config.parent.mkdir()
    one.folder.config.write_text("")
    schedule = Schedule([one, job(tmp_path, "b")], tmp_path)
    assert schedule.states["a"].problem == "it is not finished"
    assert schedule.states["b"].problem == "it was not started"
    assert schedule.left == ["a", "b"]


class Feed:
    """Brings `jobs` one after the other, and calls off `unwanted` once it is under way."""

    def __init__(self, jobs, engine, unwanted):
        self.jobs, self.engine, self.unwanted = list(jobs), engine, unwanted

    def more(self, free):
        return [self.jobs.pop(0) for _ in range(max(0, min(free, len(self.jobs))))]

    def called_off(self):
        if self.unwanted not in self.engine.started:
            return []
        named, self.unwanted = self.unwanted, None
        return [named]


def test_jobs_come_while_others_run_and_one_is_called_off(tmp_path):
    engine = Scripted(1, b="forever")
    feed = Feed([job(tmp_path, name) for name in "abc"], engine, unwanted="b")
    schedule = Schedule([], tmp_path)
    schedule.run_jobs(engine, Quiet(), StopRequest(), lambda: None, feed)
    assert engine.started == ["a", "b", "c"]
    assert engine.stopped == "b"
    assert [schedule.states[name].state for name in "abc"] == [FINISHED, MISSING, FINISHED]
    assert schedule.seconds.keys() == {"a", "c"}
