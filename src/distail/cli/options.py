"""Options that several verbs share."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distail.import_path import NO_CODE

if TYPE_CHECKING:
    from rich.console import Console


def _refuse_code(no_code: bool) -> None:
    if no_code:
        os.environ[NO_CODE] = "1"  # which the processes of a comparison inherit


NoCode = Annotated[
    bool,
    typer.Option("--no-code", callback=_refuse_code, help="Refuse networks named package.module:function."),
]


Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file; its `method` is ignored.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value ...]", help="Override config keys, e.g. training.epochs=30.")
]
EngineName = Annotated[str, typer.Option(help="local: processes on this machine; ray: a Ray cluster.")]
Parallel = Annotated[
    int | None, typer.Option(metavar="N", help="Concurrent runs.  [default: one per GPU, else per core]")
]
"""Of the verbs that start many runs: compare and search."""


def make_console() -> Console:
    """Where the verbs print what they found."""
    from distail.terminal import PrintableConsole

    # Where no one looks at columns, in a pipe or a file, a sentence is one line.
    return PrintableConsole(soft_wrap=not sys.stdout.isatty())
