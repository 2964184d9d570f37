"""`distail compare` as a user meets it: processes, signals, kills, and a Ray cluster of one machine."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

import distail
from distail.training.progress import Silent
from helpers import commands
from helpers.comparison_cases import CONFIG

pytestmark = pytest.mark.integration

DISTAIL = [sys.executable, "-m", "distail"]


@pytest.fixture
def workplace(tmp_path):
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def compare(folder, *arguments):
    return commands.distail("compare", "quick.yaml", *arguments, cwd=folder)


def content(folder, name="quick"):
    return json.loads((folder / "comparisons" / name / "comparison.json").read_text())


def checkpoints(folder, run):
    return list((folder / "comparisons/quick/runs" / run / "checkpoints/student").glob("step-*.safetensors"))


def wait_for(condition, process, seconds=240):
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.01)


def start(folder, *arguments):
    command = [*DISTAIL, "compare", "quick.yaml", *arguments]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


@pytest.mark.slow
def test_kill_9_keeps_what_is_finished_and_the_same_command_ends_with_the_same_student(workplace):
    long = ("training.epochs=3", "training.batch_size=64", "trainer.checkpoint_every_steps=4")
    arguments = (*long, "teacher.training.epochs=1", "--methods", "kd", "--seeds", "0")
    killed = start(workplace, *arguments)
    wait_for(lambda: len(checkpoints(workplace, "kd-seed0")) > 0, killed)
    killed.kill()
    killed.wait()
    assert content(workplace)["teacher_runs"][0]["state"] == "finished"
    teacher = workplace / "comparisons/quick/teachers/ce-seed0/result.json"
    written = teacher.stat().st_mtime_ns
    resumed = compare(workplace, *arguments)
    assert resumed.returncode == 0, resumed.stderr
    assert "teacher-ce-seed0: started" not in resumed.stderr
    assert teacher.stat().st_mtime_ns == written
    run = workplace / "comparisons/quick/runs/kd-seed0"
    assert "resuming after step" in (workplace / "comparisons/quick/logs/kd-seed0.log").read_text()
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["teacher"]["checkpoint"] = str(workplace / config["teacher"]["checkpoint"])
    distail.run({**config, "output": str(workplace / "whole")}, reporter=Silent())
    for name in ("student.safetensors", "predictions.safetensors"):
        assert (run / name).read_bytes() == (workplace / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_lets_every_run_write_a_checkpoint(workplace, number, code):
    process = start(
        workplace,
        "training.epochs=40",
        "--seeds",
        "0",
        "trainer.checkpoint_every_steps=10000",
        "--methods",
        "ce,wsld: ce",
        "--parallel",
        "2",
    )
    logs = [workplace / f"comparisons/quick/logs/{name}-seed0.log" for name in ("ce", "wsld")]
    wait_for(lambda: all(log.is_file() and "epoch 1/40" in log.read_text() for log in logs), process)
    process.send_signal(number)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert "Traceback" not in stderr
    for run in ("ce-seed0", "wsld-seed0"):
        assert checkpoints(workplace, run)
    assert {run["state"] for run in content(workplace)["runs"]} == {"missing"}


def test_bad_input_is_exit_code_2_before_any_work(workplace):
    bad = compare(workplace, "--methods", "bdk,kd: {name: kd, temperature: -1}", "--seeds", "0", "data.name=digit")
    assert bad.returncode == 2
    assert bad.stdout == ""
    for said in ("'bdk'", "'bkd'", "temperature", "'digit'", "'digits'", "3 problems"):
        assert said in bad.stderr
    assert not (workplace / "comparisons").exists()


def test_wrong_keys_are_told_together_with_wrong_options(workplace):
    bad = compare(workplace, "--methods", "a/b: kd", "--seeds", "x", "--engine", "lokal", "--parallel", "0", "sed=1")
    assert bad.returncode == 2
    for said in ("5 problems", "sed: ", "'seed'", "'a/b'", "--seeds", "'lokal'", "'local'", "--parallel"):
        assert said in bad.stderr.replace("\n", " ")


@pytest.mark.slow
def test_a_failed_run_is_exit_code_1(workplace):
    failed = compare(workplace, "--methods", "ce", "--seeds", "0", "training.learning_rate=1e30", "training.epochs=3")
    assert failed.returncode == 1
    assert "runs/ce-seed0" in failed.stderr
    assert "ce, seed 0, is failed" in failed.stdout
    assert "Traceback" not in failed.stderr


def test_data_that_are_not_there_end_it_at_once(workplace):
    arguments = ("--methods", "ce,a: ce", "--seeds", "0", "--parallel", "1")
    done = compare(workplace, *arguments, "data.name=cifar10", "data.root=nowhere")
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert "a-seed0: started" not in done.stderr
    assert [run["state"] for run in content(workplace)["runs"]] == ["failed", "missing"]


@pytest.mark.slow
def test_ray_gives_what_local_processes_give(workplace):
    pytest.importorskip("ray")
    arguments = ("--methods", "ce", "--seeds", "0")
    on_ray = compare(workplace, *arguments, "--engine", "ray", "--output", "comparisons/ray")
    assert on_ray.returncode == 0, on_ray.stderr
    local = compare(workplace, *arguments)
    assert local.returncode == 0, local.stderr
    figures = [content(workplace, name)["figures"] for name in ("ray", "quick")]
    assert figures[0] == figures[1]


def test_without_ray_the_extra_is_named(workplace):
    (workplace / "ray.py").write_text("raise ImportError('no ray here')")
    path = f"{workplace}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [*DISTAIL, "compare", "quick.yaml", "--methods", "ce", "--seeds", "0", "--engine", "ray"],
        cwd=workplace,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 2
    assert "pip install 'distail[ray]'" in done.stderr
