"""Where a data set is looked for, and what is said where it is not found."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TypeVar

from distail.config.schema import Data
from distail.errors import DataError, listed

Found = TypeVar("Found")


def expand_home(path: Path) -> Path:
    """The path with `~` replaced by the home folder.

    Raises:
        DataError: there is no home folder.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise DataError(f"{str(path)!r}: there is no such home folder; expected a full path") from None


def places_to_look(options: Data, others: Sequence[Path] = ()) -> tuple[Path, ...]:
    """`root` alone if given; else `$DISTAIL_DATA/<name>` where that is set, `data/<name>`, and `others`."""
    if options.root is not None:
        return (options.root,)
    variable = os.environ.get("DISTAIL_DATA")
    set_by_user = [expand_home(Path(variable)) / options.name] if variable else []
    return (*set_by_user, Path("data") / options.name, *others)


def locate(options: Data, find: Callable[[Path], Found | None], *, others: Sequence[Path] = (), hint: str) -> Found:
    """What `find` finds in the first place where it finds anything.

    Raises:
        DataError: naming every place looked at, the option `data.root` and the hint.
    """
    places = places_to_look(options, others)
    for place in places:
        found = find(place)
        if found is not None:
            return found
    raise not_found(options, places, hint)


def not_found(options: Data, places: Sequence[Path], hint: str) -> DataError:
    """The error for a data set that is in none of the places."""
    looked_at = [f"{place} ({_state(place)})" for place in places]
    if options.root is None and not os.environ.get("DISTAIL_DATA"):
        looked_at.insert(0, f"$DISTAIL_DATA/{options.name} (the variable DISTAIL_DATA is not set)")
    advice = "Set data.root to where it is." if options.root is None else "Check data.root."
    return DataError(f"{listed(looked_at, f'data set {options.name!r} was not found. Looked at:')}\n{advice} {hint}")


def way_out(path: str, folder: str) -> str | None:
    """How a path that should lie in a folder leaves it, by its words alone; None where it does not.

    >>> way_out("a/../../b.png", "data.root"), way_out("a/b.png", "data.root")
    ('leaves data.root by ..', None)
    """
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).drive:
        return f"is absolute; paths are relative to {folder}"
    return f"leaves {folder} by .." if ".." in PurePosixPath(path).parts else None


def files_state(options: Data) -> str | None:
    """A hash of the names, sizes and times of all files of a data set; None where it has none, or they are gone."""
    place = next((place for place in map(expand_home, places_to_look(options)) if place.exists()), None)
    if place is None:
        return None
    folder = place.parent if place.is_file() else place
    digest = hashlib.sha256()
    given = (options.train, options.test, options.validation)
    lists = [expand_home(path) for path in given if isinstance(path, Path)]
    for path in [*sorted(folder.rglob("*")), *lists]:
        with suppress(OSError):  # a link that leads nowhere, a folder that may not be looked into
            state = path.stat()
            if stat.S_ISREG(state.st_mode):
                inside = path.is_relative_to(folder)
                name = str(path.relative_to(folder) if inside else path.name).encode("utf-8", "surrogateescape")
                digest.update(name + f"\0{state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _state(place: Path) -> str:
    if not place.exists():
        return "does not exist"
    return "is a file" if place.is_file() else "holds none of the expected files"
