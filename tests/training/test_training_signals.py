"""Signals: noted, acted on at once where asked, ignored where the process was started to ignore them."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from distail.training.signals import SIGNALS, STARTED_BY_ANOTHER, Interrupted, StopRequest, stop_requests


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_a_second_acts(number):
    def work():
        with stop_requests() as request:
            send(number)
            assert request.signal_number == number
            send(number)
            raise AssertionError("the second did not act")

    with pytest.raises(Interrupted) as caught:
        work()
    assert caught.value.signal_number == number


def test_a_signal_acts_at_once_where_it_is_asked_to_and_only_there():
    def work():
        with stop_requests() as request:
            with pytest.raises(Interrupted), request.at_once():
                send(signal.SIGTERM)
            assert request.signal_number == signal.SIGTERM
            with request.at_once():
                raise AssertionError("entered with a request pending")

    with pytest.raises(Interrupted):
        work()


def test_blocks_nest_and_handlers_are_put_back():
    def inner_work(outer):
        with stop_requests() as inner:
            send(signal.SIGINT)
            assert (inner.signal_number, outer.signal_number) == (signal.SIGINT, None)
            raise KeyError("how the work answers")

    def work():
        with stop_requests() as outer, outer.at_once():
            with pytest.raises(KeyError):
                inner_work(outer)
            send(signal.SIGINT)

    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(Interrupted):
        work()
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("patient", [False, True])
def test_a_signal_that_ended_nothing_acts_where_the_block_around_acts_at_once(patient):
    after = []

    def work():
        with stop_requests(patient=patient):
            send(signal.SIGHUP)
            after.append("the block")
        after.append("what comes after it")

    with pytest.raises(Interrupted) as caught, stop_requests() as outer, outer.at_once():
        work()
    assert (caught.value.signal_number, after) == (signal.SIGHUP, ["the block"])


def test_a_signal_that_ended_nothing_goes_to_the_handler_before():
    with pytest.raises(KeyboardInterrupt), stop_requests():
        send(signal.SIGINT)


def test_a_signal_that_has_ended_the_work_is_not_raised_again():
    with stop_requests() as outer:
        with pytest.raises(Interrupted), stop_requests() as inner, inner.at_once():
            send(signal.SIGTERM)
        assert outer.signal_number is None


def test_an_error_is_not_replaced_by_a_signal_that_came_with_it():
    def work():
        send(signal.SIGINT)
        raise ValueError("why")

    with pytest.raises(ValueError, match="why"), stop_requests():
        work()


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as request:
            send(signal.SIGHUP)
            assert request.signal_number is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_notes_nothing():
    handler, found = signal.getsignal(signal.SIGINT), []

    def work():
        with stop_requests() as request:
            found.append((request.signal_number, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(None, handler)]


def test_a_forked_worker_is_ended_by_sigterm_and_left_alone_by_a_terminal():
    code = """
import os, signal, sys, time
from distail.training.signals import stop_requests
with stop_requests():
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(7)
    time.sleep(0.2)
    os.kill(child, signal.SIGINT)
    time.sleep(0.2)
    assert os.waitpid(child, os.WNOHANG) == (0, 0), "SIGINT ended the worker"
    os.kill(child, signal.SIGTERM)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr


def test_a_signal_that_another_process_passed_on_again_is_no_haste(monkeypatch):
    """systemd sends SIGTERM to a comparison and to its runs; the comparison then sends it to them once more."""
    request = StopRequest()
    request.receive(signal.SIGTERM)
    with pytest.raises(Interrupted):
        request.receive(signal.SIGTERM)
    monkeypatch.setenv(STARTED_BY_ANOTHER, "1")
    request = StopRequest()
    request.receive(signal.SIGTERM)
    request.receive(signal.SIGTERM)
    assert request.signal_number == signal.SIGTERM
