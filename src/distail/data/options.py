"""What a user may ask of every source."""

from __future__ import annotations

from dataclasses import dataclass

from distail.errors import DataError, unknown_name

STREAM = ("auto", "always", "never")

LARGEST = 4096


@dataclass(frozen=True)
class SourceOptions:
    """``image_size``: None keeps the size found; n resizes the shorter side and cuts the centre to n x n.

    ``skip_unreadable`` leaves images out that cannot be read, and lists them, instead of stopping. ``progress`` shows a
    bar on a terminal. ``stream``, ``memory_limit_mb`` and ``workers`` decide how image files are held
    (``distail.data.streaming``), which changes nothing of what is learnt. ``allow_outside_root`` lets a manifest name
    images outside its folder. Raises ``DataError`` for an ``image_size`` that is not a whole number from 1 to 4,096,
    and for an unknown ``stream``.
    """

    image_size: int | None = None
    skip_unreadable: bool = False
    progress: bool = True
    stream: str = "auto"
    memory_limit_mb: int | None = None
    workers: int | None = None
    allow_outside_root: bool = False

    def __post_init__(self) -> None:
        if self.stream not in STREAM:
            raise DataError(unknown_name("way to hold images", self.stream, STREAM))
        size = self.image_size
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= LARGEST):
            raise DataError(
                f"image_size is {size!r}; expected a whole number from 1 to {LARGEST}, or nothing to keep the size"
            )

    def identity(self) -> tuple[object, ...]:
        """What of this changes the decoded images."""
        return self.image_size, self.skip_unreadable
