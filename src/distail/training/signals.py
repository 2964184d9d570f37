"""SIGINT, SIGTERM and SIGHUP as a polite request: finish the step, write a checkpoint, then leave."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Windows has no SIGHUP.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# Set for a process whose signals another one passes on, which may have reached it already: a second is no haste.
STARTED_BY_ANOTHER = "DISTAIL_STARTED_BY_ANOTHER"


class Interrupted(BaseException):
    """A run stopped on request: `signal_number` tells which, `saved` whether a checkpoint was written for it."""

    def __init__(self, signal_number: int, *, saved: bool = False) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number
        self.saved = saved


class StopRequest:
    """The first signal received, or None; whoever holds one asks, or lets the signal act `at_once`.

    Args:
        patient: no signal acts at once, not even a second one. Several processes stop together or not at all, and their
            launcher passes on the Ctrl-C that they have had already.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.signal_number: int | None = None
        self._patient = patient
        self._acts_at_once = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the block a signal raises `Interrupted` where it finds the work; so does one that came before."""
        before, self._acts_at_once = self._acts_at_once, not self._patient
        try:
            if self._acts_at_once and self.signal_number is not None:
                raise Interrupted(self.signal_number)
            yield
        finally:
            self._acts_at_once = before

    def receive(self, signal_number: int) -> None:
        """Take up a signal; a second one acts at once, or not at all."""
        again = self.signal_number is not None
        if again and (self._patient or STARTED_BY_ANOTHER in os.environ):
            return
        self.signal_number = signal_number
        if again or self._acts_at_once:
            raise Interrupted(signal_number)


@contextmanager
def stop_requests(*, patient: bool = False) -> Iterator[StopRequest]:
    """Within the block the first signal is noted instead of acted on; a second one acts at once, unless `patient`.

    A signal that the process was started to ignore (`nohup`, a shell's background job) stays ignored. Blocks nest: the
    inner one is asked; where it ends without an error although a signal came, the signal goes to the outer one. Python
    handles signals in the main thread: in any other nothing is noted.
    """
    request = StopRequest(patient=patient)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    process = os.getpid()

    def handle(signal_number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:
            request.receive(signal_number)
        elif signal_number == signal.SIGTERM:
            # A forked worker, which inherits the handler, is ended as ever; the other signals are for its parent.
            signal.signal(signal_number, signal.SIG_DFL)
            os.kill(os.getpid(), signal_number)

    heard = [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, handle) for number in heard}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if request.signal_number is not None:
        signal.raise_signal(request.signal_number)
