"""Several things tried, so that a user is told at once of all that do not work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from distail.errors import ConfigError, DistailError, listed

Found = TypeVar("Found")


class Problems:
    """What went wrong so far.

    >>> problems = Problems()
    >>> problems.add("no logits")
    >>> problems.stop("x.npz cannot be audited")
    Traceback (most recent call last):
        ...
    distail.errors.ConfigError: x.npz cannot be audited: no logits
    """

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, problem: str) -> None:
        self.found.append(problem)

    def attempt(self, work: Callable[[], Found]) -> Found | None:
        """What `work` gives, or None and one problem more."""
        try:
            return work()
        except DistailError as error:
            self.add(str(error))
            return None

    def stop(self, headline: str) -> None:
        """Raise one `ConfigError` that lists all problems, if there are any."""
        if len(self.found) == 1:
            raise ConfigError(f"{headline}: {self.found[0]}")
        if self.found:
            raise ConfigError(listed(self.found, f"{headline}, {len(self.found)} problems:"))
