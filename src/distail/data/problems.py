"""Long lists of problems, cut to what a reader can use."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 10


def first_of(problems: Sequence[str]) -> list[str]:
    """The first ten, then how many more.

    >>> first_of([str(n) for n in range(12)])[-2:]
    ['9', '... and 2 more']
    """
    more = len(problems) - SHOWN
    return [*problems[:SHOWN], *([f"... and {more} more"] if more > 0 else [])]
