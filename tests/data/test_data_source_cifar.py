"""The layouts of CIFAR, each written small by hand: the same pixels must come back from all of them."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from distail.data.sources.cifar import CIFAR10_NAMES, CIFAR100_NAMES
from distail.errors import DataError
from helpers.sources import load

NAMES = {"cifar10": CIFAR10_NAMES, "cifar100": CIFAR100_NAMES}
ARCHIVES = {"cifar10": "cifar-10-binary.tar.gz", "cifar100": "cifar-100-binary.tar.gz"}
Splits = dict[str, tuple[np.ndarray, np.ndarray]]


def make(name: str) -> Splits:
    """Per split images (N, 32, 32, 3) and labels: each class at least once in training, in a mixed order."""
    rng = np.random.default_rng(0)
    classes = len(NAMES[name])
    splits = {}
    for split, count in (("train", classes + 10), ("test", classes)):
        images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        splits[split] = images, rng.permutation(np.arange(count) % classes)
    return splits


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


def parquet_table(images: np.ndarray, labels: np.ndarray, image: str, label: str, *, struct: bool = True) -> pa.Table:
    data = [png(each) for each in images]
    column = pa.array([{"bytes": each, "path": None} for each in data] if struct else data)
    return pa.table({image: column, label: pa.array(labels)})


def write_parquet(folder: Path, name: str, splits: Splits, *, image: str = "img", struct: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    label = {"cifar10": "label", "cifar100": "fine_label"}[name]
    for split, (images, labels) in splits.items():
        table = parquet_table(images, labels, image, label, struct=struct)
        pq.write_table(table.append_column("coarse_label", pa.array(labels * 0)), folder / f"{split}.parquet")


def write_shards(folder: Path, name: str, splits: Splits) -> None:
    (folder / "data").mkdir(parents=True)
    for split, (images, labels) in splits.items():
        for number, rows in enumerate(np.array_split(np.arange(len(images)), 2)):
            table = parquet_table(images[rows], labels[rows], "img", "fine_label" if name == "cifar100" else "label")
            pq.write_table(table, folder / "data" / f"{split}-0000{number}-of-00002.parquet")


def write_folders(folder: Path, name: str, splits: Splits, *, numbered: bool = False) -> None:
    for split, (images, labels) in splits.items():
        for row, (image, label) in enumerate(zip(images, labels, strict=True)):
            place = folder / split / (str(label) if numbered else NAMES[name][label])
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{row}.png").write_bytes(png(image))


def binary_files(name: str, splits: Splits) -> dict[str, bytes]:
    def records(images: np.ndarray, labels: np.ndarray) -> bytes:
        parts = []
        for image, label in zip(images, labels, strict=True):
            coarse = bytes([19 - label % 20]) if name == "cifar100" else b""
            parts.append(coarse + bytes([label]) + image.transpose(2, 0, 1).tobytes())
        return b"".join(parts)

    images, labels = splits["train"]
    if name == "cifar100":
        return {"train.bin": records(images, labels), "test.bin": records(*splits["test"])}
    files = {
        f"data_batch_{number + 1}.bin": records(images[rows], labels[rows])
        for number, rows in enumerate(np.array_split(np.arange(len(images)), 5))
    }
    return {**files, "test_batch.bin": records(*splits["test"])}


def write_binary(folder: Path, name: str, splits: Splits) -> None:
    folder.mkdir(parents=True)
    for file, data in binary_files(name, splits).items():
        (folder / file).write_bytes(data)


def write_extracted(folder: Path, name: str, splits: Splits) -> None:
    write_binary(folder / {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}[name], name, splits)


def write_archive(folder: Path, name: str, splits: Splits) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / ARCHIVES[name], "w:gz") as tar:
        for file, data in {"readme.html": b"<html>", **binary_files(name, splits)}.items():
            member = tarfile.TarInfo(f"some-folder/{file}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


LAYOUTS: dict[str, Callable[[Path, str, Splits], None]] = {
    "parquet": write_parquet,
    "parquet without a struct": lambda *args: write_parquet(*args, image="image", struct=False),
    "parquet shards": write_shards,
    "class folders": write_folders,
    "numbered folders": lambda *args: write_folders(*args, numbered=True),
    "binary files": write_binary,
    "extracted archive": write_extracted,
    "archive": write_archive,
}


def rows(images_NHWC: np.ndarray, labels: np.ndarray) -> list[tuple[int, bytes]]:
    return [(int(label), image.tobytes()) for image, label in zip(images_NHWC, labels, strict=True)]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_every_layout_gives_the_same_images(tmp_path: Path, name: str, layout: str) -> None:
    splits = make(name)
    LAYOUTS[layout](tmp_path / "root", name, splits)
    source = load(name, tmp_path / "root")
    assert source.class_names == NAMES[name]
    for split, (images, labels) in splits.items():
        loaded = getattr(source, split)
        found = rows(loaded.images.permute(0, 2, 3, 1).contiguous().numpy(), loaded.labels.numpy())
        expected = rows(images, labels)
        # Class folders lose the order; everything else keeps it.
        assert (sorted(found), sorted(expected))[0] == sorted(expected)
        assert found == expected or "folders" in layout


def test_names_are_those_of_the_authors() -> None:
    assert len(set(CIFAR10_NAMES)) == 10
    assert len(set(CIFAR100_NAMES)) == 100
    assert sorted(CIFAR10_NAMES) == list(CIFAR10_NAMES)
    assert sorted(CIFAR100_NAMES) == list(CIFAR100_NAMES)
    assert [CIFAR100_NAMES[label] for label in (0, 19, 52, 99)] == ["apple", "cattle", "oak_tree", "worm"]


def test_the_root_may_be_the_archive(tmp_path: Path) -> None:
    write_archive(tmp_path, "cifar10", make("cifar10"))
    assert len(load("cifar10", tmp_path / ARCHIVES["cifar10"]).test) == 10


def test_parquet_comes_before_the_archive(tmp_path: Path) -> None:
    splits = make("cifar10")
    write_parquet(tmp_path, "cifar10", splits)
    (tmp_path / ARCHIVES["cifar10"]).write_bytes(b"not read")
    assert len(load("cifar10", tmp_path).test) == 10


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("packed", [True, False])
def test_pickles_are_never_opened(tmp_path: Path, name: str, packed: bool) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    folder = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    if packed:
        (tmp_path / f"{folder.replace('batches-py', 'python')}.tar.gz").write_bytes(pickle.dumps(Trap()))
    else:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError) as error:
        load(name, tmp_path)
    assert "pickled Python version" in str(error.value)
    assert f"https://www.cs.toronto.edu/~kriz/{ARCHIVES[name]}" in str(error.value)
    assert not (tmp_path / "sprung").exists()


def test_a_pickle_does_not_hide_what_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTAIL_DATA", str(tmp_path))
    (tmp_path / "cifar10" / "cifar-10-batches-py").mkdir(parents=True)
    write_binary(Path("data/cifar10"), "cifar10", make("cifar10"))
    assert len(load("cifar10").test) == 10


def test_the_second_time_comes_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = make("cifar10")
    write_parquet(tmp_path / "p", "cifar10", splits)
    write_folders(tmp_path / "f", "cifar10", splits)
    first = [load("cifar10", tmp_path / place) for place in ("p", "f")]
    monkeypatch.setattr("distail.data.sources.encoded.decode_all", lambda *args: pytest.fail("decoded again"))
    for place, before in zip(("p", "f"), first, strict=True):
        again = load("cifar10", tmp_path / place)
        assert torch.equal(again.train.images, before.train.images)
        assert torch.equal(again.test.labels, before.test.labels)
        assert again.class_names == CIFAR10_NAMES


def test_a_changed_file_is_decoded_again(tmp_path: Path) -> None:
    splits = make("cifar10")
    write_parquet(tmp_path, "cifar10", splits)
    before = load("cifar10", tmp_path)
    splits["train"][0][:] = 255 - splits["train"][0]
    write_parquet(tmp_path, "cifar10", splits)
    assert torch.equal(load("cifar10", tmp_path).train.images, 255 - before.train.images)


def test_other_options_are_decoded_again(tmp_path: Path) -> None:
    write_parquet(tmp_path, "cifar10", make("cifar10"))
    assert load("cifar10", tmp_path).train.images.shape[-1] == 32
    assert load("cifar10", tmp_path, image_size=16).train.images.shape[-1] == 16


def test_binary_files_are_resized(tmp_path: Path) -> None:
    write_binary(tmp_path / "b", "cifar10", make("cifar10"))
    assert load("cifar10", tmp_path / "b", image_size=8).train.images.shape[-2:] == (8, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop_columns(["img"]), "label.* img or image"),
        (
            lambda table: table.rename_columns(["img", "klass"]),
            "columns img, klass; expected one named fine_label or label",
        ),
        (lambda table: table.set_column(1, "label", pa.array(["a"] * len(table))), "whole number"),
        (lambda table: table.set_column(1, "label", pa.array([None] * len(table), pa.int64())), "whole number"),
        (lambda table: table.set_column(0, "img", pa.array(range(len(table)))), "encoded images"),
        (lambda table: table.set_column(1, "label", pa.array([11] * len(table))), "label 11"),
        (lambda table: table.set_column(1, "label", pa.array([0] * len(table))), r"class 9 \(truck\)"),
        (lambda table: table.set_column(0, "img", pa.array([b"x"] * len(table))), "train.parquet, row 0: not an image"),
        (
            lambda table: table.set_column(0, "img", pa.array([None] * len(table), pa.binary())),
            "row 0: the file is empty",
        ),
    ],
)
def test_parquet_that_does_not_fit(tmp_path: Path, change: Callable[[pa.Table], pa.Table], message: str) -> None:
    splits = make("cifar10")
    for split, (images, labels) in splits.items():
        table = parquet_table(images, labels, "img", "label")
        pq.write_table(change(table) if split == "train" else table, tmp_path / f"{split}.parquet")
    with pytest.raises(DataError, match=message):
        load("cifar10", tmp_path)


def test_damaged_and_missing_parquet(tmp_path: Path) -> None:
    write_parquet(tmp_path, "cifar10", make("cifar10"))
    (tmp_path / "train.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"train\.parquet cannot be read as parquet"):
        load("cifar10", tmp_path)
    (tmp_path / "test.parquet").unlink()
    with pytest.raises(DataError, match=r"no test\.parquet"):
        load("cifar10", tmp_path)


def test_unreadable_rows_can_be_skipped(tmp_path: Path) -> None:
    splits = make("cifar10")
    write_parquet(tmp_path, "cifar10", splits)
    images, labels = splits["train"]
    data = [b"broken" if row == 3 else png(image) for row, image in enumerate(images)]
    pq.write_table(pa.table({"img": data, "label": labels}), tmp_path / "train.parquet")
    for _ in range(2):
        source = load("cifar10", tmp_path, skip_unreadable=True)
        assert len(source.train) == len(images) - 1
        assert source.train.labels.tolist() == np.delete(labels, 3).tolist()
        assert source.skipped == ("train.parquet, row 3: not an image (BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP)",)


def test_class_folders_that_are_not_those_of_cifar(tmp_path: Path) -> None:
    write_folders(tmp_path, "cifar10", make("cifar10"))
    for split in ("train", "test"):
        (tmp_path / split / "cat").rename(tmp_path / split / "kitten")
    with pytest.raises(DataError) as error:
        load("cifar10", tmp_path)
    assert "kitten: not a class of cifar10" in str(error.value)
    assert "cat: missing" in str(error.value)


def test_class_folders_must_agree(tmp_path: Path) -> None:
    write_folders(tmp_path, "cifar10", make("cifar10"))
    (tmp_path / "test" / "cat").rename(tmp_path / "test" / "kitten")
    with pytest.raises(DataError, match=r"cat: only in train/\n.*kitten: only in test/"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_damaged_binary_files(tmp_path: Path, name: str) -> None:
    write_binary(tmp_path / "b", name, make(name))
    path = sorted((tmp_path / "b").glob("test*"))[0]
    whole = path.read_bytes()
    for damaged in (whole[:-1], b"", whole + b"\0\0"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"{path.name}.*{len(damaged)} bytes.* 307[34]"):
            load(name, tmp_path / "b")


def test_damaged_archives(tmp_path: Path) -> None:
    write_archive(tmp_path, "cifar10", make("cifar10"))
    path = tmp_path / ARCHIVES["cifar10"]
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"nothing", whole[:200] + b"\0" * 50 + whole[250:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"{path.name}"):
            load("cifar10", tmp_path)


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    write_archive(tmp_path, "cifar10", make("cifar10"))
    (tmp_path / ARCHIVES["cifar10"]).rename(tmp_path / ARCHIVES["cifar100"])
    with pytest.raises(DataError, match=r"lacks train\.bin, test\.bin"):
        load("cifar100", tmp_path)


def test_binary_labels_out_of_range(tmp_path: Path) -> None:
    splits = make("cifar10")
    splits["test"][1][:] = 12
    write_binary(tmp_path / "b", "cifar10", splits)
    with pytest.raises(DataError, match="label 12 \\(10 images\\)"):
        load("cifar10", tmp_path / "b")


REAL = Path("/work/shared/data/cifar100")


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="CIFAR-100 is not on this machine")
def test_the_real_one() -> None:
    source = load("cifar100", REAL)
    assert source.train.labels.bincount().tolist() == [500] * 100
    assert source.test.labels.bincount().tolist() == [100] * 100
    assert source.train.images.shape == (50_000, 3, 32, 32)
    assert source.notes == ()
