"""Fashion-MNIST's four files, and any bytes as an IDX file."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distail.data.sources import fashion_mnist
from distail.data.sources.fashion_mnist import parse_idx
from distail.errors import DataError
from helpers.sources import load


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write(folder: Path, *, train: int = 30, test: int = 20, suffix: str = ".gz") -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    arrays = {}
    for prefix, count in (("train", train), ("t10k", test)):
        arrays[f"{prefix}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28))
        arrays[f"{prefix}-labels-idx1-ubyte"] = np.arange(count) % 10
    for name, array in arrays.items():
        data = idx(array)
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(data) if suffix else data)
    return arrays


@pytest.fixture(autouse=True)
def _no_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "package")


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_the_four_files(tmp_path: Path, suffix: str) -> None:
    arrays = write(tmp_path / "f", suffix=suffix)
    source = load("fashion-mnist", tmp_path / "f")
    np.testing.assert_array_equal(source.train.images[:, 0].numpy(), arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(source.test.labels.numpy(), arrays["t10k-labels-idx1-ubyte"])
    assert source.class_names[0] == "T-shirt/top"
    assert len(source.class_names) == 10


def test_the_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "package", test=11)
    assert len(load("fashion-mnist").test) == 11
    write(Path("data/fashion-mnist"), test=12)
    assert len(load("fashion-mnist").test) == 12
    monkeypatch.setenv("DISTAIL_DATA", str(tmp_path / "all"))
    write(tmp_path / "all" / "fashion-mnist", test=13)
    assert len(load("fashion-mnist").test) == 13


def test_missing_files_name_the_package_and_the_option(tmp_path: Path) -> None:
    write(tmp_path / "f")
    (tmp_path / "f" / "t10k-labels-idx1-ubyte.gz").unlink()
    for root, place in ((None, "package"), (tmp_path / "f", "f")):
        with pytest.raises(DataError) as error:
            load("fashion-mnist", root)
        for part in (str(tmp_path / place), "dataset-fashion-mnist", "data.root", "t10k-labels-idx1-ubyte.gz"):
            assert part in str(error.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"PK" + data,
        lambda data: data[:30] + b"abc" + data[33:],
    ],
    ids=["cut", "empty", "no gzip", "changed"],
)
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
def test_damaged_files_are_named(tmp_path: Path, damage, name: str) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path)
    path = tmp_path / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=name.removesuffix(".gz")):
        load("fashion-mnist", tmp_path)


def test_images_and_labels_must_agree(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(29) % 10)))
    with pytest.raises(DataError, match="30 train images but 29 labels"):
        load("fashion-mnist", tmp_path)


def test_labels_out_of_range_and_missing_classes(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx(np.arange(30) % 12)))
    with pytest.raises(DataError, match=r"label 10 .*\n.*label 11"):
        load("fashion-mnist", tmp_path)
    path.write_bytes(gzip.compress(idx(np.arange(30) % 8)))
    with pytest.raises(DataError, match=r"class 8 \(Bag\)\n.*class 9 \(Ankle boot\)"):
        load("fashion-mnist", tmp_path)


REAL = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(not REAL.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed")
def test_the_real_one() -> None:
    source = load("fashion-mnist", REAL)
    assert source.train.images.shape == (60_000, 1, 28, 28)
    assert source.test.images.shape == (10_000, 1, 28, 28)
    assert source.train.labels.bincount().tolist() == [6000] * 10
    assert source.train.labels[:3].tolist() == [9, 0, 0]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 255))
@settings(deadline=None)
def test_arrays_come_back(shape: list[int], start: int) -> None:
    array = (np.arange(np.prod(shape)).reshape(shape) + start).astype(np.uint8)
    np.testing.assert_array_equal(parse_idx(idx(array), "x", len(shape)), array)


@pytest.mark.parametrize("shape", [(0,), (0, 28, 28), (3, 0, 28), (0, 2**32 - 1, 2**32 - 1)])
def test_arrays_of_nothing(shape: tuple[int, ...]) -> None:
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
    with pytest.raises(DataError, match="there is nothing in it"):
        parse_idx(header, "x", len(shape))


@given(st.binary(max_size=64), st.integers(1, 4))
@settings(deadline=None, max_examples=300)
def test_random_bytes_are_a_data_error_or_an_array(data: bytes, dimensions: int) -> None:
    try:
        array = parse_idx(data, "x", dimensions)
    except DataError:
        return
    assert array.ndim == dimensions


@given(st.binary(max_size=40), st.integers(1, 3))
@settings(deadline=None, max_examples=300)
def test_random_bytes_after_a_valid_beginning(data: bytes, dimensions: int) -> None:
    whole = bytes([0, 0, 8, dimensions]) + data
    try:
        array = parse_idx(whole, "x", dimensions)
    except DataError:
        return
    assert array.size == len(whole) - 4 - 4 * dimensions


@given(st.data())
@settings(deadline=None)
def test_a_cut_or_lengthened_file_is_refused(data: st.DataObject) -> None:
    whole = idx(np.ones((3, 4, 5)))
    cut = data.draw(st.integers(0, len(whole) - 1))
    for damaged in (whole[:cut], whole + b"\0" * (cut + 1)):
        with pytest.raises(DataError):
            parse_idx(damaged, "x", 3)


def test_sizes_that_overflow_are_refused() -> None:
    header = struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    with pytest.raises(DataError, match="4294967295 x 4294967295 x 4294967295 bytes but has 3"):
        parse_idx(header + b"abc", "images", 3)


@pytest.mark.parametrize("kind", [0x09, 0x0B, 0x0D])
def test_other_number_types_are_refused(kind: int) -> None:
    with pytest.raises(DataError, match="unsigned bytes with 1 dimension"):
        parse_idx(bytes([0, 0, kind, 1, 0, 0, 0, 1, 7]), "labels", 1)


def test_labels_in_place_of_images_are_refused() -> None:
    with pytest.raises(DataError, match="3 dimensions"):
        parse_idx(idx(np.ones(20)), "images", 3)
