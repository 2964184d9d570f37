"""Image files without what is no pixel: a damaged profile, text or thumbnail must not cost an image that is good."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
# Chunks that decide what is seen, and the orientation.
_PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_WEBP_PIXELS = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"})


def without_metadata(data: bytes) -> bytes:
    """The same PNG, JPEG or WebP without comments, profiles and whatever else is no pixel; EXIF stays if it is whole.

    Other bytes come back as they are. Pixels are not touched: where they are damaged, they stay so.
    """
    if data.startswith(_PNG):
        return _PNG + b"".join(_png_chunks(data))
    if data.startswith(_JPEG):
        return b"".join(_jpeg_parts(data))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        chunks = b"".join(_webp_chunks(data))
        return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks
    return data


def _png_chunks(data: bytes) -> Iterator[bytes]:
    place = len(_PNG)
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        chunk = data[place : place + length + 12]
        kind, checksum = chunk[4:8], chunk[-4:]
        whole_exif = kind == b"eXIf" and struct.pack(">I", zlib.crc32(chunk[4:-4])) == checksum
        if kind in _PNG_PIXELS or whole_exif:
            yield chunk
        place += length + 12
    yield data[place:]


def _jpeg_parts(data: bytes) -> Iterator[bytes]:
    yield _JPEG
    place = 2
    # Segments of application data and comments; the rest, from the first table on, is kept as it is but for those.
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        marker, length = data[place + 1], struct.unpack_from(">H", data, place + 2)[0]
        segment = data[place : place + 2 + length]
        content = segment[4:]
        decides_color = (content.startswith(b"JFIF\0") and len(content) >= 14) or (
            content.startswith(b"Adobe") and len(content) >= 12
        )
        is_metadata = 0xE0 <= marker <= 0xEF or marker == 0xFE
        if not is_metadata or decides_color or content.startswith(b"Exif\0\0"):
            yield segment
        place += 2 + length
    yield data[place:]


def _webp_chunks(data: bytes) -> Iterator[bytes]:
    place = 12
    while place + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, place + 4)
        end = place + 8 + length + length % 2
        kind = data[place : place + 4]
        if kind in _WEBP_PIXELS or (kind == b"EXIF" and end <= len(data)):
            yield data[place:end]
        place = end
