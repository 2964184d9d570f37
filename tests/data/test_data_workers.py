"""Work done by other processes: in order, within bounds, and clear words where one of them dies."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
import torch

from distail.data.workers import Workers
from distail.errors import TrainingError


def squared(number: int) -> int:
    return number**2


def whose(number: int) -> tuple[int, int]:
    return number, os.getpid()


def slow(number: int) -> int:
    time.sleep(0.02)
    return number


def failing(number: int) -> int:
    raise ValueError("a mistake of ours")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_results_come_in_order(count: int) -> None:
    workers = Workers(squared, count)
    for length in (0, 1, 20):
        assert list(workers.results(range(length))) == [number**2 for number in range(length)]
    workers.close()


def test_processes_stay_from_pass_to_pass_and_end_when_closed() -> None:
    workers = Workers(whose, 2)
    first, second = ({process for _, process in workers.results(range(10))} for _ in range(2))
    assert len(first) == 2
    assert first == second
    assert os.getpid() not in first
    workers.close()
    assert wait_for(lambda: not multiprocessing.active_children())


def test_a_pass_that_is_given_up_leaves_nothing_behind() -> None:
    workers = Workers(squared, 2)
    given_up = workers.results(range(100))
    assert [next(given_up) for _ in range(3)] == [0, 1, 4]
    assert list(workers.results([7, 8])) == [49, 64]
    with pytest.raises(AssertionError, match="another pass"):
        next(given_up)
    workers.close()


@pytest.mark.parametrize(("count", "ahead"), [(1, 2), (2, 2), (2, 5), (0, 2)])
def test_no_more_is_begun_than_was_agreed(count: int, ahead: int) -> None:
    begun = 0

    def tasks() -> Iterator[int]:
        nonlocal begun
        for number in range(100):
            begun += 1
            yield number

    workers = Workers(slow, count, ahead=ahead)
    for done in workers.results(tasks()):
        # Those asked for, those under way, and the one that follows the last one handed over.
        assert begun <= done + 1 + max(1, count * ahead)
        if done == 20:
            break
    workers.close()


def test_callers_random_numbers_and_signals_stay_as_they_were() -> None:
    def handler(*_: object) -> None: ...

    before = signal.signal(signal.SIGCHLD, handler)
    try:
        torch.manual_seed(3)
        expected = torch.rand(4)
        torch.manual_seed(3)
        workers = Workers(squared, 1)
        list(workers.results(range(4)))
        assert torch.equal(torch.rand(4), expected)
        assert signal.getsignal(signal.SIGCHLD) is handler
        workers.close()
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_what_is_inherited_does_not_need_to_be_importable() -> None:
    captured = 5
    workers: Workers[int, int] = Workers(lambda number: number + captured, 1)
    if sys.platform == "linux":
        assert list(workers.results([1, 2])) == [6, 7]
    workers.close()


def test_the_end_of_a_process_is_told_where_its_work_is_waited_for() -> None:
    workers = Workers(slow, 2)
    results = workers.results(range(1000))
    next(results)
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGKILL)
    # No handler of a signal raises here, in the middle of what else is done.
    time.sleep(0.2)
    with pytest.raises(TrainingError) as error:
        list(results)
    message = str(error.value)
    assert "a process that decodes images has ended (DataLoader worker" in message
    assert "Lower data.workers (now 2)" in message
    assert "Traceback" not in message
    workers.close()


def test_mistakes_in_a_process_are_not_hidden() -> None:
    workers = Workers(failing, 1)
    with pytest.raises(ValueError, match="a mistake of ours"):
        list(workers.results([1]))
    workers.close()
    gc.collect()  # the error's traceback holds torch's own iterator, and that the process, which others would find
    assert wait_for(lambda: not multiprocessing.active_children())


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_processes_end_with_their_parent_however_it_ends() -> None:
    script = """
        import multiprocessing, time
        from distail.data.workers import Workers
        workers = Workers(str.upper, 2)
        results = workers.results(["a"] * 100)
        next(results)
        print(*(process.pid for process in multiprocessing.active_children()), flush=True)
        time.sleep(60)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert len(children) == 2
    # A signal from the terminal, which goes to the whole group, is for the parent alone to answer.
    assert wait_for(lambda: all(os.getpgid(child.pid) != os.getpgid(parent.pid) for child in children))
    parent.kill()
    parent.wait()
    assert wait_for(lambda: not any(alive(child) for child in children), seconds=20)


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
