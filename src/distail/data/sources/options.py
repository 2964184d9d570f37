"""What a user may ask of every source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SourceOptions:
    """``image_size``: None keeps the size found; n resizes the shorter side and cuts the centre to n x n.

    ``skip_unreadable`` leaves images out that cannot be read, and lists them, instead of stopping. ``progress`` shows a
    bar on a terminal.
    """

    image_size: int | None = None
    skip_unreadable: bool = False
    progress: bool = True
