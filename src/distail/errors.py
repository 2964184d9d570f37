"""What users are told: one exception type per kind of mistake, each naming the nearest valid choice."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Made = TypeVar("Made")
_SHOWN_PROBLEMS = 10


class DistailError(ValueError):
    """Base of everything a user can put right; the command line prints it without a traceback (exit code 2).

    Attributes:
        problems: what is wrong, one sentence each, where the message lists several things.
    """

    def __init__(self, message: str = "", problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems) or (message,)


class ConfigError(DistailError):
    """An experiment that cannot be run as it is written."""


class DataError(DistailError):
    """Images, labels, folders or files that cannot be used."""


class ModelError(DistailError):
    """A network that is unknown, or does not fit the data or a checkpoint."""


class MethodError(DistailError):
    """A method, slot entry or parameter that is unknown, or inputs that do not fit it."""


class CheckpointError(DistailError):
    """A stored file that is damaged or belongs to something else."""


class TrainingError(RuntimeError):
    """Training had to stop although the input was valid, such as a loss that is not finite (exit code 1)."""


class IncompleteError(RuntimeError):
    """What was asked for was done, but only in part, or not well enough.

    Attributes:
        exit_code: what the command line ends with.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """A sentence that names the nearest valid choice and then all of them.

    >>> did_you_mean("bdk", ["kd", "bkd", "drkd"])
    "Did you mean 'bkd'? Valid: bkd, drkd, kd."
    >>> did_you_mean("resnet9", ["resnext29", "resnet8"])
    "Did you mean 'resnet8'? Valid: resnet8, resnext29."
    >>> did_you_mean("balanced", ["instance", "class_balanced"])
    "Did you mean 'class_balanced'? Valid: class_balanced, instance."
    >>> did_you_mean("zzz", ["b", "a"])
    'Valid: a, b.'
    >>> did_you_mean("zzz", [])
    'There is none to choose from.'
    """
    valid, words = sorted(choices), set(str(name).split("_"))
    if not valid:
        return "There is none to choose from."
    near = [choice for choice in valid if words <= set(choice.split("_"))]
    near = near or difflib.get_close_matches(str(name), valid, n=5, cutoff=0.5)
    hint = f"Did you mean {min(near, key=lambda choice: _distance(str(name), choice))!r}? " if near else ""
    return f"{hint}Valid: {', '.join(valid)}."


def _distance(name: str, choice: str) -> tuple[int, bool]:
    # People rarely get the first letter wrong: it decides where as many edits lead to several names.
    return _edits(name, choice), choice[:1] != name[:1]


def _edits(name: str, choice: str) -> int:
    """Letters to insert, drop, replace or swap with their neighbor.

    >>> [_edits("resnet9", choice) for choice in ("resnet8", "resnext29")], _edits("bdk", "bkd")
    ([1, 2], 1)
    """
    before, row = [0] * (len(choice) + 1), list(range(len(choice) + 1))
    for i, letter in enumerate(name):
        last, before, row = before, row, [i + 1]
        for j, other in enumerate(choice):
            edits = min(before[j] + (letter != other), before[j + 1] + 1, row[j] + 1)
            if i and j and letter == choice[j - 1] and name[i - 1] == other:
                edits = min(edits, last[j - 1] + 1)
            row.append(edits)
    return row[-1]


def unknown_name(kind: str, name: object, choices: Iterable[str]) -> str:
    """The message for a name that is not in a table.

    >>> unknown_name("method", "bdk", ["kd", "bkd"])
    "unknown method 'bdk'. Did you mean 'bkd'? Valid: bkd, kd."
    """
    return f"unknown {kind} {name!r}. {did_you_mean(str(name), choices)}"


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "problem"), counted(2, "problem")
    ('1 problem', '2 problems')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def problems_in(where: str, problems: Sequence[str]) -> str:
    """All problems of one thing as one message, which counts them.

    >>> print(problems_in("mine.yaml", ["seed: expected a number, not true"]))
    1 problem in mine.yaml:
      - seed: expected a number, not true
    """
    return listed(problems, f"{counted(len(problems), 'problem')} in {where}:")


def listed(problems: Iterable[str], headline: str) -> str:
    """Several problems as one message, one line each; the further lines of one are indented more.

    >>> print(listed(["a is missing", "b cannot be read:\\n  - line 2"], "2 problems in x.yaml:"))
    2 problems in x.yaml:
      - a is missing
      - b cannot be read:
          - line 2
    """
    return "\n".join([headline, *("  - " + problem.replace("\n", "\n    ") for problem in problems)])


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


def first_of(problems: Sequence[str]) -> list[str]:
    """The first ten, then how many more.

    >>> first_of([str(n) for n in range(12)])[-2:]
    ['9', '... and 2 more']
    """
    more = len(problems) - _SHOWN_PROBLEMS
    return [*problems[:_SHOWN_PROBLEMS], *([f"... and {more} more"] if more > 0 else [])]


def enumerated(names: Sequence[str]) -> str:
    """All of them in one line.

    >>> enumerated(["a"]), enumerated(["a", "b"]), enumerated(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def some_of(names: Sequence[object], most: int = 8) -> str:
    """The first few in one line, then how many more.

    >>> some_of(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = len(names) - most
    return ", ".join(str(name) for name in names[:most]) + (f" and {more} more" if more > 0 else "")
