"""Images whose pixels are good and whose metadata is not."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from distail.data.image_file import UnreadableImage
from distail.data.image_metadata import without_metadata
from helpers.decoded import decode_image

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 12, 3), np.uint8))
LONG_TEXT = zlib.compress(b"a" * 3_000_000)
# Of EXIF: the directory of one tag, Orientation, and its type, count and value.
TAG = b"II*\0\x08\0\0\0\x01\0\x12\x01"
EXIF = {
    "cut": b"II*\0",
    "junk": b"\xff" * 40,
    "text": TAG + b"\x02\0\x04\0\0\0abc\0\0\0\0\0",
    "no such orientation": TAG + b"\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0",
    "a fraction by zero": TAG + b"\x05\0\x01\0\0\0\x1a" + bytes(15),
    "beyond the end": b"II*\0\xff\xff\xff\x7f",
}


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    IMAGE.save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return file.getvalue()


def chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    right = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", right if checksum is None else checksum)


def png(*chunks: bytes) -> bytes:
    whole = encoded("PNG")
    return whole[:33] + b"".join(chunks) + whole[33:]


def jpeg(marker: int, content: bytes) -> bytes:
    whole = encoded("JPEG")
    return whole[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + whole[2:]


def webp(kind: bytes, content: bytes, flags: int) -> bytes:
    size = struct.pack("<I", 11)[:3] + struct.pack("<I", 15)[:3]
    extended = b"VP8X" + struct.pack("<I", 10) + bytes([flags, 0, 0, 0]) + size
    more = kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    body = extended + encoded("WEBP")[12:] + more
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def tiff(number: int, kind: int, count: int, value: int) -> bytes:
    whole = encoded("TIFF")
    (place,) = struct.unpack("<I", whole[4:8])
    (tags,) = struct.unpack("<H", whole[place : place + 2])
    entries = [whole[place + 2 + 12 * tag : place + 14 + 12 * tag] for tag in range(tags)]
    entries = sorted([*entries, struct.pack("<HHII", number, kind, count, value)], key=lambda entry: entry[1::-1])
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return whole[:4] + struct.pack("<I", len(whole)) + whole[8:] + directory


DAMAGED = {
    **{f"PNG eXIf {name}": png(chunk(b"eXIf", exif)) for name, exif in EXIF.items()},
    **{f"JPEG EXIF {name}": jpeg(0xE1, b"Exif\0\0" + exif) for name, exif in EXIF.items()},
    **{f"WEBP EXIF {name}": webp(b"EXIF", exif, 8) for name, exif in EXIF.items()},
    "PNG text with a wrong checksum": png(chunk(b"tEXt", b"a\0b", 1)),
    "PNG long text": png(chunk(b"zTXt", b"a\0\0" + LONG_TEXT)),
    "PNG long international text": png(chunk(b"iTXt", b"a\0\1\0\0\0" + LONG_TEXT)),
    "PNG unknown compression of a text": png(chunk(b"zTXt", b"a\0\7junk")),
    "PNG profile of unknown compression": png(chunk(b"iCCP", b"a\0\7junk")),
    "PNG long profile": png(chunk(b"iCCP", b"a\0\0" + LONG_TEXT)),
    "PNG empty profile": png(chunk(b"iCCP", b"")),
    "PNG short resolution": png(chunk(b"pHYs", b"ab")),
    "PNG short gamma": png(chunk(b"gAMA", b"a")),
    "PNG short chromaticities": png(chunk(b"cHRM", b"abc")),
    "PNG short animation": png(chunk(b"acTL", b"abc")),
    "PNG unknown chunk with a wrong checksum": png(chunk(b"prVw", b"abc", 7)),
    "PNG long text at the end": encoded("PNG")[:-12] + chunk(b"zTXt", b"a\0\0" + LONG_TEXT) + chunk(b"IEND", b""),
    "JPEG short profile": jpeg(0xE2, b"ICC_PROFILE\0"),
    "JPEG short JFIF": jpeg(0xE0, b"JFIF\0"),
    "JPEG short Adobe": jpeg(0xEE, b"Adobe"),
    "JPEG XMP": jpeg(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:\xff"),
    "JPEG Photoshop": jpeg(0xED, b"Photoshop 3.0\x008BIM\4\4\0\0\xff\xff\xff\xff"),
    "WEBP profile": webp(b"ICCP", b"\xff" * 11, 32),
    "WEBP XMP": webp(b"XMP ", b"\xff" * 11, 4),
    "WEBP EXIF cut off": webp(b"EXIF", b"abcd", 8)[:-8] + struct.pack("<I", 10**6) + b"abcd",
    "TIFF profile beyond the end": tiff(34675, 7, 100, 10**6),
    "TIFF XMP beyond the end": tiff(700, 1, 100, 10**6),
    "TIFF EXIF in a circle": tiff(34665, 4, 1, 8),
    "TIFF orientation as text": tiff(274, 2, 4, 0x41414141),
    "TIFF text of 2 GB": tiff(270, 2, 2**31, 8),
    "TIFF no such type": tiff(40000, 99, 1, 5),
}


@pytest.mark.parametrize("name", sorted(DAMAGED))
@pytest.mark.filterwarnings("ignore")
def test_the_pixels_are_those_of_the_same_image_without_it(name: str) -> None:
    expected = decode_image(encoded(name.split(" ")[0]))
    np.testing.assert_array_equal(decode_image(DAMAGED[name]), expected)
    np.testing.assert_array_equal(decode_image(DAMAGED[name], 8), decode_image(encoded(name.split(" ")[0]), 8))


def test_an_orientation_beside_damage_is_kept() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = exif.tobytes().removeprefix(b"Exif\0\0")
    expected = np.rot90(decode_image(encoded("PNG")), -1)
    np.testing.assert_array_equal(decode_image(png(chunk(b"eXIf", content), chunk(b"tEXt", b"a\0b", 1))), expected)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_pixels_that_are_damaged_stay_so(kind: str) -> None:
    whole = encoded(kind)
    with pytest.raises(UnreadableImage):
        decode_image(whole[: len(whole) // 2])
    assert without_metadata(b"") == b""


def test_damaged_png_pixels_are_not_repaired() -> None:
    whole = png(chunk(b"tEXt", b"a\0b", 1))
    place = whole.index(b"IDAT") + 20
    with pytest.raises(UnreadableImage):
        decode_image(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
