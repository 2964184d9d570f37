"""Several things tried, so that a user is told at once of all that do not work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from distail.errors import ConfigError, DistailError, counted, listed

Made = TypeVar("Made")


class Problems:
    """What went wrong so far, each problem once.

    >>> problems = Problems()
    >>> problems.add("no logits")
    >>> problems.stop("x.npz cannot be audited")
    Traceback (most recent call last):
        ...
    distail.errors.ConfigError: x.npz cannot be audited: no logits
    """

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, *problems: str) -> None:
        """Take up what is new of these."""
        self.found += [problem for problem in dict.fromkeys(problems) if problem not in self.found]

    def attempt(self, make: Callable[[], Made], where: str = "") -> Made | None:
        """What `make` gives, or None and its problems more, each with `where` before it."""
        try:
            return make()
        except DistailError as error:
            self.add(*(f"{where}: {problem}" if where else problem for problem in error.problems))
            return None

    def stop(self, headline: str, kind: type[DistailError] = ConfigError) -> None:
        """Raise one error of all problems, if there are any."""
        if len(self.found) == 1:
            raise kind(f"{headline}: {self.found[0]}", self.found)
        if self.found:
            raise kind(listed(self.found, f"{headline}, {counted(len(self.found), 'problem')}:"), self.found)
