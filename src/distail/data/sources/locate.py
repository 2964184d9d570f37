"""Where a data set without a ``root`` is looked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from distail.errors import DataError, listed


def usual_places(name: str) -> tuple[Path, ...]:
    """``$DISTAIL_DATA/<name>`` where that variable is set, then ``data/<name>`` below the working directory."""
    variable = os.environ.get("DISTAIL_DATA")
    return (*([Path(variable) / name] if variable else []), Path("data") / name)


def locate(
    name: str, root: Path | None, holds_data: Callable[[Path], bool], *, others: tuple[Path, ...] = (), hint: str
) -> Path:
    """The first place that holds the data set: ``root`` alone if it is given, else the usual places, then ``others``.

    Raises ``DataError`` naming every place looked at, the option ``data.root`` and the hint.
    """
    places = (root,) if root is not None else (*usual_places(name), *others)
    for place in places:
        if holds_data(place):
            return place
    looked_at = [f"{place} ({_state(place)})" for place in places]
    if root is None and not os.environ.get("DISTAIL_DATA"):
        looked_at.insert(0, f"$DISTAIL_DATA/{name} (the variable DISTAIL_DATA is not set)")
    advice = "Set data.root (or the variable DISTAIL_DATA) to where it is." if root is None else "Check data.root."
    raise DataError(f"{listed(looked_at, f'data set {name!r} was not found. Looked at:')}\n{advice} {hint}")


def _state(place: Path) -> str:
    if not place.exists():
        return "does not exist"
    return "is a file" if place.is_file() else "holds none of the expected files"
