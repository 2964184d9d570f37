"""Parquet in parts: all of one export, each once, or a refusal that names what is missing or double."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from distail.data.prepare import prepare_data
from distail.errors import DataError
from helpers.sources import load

TEST = "test-00000-of-00001.parquet"


def write_parts(folder: Path, names: Iterable[str]) -> None:
    """Ten images, one of each class, in every file; no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        images = []
        for row in range(10):
            file = io.BytesIO()
            seed = [*name.encode(), row]
            Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)).save(file, "PNG")
            images.append(file.getvalue())
        pq.write_table(pa.table({"img": images, "label": range(10)}), folder / name)


@pytest.mark.parametrize(
    "names",
    [
        ["train-00000-of-00003.parquet", "train-00001-of-00003.parquet", "train-00002-of-00003.parquet"],
        ["train-00000-of-00002-0a1b2c3d.parquet", "train-00001-of-00002-ffffffff.parquet"],
        ["train-0.parquet", "train-1.parquet"],
    ],
)
@pytest.mark.parametrize("between", [".", "data", "plain_text"])
def test_all_parts_are_read(tmp_path: Path, names: list[str], between: str) -> None:
    write_parts(tmp_path / between, [*names, TEST])
    source = load("cifar10", tmp_path)
    assert (len(source.train), len(source.test), source.notes) == (10 * len(names), 10, ())


def test_images_without_files_of_their_own_are_known_by_their_pixels(tmp_path: Path) -> None:
    write_parts(tmp_path, ["train.parquet", "test.parquet"])
    table = pq.read_table(tmp_path / "train.parquet")
    pq.write_table(table.set_column(1, "label", pa.array([1, 0, *range(2, 10)])), tmp_path / "test.parquet")
    leaked, contradiction = prepare_data("cifar10", root=tmp_path).notes
    assert leaked.startswith("10 of 10 test images")
    assert contradiction.startswith("2 images lie")


@pytest.mark.parametrize(
    ("names", "culprits"),
    [
        (["train-00001-of-00003.parquet"], ["train-00000-of-00003.parquet", "train-00002-of-00003.parquet"]),
        (
            ["train-00000-of-00001.parquet", "train-00000-of-00001-0a1b2c3d.parquet"],
            ["train-00000-of-00001-0a1b2c3d.parquet", "same part"],
        ),
        (
            ["train-00000-of-00001.parquet", "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
            ["2 times", "train-00000-of-00001.parquet", "train-00001-of-00002.parquet"],
        ),
        (["train.parquet", "train-00000-of-00001.parquet"], ["2 times", "train.parquet"]),
        (["train-00000-of-00001.parquet", "train-00002-of-00001.parquet"], ["train-00002-of-00001", "no such part"]),
    ],
)
def test_parts_that_are_missing_or_double_are_named(tmp_path: Path, names: list[str], culprits: list[str]) -> None:
    write_parts(tmp_path, [*names, TEST])
    with pytest.raises(DataError) as error:
        load("cifar10", tmp_path)
    for culprit in culprits:
        assert culprit in str(error.value)


def test_problems_of_both_splits_are_told_together(tmp_path: Path) -> None:
    write_parts(tmp_path, ["train-00000-of-00002.parquet", "test-00001-of-00002.parquet"])
    with pytest.raises(DataError, match=r"train-00001-of-00002(.|\n)*test-00000-of-00002"):
        load("cifar10", tmp_path)


def test_validation_is_the_test_set_where_there_is_no_other(tmp_path: Path) -> None:
    write_parts(tmp_path, ["train.parquet", "validation-00000-of-00001.parquet"])
    source = load("cifar10", tmp_path)
    assert len(source.test) == 10
    assert "validation is the test set" in source.notes[0]
    write_parts(tmp_path, [TEST])
    source = load("cifar10", tmp_path)
    assert (len(source.validation), len(source.test), source.notes) == (10, 10, ())
    write_parts(tmp_path, ["val.parquet"])
    assert "val is not used" in load("cifar10", tmp_path).notes[0]


def test_the_same_data_in_two_folders(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_parts(tmp_path / folder, ["train.parquet", TEST])
    with pytest.raises(DataError, match=r"one/, two/.*data\.root"):
        load("cifar10", tmp_path)
    assert len(load("cifar10", tmp_path / "one").train) == 10
