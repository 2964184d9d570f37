from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distail.config.schema import Data
from distail.data.decode import EncodedImage, decode_all, findings_notes, progress_bar
from distail.errors import DataError, TrainingError
from helpers.sources import load

OPTIONS = Data(name="any")


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def random_pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def item(name: str, data: bytes) -> EncodedImage:
    return EncodedImage(name, lambda: data)


def failing(error: Exception) -> Callable[[], bytes]:
    def read() -> bytes:
        raise error

    return read


# 200 x 200 random pixels are large enough to be decoded by several threads.
@pytest.mark.parametrize(("count", "side"), [(1, 5), (150, 5), (140, 60)])
def test_images_keep_their_order(count: int, side: int) -> None:
    pixels = [random_pixels(seed, side, side, 3) for seed in range(count)]
    decoded = decode_all([item(str(row), png(image)) for row, image in enumerate(pixels)], OPTIONS)
    assert decoded.images.shape == (count, 3, side, side)
    assert decoded.images.is_contiguous()
    assert decoded.rows.tolist() == list(range(count))
    assert torch.equal(decoded.images, torch.from_numpy(np.stack(pixels).transpose(0, 3, 1, 2)))


def test_memory_that_is_short_is_no_fault_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [item(name, png(random_pixels(0, 4, 4))) for name in "ab"]
    monkeypatch.setattr(Image, "open", lambda *arguments, **options: failing(MemoryError())())
    with pytest.raises(MemoryError):
        decode_all(images, Data(name="any", skip_unreadable=True))


def test_a_log_is_not_silent_while_images_are_decoded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = iter(range(0, 10_000, 12))
    monkeypatch.setattr("time.monotonic", lambda: next(seconds))
    with progress_bar("Decoding images", 2_000) as advance:
        for _ in range(20):
            advance(100)
    said = capsys.readouterr().err.splitlines()
    assert 3 <= len(said) <= 10
    assert all(line.startswith("Decoding images: ") and line.endswith(" of 2,000") for line in said)
    monkeypatch.setenv("RANK", "1")
    with progress_bar("Decoding images", 2_000) as advance:
        for _ in range(19):
            advance(100)
    assert capsys.readouterr().err == ""


def test_all_gray_stays_gray_and_one_color_makes_all_rgb() -> None:
    gray = [item("g", png(random_pixels(seed, 4, 4))) for seed in range(3)]
    assert decode_all(gray, OPTIONS).images.shape == (3, 1, 4, 4)
    mixed = decode_all([*gray, item("c", png(random_pixels(9, 4, 4, 3)))], OPTIONS).images
    assert mixed.shape == (4, 3, 4, 4)
    assert torch.equal(mixed[0, 0], torch.from_numpy(random_pixels(0, 4, 4)))
    assert torch.equal(mixed[0, 0], mixed[0, 2])


def test_every_unreadable_image_is_listed() -> None:
    whole = png(random_pixels(0, 20, 20, 3))
    images = [
        item("fine.png", whole),
        item("empty.png", b""),
        item("cut.png", whole[:-200]),
        item("words.png", b"hello"),
        EncodedImage("gone.png", failing(FileNotFoundError(2, "No such file or directory"))),
    ]
    with pytest.raises(DataError) as error:
        decode_all(images, OPTIONS)
    message = str(error.value)
    assert message.startswith("4 of 5 images cannot be read:")
    for part in ("empty.png: the file is empty", "cut.png: ", "words.png: not an image", "gone.png: No such file"):
        assert part in message
    assert "data.skip_unreadable: true" in message


def test_a_long_list_is_cut_after_ten() -> None:
    images = [item(f"{row}.png", b"") for row in range(13)] + [item("fine.png", png(random_pixels(0, 2, 2)))]
    with pytest.raises(DataError) as error:
        decode_all(images, OPTIONS)
    lines = str(error.value).splitlines()
    assert lines[0].startswith("13 of 14")
    assert lines[10].startswith("  - 9.png")
    assert lines[11] == "  - ... and 3 more"


