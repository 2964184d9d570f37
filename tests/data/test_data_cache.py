from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from distail import file_lock
from distail.config.schema import Data
from distail.data.cache import cache_folder, cached, fingerprint
from distail.data.dataset import LabeledImages, Source
from distail.data.sources import load_source
from distail.errors import DataError
from distail.file_lock import lock_folder

MakeImages = Callable[..., LabeledImages]


class Decoding:
    """Counts how often a source is really made."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.times = 0

    def __call__(self) -> Source:
        self.times += 1
        return self.source


@pytest.fixture
def decoding(random_images: MakeImages) -> Decoding:
    return Decoding(Source(random_images(7), random_images(4), ("a", "ß", "c"), ("x.png: the file is empty",)))


def stored() -> list[Path]:
    return sorted(cache_folder().glob("[!.]*"))


def assert_same(one: Source, other: Source) -> None:
    assert torch.equal(one.train.images, other.train.images)
    assert torch.equal(one.train.labels, other.train.labels)
    assert torch.equal(one.test.images, other.test.images)
    assert torch.equal(one.test.labels, other.test.labels)
    assert (one.class_names, one.skipped) == (other.class_names, other.skipped)


def test_the_second_time_comes_from_the_cache(decoding: Decoding) -> None:
    for _ in range(3):
        assert_same(cached("name", "k" * 64, decoding), decoding.source)
    assert decoding.times == 1
    assert [path.suffix for path in stored()] == [".safetensors"]


def test_another_key_is_another_file(decoding: Decoding) -> None:
    cached("name", "1" * 64, decoding)
    cached("name", "2" * 64, decoding)
    assert decoding.times == 2
    assert len(stored()) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: b"nonsense" * 20,
        lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
        lambda data: data.replace(b"file is empty", b"file is full!"),
        lambda data: (16).to_bytes(8, "little") + b'{"a":1}         ',
    ],
    ids=["empty", "cut", "nonsense", "one bit", "other facts", "other contents"],
)
def test_a_damaged_file_is_made_again(decoding: Decoding, damage: Callable[[bytes], bytes]) -> None:
    cached("name", "k" * 64, decoding)
    (path,) = stored()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    again = cached("name", "k" * 64, decoding)
    assert_same(again, decoding.source)
    assert decoding.times == 2
    assert str(path) in again.notes[0]
    assert path.read_bytes() == whole
    assert cached("name", "k" * 64, decoding).notes == ()
    assert decoding.times == 2


def test_a_folder_in_place_of_the_file(decoding: Decoding) -> None:
    cached("name", "k" * 64, decoding)
    (path,) = stored()
    path.unlink()
    path.mkdir()
    assert_same(cached("name", "k" * 64, decoding), decoding.source)


def test_where_nothing_can_be_written_it_works_without(
    decoding: Decoding, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DISTAIL_CACHE", str(tmp_path / "file" / "cache"))
    for _ in range(2):
        source = cached("name", "k" * 64, decoding)
        assert_same(source, decoding.source)
        assert str(tmp_path / "file" / "cache") in source.notes[-1]
    assert decoding.times == 2


def test_a_full_disk_leaves_nothing_behind(decoding: Decoding, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("distail.files.sync", full)
    assert_same(cached("name", "k" * 64, decoding), decoding.source)
    assert [path.name for path in cache_folder().iterdir()] == [".lock"]


def test_errors_of_decoding_are_not_swallowed() -> None:
    def broken() -> Source:
        raise ValueError("bad image")

    with pytest.raises(ValueError, match="bad image"):
        cached("name", "k" * 64, broken)
    assert stored() == []


def test_what_killed_writers_left_goes_with_the_next_writing(decoding: Decoding) -> None:
    (cache_folder() / ".name.safetensors.1.tmp").write_bytes(b"half")
    cached("name", "k" * 64, decoding)
    assert sorted(path.name for path in cache_folder().iterdir()) == [".lock", stored()[0].name]


def test_while_another_process_writes_this_one_only_decodes(decoding: Decoding) -> None:
    cache_folder().mkdir(parents=True, exist_ok=True)
    with lock_folder(cache_folder()):
        assert_same(cached("name", "k" * 64, decoding), decoding.source)
    assert stored() == []


def test_a_file_system_without_locks_is_cached_on_as_well(decoding: Decoding, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int, blocking: bool) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(file_lock, "lock_descriptor", no_locks)
    for _ in range(2):
        cached("name", "k" * 64, decoding)
    assert decoding.times == 1


def test_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISTAIL_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.setenv("DISTAIL_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "distail"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "distail"


def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user is a bare number, without HOME."""
    for name in ("HOME", "XDG_CACHE_HOME", "DISTAIL_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("posixpath.expanduser", lambda path: path)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)


def test_without_a_home_folder_nothing_is_kept_and_a_note_says_so(
    decoding: Decoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_home(monkeypatch)
    source = cached("name", "k" * 64, decoding)
    assert decoding.times == 1
    assert "DISTAIL_CACHE" in source.notes[-1]
    with pytest.raises(DataError, match=r"~/pictures.*home"):
        load_source(Data(name="folder", root=Path("~/pictures")))


@pytest.fixture
def two_files(tmp_path: Path) -> list[tuple[str, Path]]:
    files = []
    for name in ("a.png", "b.png"):
        path = tmp_path / name
        path.write_bytes(name.encode() * 10)
        os.utime(path, ns=(1, 1))
        files.append((name, path))
    return files


def test_a_fingerprint_sees_every_change(two_files: list[tuple[str, Path]]) -> None:
    first = fingerprint(["layout", None], two_files)
    assert fingerprint(["layout", None], two_files) == first
    seen = {
        first,
        fingerprint(["layout", 32], two_files),
        fingerprint(["layout", None], two_files[::-1]),
        fingerprint(["layout", None], two_files[:1]),
        fingerprint(["layout", None], [("c.png", two_files[0][1]), two_files[1]]),
    }
    path = two_files[1][1]
    os.utime(path, ns=(1, 2))
    seen.add(fingerprint(["layout", None], two_files))
    path.write_bytes(b"longer than it was before, by far")
    os.utime(path, ns=(1, 1))
    seen.add(fingerprint(["layout", None], two_files))
    path.write_bytes(b"c.png" * 10)
    os.utime(path, ns=(1, 1))
    seen.add(fingerprint(["layout", None], two_files))
    assert len(seen) == 8


def test_a_fingerprint_does_not_depend_on_where_the_data_lies(
    two_files: list[tuple[str, Path]], tmp_path: Path
) -> None:
    moved = []
    for name, path in two_files:
        copy = tmp_path / "elsewhere" / name
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
        os.utime(copy, ns=(1, 1))
        moved.append((name, copy))
    assert fingerprint([], moved) == fingerprint([], two_files)
