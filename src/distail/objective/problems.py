"""What is wrong with a method, collected so that all of it is told at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from distail.errors import MethodError, listed

Made = TypeVar("Made")


class Problems:
    """What went wrong so far.

    >>> problems = Problems()
    >>> problems.add("beta is 2")
    >>> problems.stop("bkd")
    Traceback (most recent call last):
        ...
    distail.errors.MethodError: bkd: beta is 2
    """

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, *problems: str) -> None:
        """Take up what is new of these."""
        self.found += [problem for problem in dict.fromkeys(problems) if problem not in self.found]

    def attempt(self, make: Callable[[], Made]) -> Made | None:
        """What `make` gives, or None and its problems more."""
        try:
            return make()
        except MethodError as error:
            self.add(*error.problems)
            return None

    def stop(self, where: str) -> None:
        """Raise one `MethodError` of all problems, if there are any."""
        if self.found:
            one = len(self.found) == 1
            raise MethodError(f"{where}: {self.found[0]}" if one else listed(self.found, f"{where}:"), self.found)
