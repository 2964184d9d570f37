from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distail.data.prepare import prepare_data
from distail.errors import DataError
from helpers.sources import load

WriteImage = Callable[..., np.ndarray]
WNIDS = ["n03", "n01", "n02"]


@pytest.fixture
def tree(tmp_path: Path, write_image: WriteImage) -> Path:
    root = tmp_path / "tiny-imagenet-200"
    for label, wnid in enumerate(WNIDS):
        for number in range(3 + label):
            write_image(root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", height=64, width=64)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("n01_0.JPEG\t0\t0\t1\t1\n")
    annotations = []
    for number in range(6):
        write_image(root / "val" / "images" / f"val_{number}.JPEG", height=64, width=64)
        annotations.append(f"val_{number}.JPEG\t{WNIDS[number % 3]}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(annotations))
    (root / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    (root / "words.txt").write_text("n01\tcrane, bird\nn02\tcrane\nn03\tgoldfish, Carassius auratus\nn99\telse\n")
    return root


def test_classes_are_in_the_order_of_wnids(tree: Path) -> None:
    source = load("tiny-imagenet", tree)
    assert source.class_names == ("goldfish", "crane (n01)", "crane (n02)")
    assert source.train.images.shape == (12, 3, 64, 64)
    assert source.train.labels.bincount().tolist() == [3, 4, 5]
    assert source.test.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_its_long_tail_thins_the_classes_in_the_order_of_wnids(tree: Path, write_image: WriteImage) -> None:
    for wnid in WNIDS:
        for number in range(10, 20):
            write_image(tree / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", height=64, width=64)
    data = prepare_data("tiny-imagenet", root=tree, imbalance_factor=7, image_size=32)
    # 13, 14 and 15 images: the largest class sets the profile, 15 * 7 ** (-c / 2), and a smaller one keeps what it has.
    assert data.class_counts == (13, 5, 2)
    assert data.train.images.shape == (20, 3, 32, 32)
    assert data.test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    again = prepare_data("tiny-imagenet", root=tree, imbalance_factor=7, image_size=32)
    assert data.subset_sha256 == again.subset_sha256


def test_the_folder_of_the_archive_is_found_in_the_usual_place(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tree.parent / "all" / "tiny-imagenet"
    place.mkdir(parents=True)
    tree.rename(place / tree.name)
    monkeypatch.setenv("DISTAIL_DATA", str(place.parent))
    assert len(load("tiny-imagenet", image_size=32).train) == 12


def test_without_words_the_names_are_wnids(tree: Path) -> None:
    (tree / "words.txt").unlink()
    assert load("tiny-imagenet", tree).class_names == tuple(WNIDS)


def test_folders_and_wnids_that_differ(tree: Path) -> None:
    (tree / "wnids.txt").write_text("n03\nn01\nn07\n")
    with pytest.raises(DataError, match=r"n07: .*train/\n.*n02: .*wnids\.txt"):
        load("tiny-imagenet", tree)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val_0.JPEG\tn77\t0\n", "line 1: 'n77' is not in wnids.txt"),
        ("gone.JPEG\tn01\t0\n", "line 1: there is no image val/images/gone.JPEG"),
        ("../../words.txt\tn01\t0\n", "line 1: there is no image"),
        ("val_0.JPEG\n", "line 1: '' is not in wnids.txt"),
        ("", "it is empty"),
    ],
)
def test_bad_annotations(tree: Path, line: str, message: str) -> None:
    (tree / "val" / "val_annotations.txt").write_text(line)
    with pytest.raises(DataError, match=message):
        load("tiny-imagenet", tree)


def test_missing_files(tree: Path) -> None:
    (tree / "val" / "val_annotations.txt").unlink()
    with pytest.raises(DataError, match=r"val_annotations\.txt does not exist"):
        load("tiny-imagenet", tree)
    (tree / "wnids.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not text in UTF-8"):
        load("tiny-imagenet", tree)
    (tree / "wnids.txt").unlink()
    with pytest.raises(DataError, match=r"It needs wnids\.txt"):
        load("tiny-imagenet", tree)
