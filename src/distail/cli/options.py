"""Options that several verbs share."""

from __future__ import annotations

import os
from typing import Annotated

import typer


def _refuse_code(no_code: bool) -> None:
    if no_code:
        os.environ["DISTAIL_NO_CODE"] = "1"  # which the processes of a comparison inherit


NoCode = Annotated[
    bool,
    typer.Option("--no-code", callback=_refuse_code, help="Refuse networks named package.module:function."),
]
