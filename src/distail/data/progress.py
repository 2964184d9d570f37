"""A progress bar on standard error, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(task: str, total: int, *, show: bool) -> Iterator[Callable[[int], None]]:
    """A function that takes how many more are done; it does nothing where no bar is wanted or nobody could see it.

    >>> with progress_bar("Decoding images", 2, show=False) as advance:
    ...     advance(2)
    """
    if not (show and sys.stderr.isatty()):
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        number = bar.add_task(task, total=total)
        yield lambda count: bar.advance(number, count)
