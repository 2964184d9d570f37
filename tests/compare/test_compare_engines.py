"""What local processes are given: cores, GPUs and a way to notice that the comparison is gone."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from distail.compare.engine_config import EngineConfig
from distail.compare.engines import LocalProcesses
from distail.compare.status import read_status
from distail.runner.run_folder import RunFolder
from helpers.comparison_cases import CONFIG


class Process:
    """A process that only remembers how it was started."""

    made: list = []  # noqa: RUF012

    def __init__(self, command, env, **options):
        self.environment, self.returncode, self.signals = env, None, []
        self.stdin = io.StringIO()
        Process.made.append(self)

    def poll(self):
        return self.returncode

    def send_signal(self, number):
        self.signals.append(number)

    def kill(self):
        self.signals.append(signal.SIGKILL)

    def wait(self): ...


@pytest.fixture
def machine(monkeypatch):
    """A machine of 16 cores and three GPUs."""
    Process.made = []
    monkeypatch.setattr(subprocess, "Popen", Process)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def spec(tmp_path, name):
    return {"name": name, "log": str(tmp_path / "log"), "status": str(tmp_path / f"{name}.json")}


def test_gpus_are_given_out_one_to_a_run_and_again_when_free(machine, tmp_path):
    engine = LocalProcesses(EngineConfig(9, None, "auto"))
    assert engine.parallel == 3
    for name in "abc":
        engine.start(spec(tmp_path, name))
    assert [process.environment["CUDA_VISIBLE_DEVICES"] for process in Process.made] == ["4", "5", "7"]
    assert {process.environment["OMP_NUM_THREADS"] for process in Process.made} == {"5"}
    Process.made[1].returncode = 0
    assert engine.ended() == {"b": None}
    engine.start(spec(tmp_path, "d"))
    assert Process.made[3].environment["CUDA_VISIBLE_DEVICES"] == "5"


def test_more_runs_than_gpus_share_them(machine, tmp_path):
    engine = LocalProcesses(EngineConfig(9, 4, "cuda"))
    for name in "abcd":
        engine.start(spec(tmp_path, name))
    assert [process.environment["CUDA_VISIBLE_DEVICES"] for process in Process.made] == ["4", "5", "7", "4"]


def test_one_run_can_be_asked_to_stop_without_the_others(machine, tmp_path):
    engine = LocalProcesses(EngineConfig(9, 2, "cpu"))
    for name in "ab":
        engine.start(spec(tmp_path, name))
    engine.stop("b")
    assert [process.signals for process in Process.made] == [[], [signal.SIGTERM]]
    engine.stop()
    assert [process.signals for process in Process.made] == [[signal.SIGTERM], [signal.SIGTERM] * 2]


@pytest.mark.parametrize(
    ("config", "parallel", "threads"),
    [
        (EngineConfig(9, None, "cpu"), 9, "1"),
        (EngineConfig(3, None, "cpu"), 3, "5"),
        (EngineConfig(40, None, "cpu"), 16, "1"),
        (EngineConfig(9, 2, "cpu"), 2, "8"),
        (EngineConfig(9, 20, "cpu"), 20, "1"),
        (EngineConfig(9, None, "cuda:1"), 1, None),
    ],
)
def test_on_a_cpu_the_cores_are_shared_out(machine, tmp_path, config, parallel, threads):
    engine = LocalProcesses(config)
    assert engine.parallel == parallel
    engine.start(spec(tmp_path, "a"))
    assert Process.made[0].environment.get("OMP_NUM_THREADS") == threads
    assert Process.made[0].environment.get("CUDA_VISIBLE_DEVICES") == os.environ.get("CUDA_VISIBLE_DEVICES")


def test_what_the_user_set_is_kept(machine, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    engine = LocalProcesses(EngineConfig(2, None, "cpu"))
    engine.start(spec(tmp_path, "a"))
    assert Process.made[0].environment["OMP_NUM_THREADS"] == "3"


def test_how_a_process_ended_is_told(machine, tmp_path):
    engine = LocalProcesses(EngineConfig(3, 3, "cpu"))
    for name, code in (("a", 0), ("b", 3), ("c", -9)):
        engine.start(spec(tmp_path, name))
        Process.made[-1].returncode = code
    ended = engine.ended()
    assert ended["a"] is None
    assert "exit code 3" in ended["b"]
    assert "SIGKILL" in ended["c"]
    assert "memory" in ended["c"]
    assert engine.ended() == {}


def test_stopping_asks_and_closing_kills(machine, tmp_path):
    engine = LocalProcesses(EngineConfig(1, None, "cpu"))
    engine.start(spec(tmp_path, "a"))
    engine.stop()
    engine.close()
    assert Process.made[0].signals == [signal.SIGTERM, signal.SIGKILL]


def test_a_worker_leaves_when_the_comparison_is_gone(tmp_path):
    run = {"name": "try", "output": str(tmp_path / "run"), "data": "digits", "student": "resnet8", "method": "ce"}
    job = {**spec(tmp_path, "a"), "directory": str(tmp_path), "status": str(tmp_path / "status"), "experiment": run}
    with RunFolder(tmp_path / "run").locked():  # for which the worker waits
        command = [sys.executable, "-m", "distail.compare.worker"]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
        worker.stdin.write(json.dumps(job) + "\n")
        worker.stdin.flush()
        while not Path(job["log"]).exists():
            time.sleep(0.1)
        assert worker.poll() is None
        worker.stdin.close()
        assert worker.wait(timeout=60) == -signal.SIGTERM


def test_a_job_is_plain_json(machine, tmp_path):
    engine = LocalProcesses(EngineConfig(1, None, "cpu"))
    engine.start({**spec(tmp_path, "a"), "experiment": {"name": "ü"}})
    assert json.loads(Process.made[0].stdin.getvalue())["experiment"] == {"name": "ü"}


NETWORKS = """
import os
from distail.models import create_model