def test_unreadable_images_are_skipped_if_asked() -> None:
    images = [
        item("a", b""),
        item("b", png(random_pixels(0, 2, 2))),
        item("c", b"x"),
        item("d", png(random_pixels(1, 2, 2))),
    ]
    decoded = decode_all(images, Data(name="any", skip_unreadable=True))
    assert decoded.rows.tolist() == [1, 3]
    assert len(decoded.images) == 2
    assert [problem[:2] for problem in decoded.skipped] == ["a:", "c:"]


def test_skipping_everything_is_an_error() -> None:
    with pytest.raises(DataError, match="2 of 2 images cannot be read"):
        decode_all([item("a", b""), item("b", b"")], Data(name="any", skip_unreadable=True))


def test_different_sizes_name_the_option() -> None:
    shapes = [(4, 4), (4, 4), (4, 6), (7, 4)]
    images = [item(str(row), png(random_pixels(row, *shape))) for row, shape in enumerate(shapes)]
    with pytest.raises(DataError) as error:
        decode_all(images, OPTIONS)
    for part in ("3 different sizes", "4x4: 2 images", "6x4: 1 images", "4x7: 1 images", "data.image_size"):
        assert part in str(error.value)
    assert decode_all(images, Data(name="any", image_size=5)).images.shape == (4, 1, 5, 5)


def test_no_bar_where_nobody_can_see_it(capfd: pytest.CaptureFixture[str]) -> None:
    decode_all([item("a", png(random_pixels(0, 2, 2)))], OPTIONS)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_the_bar_is_on_standard_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    decode_all([item("a", png(random_pixels(0, 2, 2)))], OPTIONS)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Decoding images" in captured.err


def test_only_the_main_process_shows_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("RANK", "1")
    decode_all([item("a", png(random_pixels(0, 2, 2)))], OPTIONS)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stream", ["never", "always"])
def test_twelve_bits_of_sixteen_are_told_by_the_largest_level_of_all_images(tmp_path: Path, stream: str) -> None:
    for name, white in (("a", 500), ("b", 3583)):
        for number in range(6):
            (tmp_path / name).mkdir(exist_ok=True)
            levels = np.full((4, 4), white - number, dtype=np.uint16)
            Image.fromarray(levels).save(tmp_path / name / f"{number}.tif")
    for _ in range(2):  # the second time from the cache
        (note,) = [note for note in load("folder", tmp_path, stream=stream, workers=0).notes if "16 bits" in note]
        assert "12 gray images" in note
        assert "3583" in note
        assert "data.bit_depth: 12" in note
    source = load("folder", tmp_path, stream=stream, workers=0, bit_depth=12)
    assert not [note for note in source.notes if "16 bits" in note]
    sums, _ = source.train.level_sums()
    assert sums.item() > 16 * 4 * 220


def test_what_is_told_of_findings() -> None:
    assert findings_notes([(0, 0, 0, 0), (40_000, 0, 0, 0), (4095, 0, 0, 0)], None) == ()
    assert findings_notes([(4095, 0, 0, 0)], 12) == ()
    (color,) = findings_notes([(0, 15, 0, 0), (0, 3, 0, 0)], None)
    assert "2 images" in color
    assert "15 of 255" in color
    over_white, dropped = findings_notes([(0, 0, 1, 0), (0, 0, 0, 1)], None)
    assert "laid over white" in over_white
    assert "ignored" in dropped


@pytest.mark.parametrize("stream", ["never", "always"])
def test_too_many_open_files_are_no_fault_of_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    for name in (f"{folder}/{number}.png" for folder in "ab" for number in range(5)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(random_pixels(0, 4, 4)))

    def read(path: Path) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    monkeypatch.setattr(Path, "read_bytes", read)
    with pytest.raises((DataError, TrainingError), match=r"(?i)too many open files.*ulimit -n"):
        load("folder", tmp_path, stream=stream, workers=0, skip_unreadable=True)
