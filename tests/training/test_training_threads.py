"""Threads: as many as cores are free, those that a user asks for, and the same when a run goes on."""

import psutil
import pytest
import torch
import yaml

import distail
from distail.torch_utils import usable_cores
from distail.training import threads as module
from distail.training.progress import Silent
from distail.training.threads import free_threads, thread_count, threads


@pytest.fixture
def four_cores(monkeypatch):
    """A machine of four cores, of which each is as busy as asked for."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(module, "usable_cores", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)

    def busy(*percent: float) -> None:
        monkeypatch.setattr(psutil, "cpu_percent", lambda interval, percpu: list(percent))

    return busy


def test_an_idle_machine_gives_all_without_a_word(four_cores):
    four_cores(3.0, 0.0, 8.0, 1.0)
    assert thread_count("auto") == (4, None)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 1),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu.max": "900000 100000\n"}, 4),
        ({"cpu.max": "max 100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu.max": "garbage"}, 4),
        ({}, 4),
    ],
)
def test_the_quota_of_a_container_bounds_the_cores(tmp_path, four_cores, files, cores):
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize(("percent", "count"), [((0, 0, 0, 0), 2), ((95, 90, 0, 0), 2), ((95, 90, 95, 0), 1)])
def test_with_a_quota_others_may_have_the_cores_beyond_it(four_cores, monkeypatch, percent, count):
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    four_cores(*percent)
    found, remark = thread_count("auto")
    assert found == count
    assert (remark is None) == (count == 2)


@pytest.mark.parametrize(("percent", "count"), [((100, 0, 0, 0), 3), ((95, 90, 80, 0), 1), ((100, 100, 100, 100), 1)])
def test_a_busy_one_gives_what_is_left_and_says_so(four_cores, percent, count):
    four_cores(*percent)
    found, remark = thread_count("auto")
    assert found == count
    assert remark is not None
    assert f"{sum(percent) / 100:.1f} of 4 cores" in remark


def test_who_asks_for_a_number_gets_it(four_cores, monkeypatch):
    four_cores(100, 100, 100, 100)
    assert thread_count(4) == (4, None)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert thread_count("auto") == (4, None)


def test_there_is_always_one():
    assert free_threads(2, 9.0) == 1


def test_they_are_put_back():
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


class Broken(Silent):
    def epoch(self, row, epochs):
        raise RuntimeError("the machine is gone")


@pytest.mark.integration
def test_a_run_that_goes_on_keeps_its_number(tmp_path, four_cores):
    quick = {"name": "quick", "data": "digits", "student": "resnet8", "method": "ce", "output": str(tmp_path / "run")}
    quick |= {"training": {"epochs": 1, "batch_size": 512}, "trainer": {"device": "cpu", "trackers": []}}
    four_cores(0, 0, 90, 90)
    with pytest.raises(RuntimeError, match="gone"):
        distail.run(quick, reporter=Broken())
    four_cores(0, 0, 0, 0)
    distail.run(quick)
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["trainer"]["threads"] == 2
    with pytest.raises(RuntimeError, match="gone"):
        distail.run({**quick, "output": str(tmp_path / "other"), "trainer": {"threads": 3}}, reporter=Broken())
    assert yaml.safe_load((tmp_path / "other" / "config.yaml").read_text())["trainer"]["threads"] == 3