def told(num_classes, **options):
    print("of process", os.getpid())
    return create_model("resnet8", num_classes=num_classes, **options)

def dies(**options):
    os._exit(3)
"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """Makes a job of a network's name."""
    (tmp_path / "networks.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)

    def make(name, student="networks:told"):
        experiment = {**CONFIG, "teacher": None, "student": student, "output": str(tmp_path / name)}
        status = str(tmp_path / f"{name}.json")
        log = str(tmp_path / f"{name}.log")
        return {"name": name, "directory": str(tmp_path), "experiment": experiment, "status": status, "log": log}

    return make


def ended(engine, spec, late=None):
    """How one job ends; `late` is asked to stop when it already has."""
    engine.start(spec)
    if late is not None:
        while read_status(Path(spec["status"])).get("state") != "finished":
            time.sleep(0.05)
        time.sleep(0.5)
        engine.stop(late)
    while not (found := engine.ended()):
        time.sleep(0.05)
    return found


@pytest.mark.integration
def test_a_process_runs_one_job_after_the_other_as_a_new_one_would(jobs, tmp_path):
    engine = LocalProcesses(EngineConfig(9, 1, "cpu"))
    try:
        assert ended(engine, jobs("a")) == {"a": None}
        assert ended(engine, jobs("dies", "networks:dies")) == {"dies": "its process ended with exit code 3"}
        assert ended(engine, jobs("b"), late="b") == {"b": None}
        assert ended(engine, jobs("missing", "networks:no")) == {"missing": None}
        assert ended(engine, jobs("c")) == {"c": None}
        long = jobs("long")
        long["experiment"]["training"] = {**CONFIG["training"], "epochs": 1000}
        engine.start(long)
        engine.stop("long")  # while the process still cleans up after the job before
        while not (found := engine.ended()):
            time.sleep(0.05)
        assert found.keys() == {"long"}
        assert not (tmp_path / "long" / "result.json").exists()
    finally:
        engine.close()
    assert "no" in read_status(tmp_path / "missing.json")["problem"]
    processes, students = {}, {}
    for name in "abc":
        log = (tmp_path / f"{name}.log").read_text()
        assert read_status(tmp_path / f"{name}.json") == {"state": "finished"}
        assert {line.split(":")[0] for line in log.splitlines() if "epoch" in line} == {name}
        (processes[name],) = {line for line in log.splitlines() if "of process" in line}
        students[name] = (tmp_path / name / "student.safetensors").read_bytes()
    assert processes["a"] != processes["b"] == processes["c"]
    assert students["a"] == students["b"] == students["c"], "c was not the first in its process"
