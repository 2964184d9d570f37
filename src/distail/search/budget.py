"""How long a search may go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What whole runs take here, in seconds by the clock, with as many beside them as there are.

    Attributes:
        teacher: 0 where it is loaded.
        student: of a trial that goes to its end, on average.
    """

    teacher: float
    student: float

    def comparison(self, seeds: int, methods: int, parallel: int) -> float:
        """What comparing that many methods over that many other seeds will take."""
        return seeds * (self.teacher + methods * self.student) / parallel


class Budget:
    """Minutes for everything, or a number of trials, or both: whichever is used up first.

    Args:
        minutes: for the search and the comparison after it; None: as long as the trials take.
        trials: how many; None: as many as there is time for.
        spent: seconds of earlier starts.
        used_up: whether an earlier start has used up this very budget.
        clock: seconds that only rise.

    >>> budget = Budget(minutes=10, trials=None, spent=500.0, clock=lambda: 0.0)
    >>> budget.has_room(5, Cost(30.0, 20.0), reserve=60.0), budget.has_room(5, Cost(30.0, 20.0), reserve=90.0)
    (True, False)
    """

    def __init__(
        self,
        minutes: float | None,
        trials: int | None,
        spent: float = 0.0,
        used_up: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.minutes, self.trials, self.used_up = minutes, trials, used_up
        self._spent, self._clock, self._began = spent, clock, clock()

    @property
    def seconds(self) -> float:
        """That have been spent."""
        return self._spent + self._clock() - self._began

    def has_room(self, begun: int, cost: Cost | None, reserve: float) -> bool:
        """Whether another trial may begin; once none may, none may ever, whatever later costs say.

        Args:
            begun: how many have.
            cost: None before it is known; then time does not count yet.
            reserve: seconds that must be left.
        """
        if self.trials is not None and begun >= self.trials:
            self.used_up = True
        if self.minutes is not None and cost is not None and self.seconds + cost.student + reserve > 60 * self.minutes:
            self.used_up = True
        return not self.used_up
