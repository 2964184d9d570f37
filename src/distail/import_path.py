"""The user's own code by its import path, `package.module:name`: networks, entries of a method, data."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from distail.errors import DistailError, did_you_mean

NO_CODE = "DISTAIL_NO_CODE"
"""The variable of the environment with which no code is run that a configuration or a file of weights names."""


def import_callable(path: str, what: str, instead: str, error: type[DistailError]) -> Callable[..., Any]:
    """The function or class at `package.module:name`; modules in the current working directory can be imported.

    Args:
        what: what messages call it, such as "a model of your own".
        instead: what may be named where no code may be run.
        error: raised where there is nothing to call, or `DISTAIL_NO_CODE` is set.

    >>> import_callable("collections:Counter", "a counter of your own", "none", DistailError)
    <class 'collections.Counter'>
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise error(f"{what} is named package.module:function, got {path!r}")
    if os.environ.get(NO_CODE):
        raise error(
            f"{path!r} names code that would be run, which --no-code (or {NO_CODE}) refuses; expected a name of "
            f"{instead}"
        )
    with working_directory_importable():
        module = _import(module_name, path, what, error)
    found: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(found):
        choices = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        problem = "has no function" if found is None else "has something that cannot be called as"
        raise error(f"module {module_name!r} {problem} {name!r}. {did_you_mean(name, choices)}")
    return found


@contextmanager
def working_directory_importable() -> Iterator[None]:
    """For the time of the import: a search path that stays changed would change what others import later."""
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def where(error: BaseException) -> str:
    """Type, message and place of an error in code that distail did not write."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"


def _import(module_name: str, path: str, what: str, refuse: type[DistailError]) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise refuse(
                f"no module {error.name!r}, which {what}, {path!r}, names; looked in the current directory "
                f"{Path.cwd()} and among the installed packages"
            ) from error
        raise refuse(f"importing {module_name!r} failed with {where(error)}") from error
    except Exception as error:
        raise refuse(f"importing {module_name!r} failed with {where(error)}") from error
