"""SIGKILL at any moment, any number of times: the same command ends with the same files, byte for byte."""

import random
import signal

import pytest

from helpers.killing import KillServer, assert_same_run, experiment

pytestmark = pytest.mark.integration

CASES = {
    "krdistill-cached": experiment(
        method="krdistill", teacher={"model": "same", "views": 2, "training": {"epochs": 2}}
    ),
    "ipwd": experiment(method="ipwd"),
    "ipwd-one-stage": experiment(method="ipwd", teacher="previous_epoch"),
    "krdistill": experiment(method="krdistill"),
    "bkd-cached-in-a-file": experiment(
        method="bkd",
        teacher={"model": "same", "views": 2, "training": {"epochs": 1}},
        trainer={"device": "cpu", "checkpoint_every_steps": 5, "cache_limit_mb": 0},
    ),
}


@pytest.fixture(scope="module")
def server():
    server = KillServer(CASES["krdistill-cached"])
    yield server
    server.close()


def whole_run(server, case, folder):
    """The run that nobody disturbed, and how many events it had."""
    answer = server.run(case, folder)
    assert answer["status"] == 0
    return answer["events"]


def finish(server, case, folder):
    assert server.run(case, folder)["status"] == 0


def test_a_run_killed_in_every_stage_ends_with_the_same_files(server, tmp_path):
    case = CASES["krdistill-cached"]
    events = whole_run(server, case, tmp_path / "whole")
    kills = 0
    for share in (0.02, 0.3, 0.45, 0.5, 0.6, 0.8, 0.97, 1.0):
        # Each start goes on where the one before was killed, so that ever later stages are reached.
        answer = server.run(case, tmp_path / "killed", at=max(1, round(0.3 * share * events)))
        kills += answer["status"] == -signal.SIGKILL
        if answer["status"] == 0:
            break
    assert kills >= 4
    finish(server, case, tmp_path / "killed")
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_kill_before_any_event_ends_with_the_same_files(server, tmp_path, name):
    """Every third event, another third for each case."""
    case = CASES[name]
    events = whole_run(server, case, tmp_path / "whole")
    for at in range(1 + list(CASES).index(name) % 3, events + 1, 3):
        folder = tmp_path / f"killed-{at}"
        assert server.run(case, folder, at=at)["status"] == -signal.SIGKILL
        finish(server, case, folder)
        assert_same_run(folder, tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(6))
def test_many_kills_one_after_another_end_with_the_same_files(server, tmp_path, name, seed):
    case, draw = CASES[name], random.Random(seed)
    events = whole_run(server, case, tmp_path / "whole")
    kills = 0
    while True:
        kill = {"at": draw.randint(1, events // 2)} if seed % 2 else {"after": draw.uniform(0, 0.8)}
        answer = server.run(case, tmp_path / "killed", **kill)
        if answer["status"] == 0:
            break
        assert answer["status"] == -signal.SIGKILL
        kills += 1
        assert kills < 500
    assert kills >= 2
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
