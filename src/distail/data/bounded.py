"""Reading what may stand for far more than its own size, such as an archive of zeros."""

from __future__ import annotations

from typing import Protocol


class TooLarge(OSError):
    """More bytes than were asked for; a reader's message says of what."""


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Bounded:
    """Another stream, of which no more than ``limit`` bytes are read; ``TooLarge`` where it has more.

    >>> import io
    >>> Bounded(io.BytesIO(b"abc"), 3).read()
    b'abc'
    >>> Bounded(io.BytesIO(b"abcd"), 3).read()
    Traceback (most recent call last):
        ...
    distail.data.bounded.TooLarge: more than 3 bytes
    """

    def __init__(self, stream: _Stream, limit: int) -> None:
        self._stream, self._limit, self._left = stream, limit, limit

    def read(self, size: int = -1) -> bytes:
        wanted = self._left + 1 if size < 0 else min(size, self._left + 1)
        data = self._stream.read(wanted)
        self._left -= len(data)
        if self._left < 0:
            raise TooLarge(f"more than {self._limit:,} bytes")
        return data
