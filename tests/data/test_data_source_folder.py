from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
import torch

from distail.config.schema import Data
from distail.data.long_tail import class_counts
from distail.data.prepare import prepare_data
from distail.errors import DataError
from helpers.sources import load

WriteImage = Callable[..., np.ndarray]


def write_tree(root: Path, write_image: WriteImage, counts: dict[str, int], **options: int) -> dict[str, np.ndarray]:
    """``counts`` images in each folder; every image in the tree is different."""
    written = {}
    for folder, count in counts.items():
        for number in range(count):
            name = f"{folder}/{number}.png"
            seed = sum(map(ord, folder)) * 1000 + number
            written[name] = write_image(root / name, seed=seed, **options)
    return written


def found(data: object) -> set[tuple[int, bytes]]:
    images = data.images.permute(0, 2, 3, 1).contiguous().numpy()  # type: ignore[attr-defined]
    return {(label, image.tobytes()) for label, image in zip(data.labels.tolist(), images, strict=True)}  # type: ignore[attr-defined]


@pytest.mark.parametrize("test_name", ["test", "val", "valid", "validation"])
def test_train_and_test_folders(tmp_path: Path, write_image: WriteImage, test_name: str) -> None:
    counts = {"train/class10": 3, "train/class9": 4, f"{test_name}/class10": 2, f"{test_name}/class9": 1}
    written = write_tree(tmp_path, write_image, counts)
    source = load("folder", tmp_path)
    assert source.class_names == ("class9", "class10")
    for data, split in ((source.train, "train"), (source.test, test_name)):
        expected = {
            (int("class10" in name), pixels.tobytes()) for name, pixels in written.items() if name.startswith(split)
        }
        assert found(data) == expected
    assert source.train.labels.tolist() == [0] * 4 + [1] * 3
    assert [f"holds no test/: {test_name}/ is the test set" in note for note in source.notes] == [True] * (
        test_name != "test"
    )


def test_class_folders_alone_lend_a_stratified_fifth(tmp_path: Path, write_image: WriteImage) -> None:
    written = write_tree(tmp_path, write_image, {"a": 10, "b": 5, "c": 2})
    source = load("folder", tmp_path)
    assert class_counts(source.train.labels, 3) == (8, 4, 2)
    assert class_counts(source.test.labels, 3) == (2, 1, 0)
    assert len(found(source.train) | found(source.test)) == len(written)
    assert torch.equal(load("folder", tmp_path).test.images, source.test.images)


def test_train_alone_lends_a_fifth_too(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path, write_image, {"train/a": 10, "train/b": 5})
    source = load("folder", tmp_path)
    assert source.class_names == ("a", "b")
    assert class_counts(source.test.labels, 2) == (2, 1)


def test_test_comes_before_val(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(
        tmp_path, write_image, {f"{split}/{c}": n for split, n in (("train", 2), ("test", 3), ("val", 4)) for c in "ab"}
    )
    source = load("folder", tmp_path)
    assert (len(source.train), len(source.validation), len(source.test)) == (4, 8, 6)
    assert source.validation.labels.tolist() == [0] * 4 + [1] * 4
    assert {name.decode().split("/")[0] for name in source.validation.names} == {"val"}
    data = prepare_data(Data(name="folder", root=tmp_path))
    assert (len(data.train), len(data.validation)) == (4, 8)
    assert any("8 validation images are used" in note for note in data.notes)
    assert prepare_data(Data(name="folder", root=tmp_path, validation=0)).validation is None


@pytest.mark.parametrize("stream", ["always", "never"])
def test_a_validation_folder_may_lack_a_class_and_have_no_other(
    tmp_path: Path, write_image: WriteImage, stream: str
) -> None:
    write_tree(tmp_path, write_image, {"train/a": 5, "train/b": 5, "test/a": 1, "test/b": 1, "valid/b": 2})
    source = load("folder", tmp_path, stream=stream)
    assert source.validation.labels.tolist() == [1, 1]
    assert len(source.train) == 10
    write_tree(tmp_path, write_image, {"valid/c": 1})
    with pytest.raises(DataError, match="c: only in valid/"):
        load("folder", tmp_path, stream=stream)


@pytest.mark.parametrize("parts", [("Train", "Test"), ("training", "validation"), ("Train", "valid")])
def test_parts_of_a_data_set_are_not_taken_for_classes(
    tmp_path: Path, write_image: WriteImage, parts: tuple[str, str]
) -> None:
    write_tree(tmp_path, write_image, {f"{part}/{name}": 2 for part in parts for name in ("a", "b")})
    with pytest.raises(DataError, match=r"train/ and test/"):
        load("folder", tmp_path)


def test_classes_may_be_called_valid_or_train(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path / "a", write_image, {"valid": 5, "invalid": 5})
    assert load("folder", tmp_path / "a").class_names == ("invalid", "valid")
    write_tree(tmp_path / "b", write_image, {"car": 5, "bus": 5, "train": 5})
    with pytest.raises(DataError, match=r"b/train .*found none, and images .*data\.name: csv"):
        load("folder", tmp_path / "b")


def test_a_class_may_be_called_train(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path, write_image, {"car": 5, "Train": 5})
    assert load("folder", tmp_path).class_names == ("car", "Train")


def test_the_same_file_in_both_parts_is_told(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path, write_image, {"train/a": 3, "train/b": 3, "test/a": 2, "test/b": 2})
    assert prepare_data("folder", root=tmp_path).notes == ()
    shutil.copy(tmp_path / "train/a/0.png", tmp_path / "test/a/copy.png")
    (note,) = prepare_data("folder", root=tmp_path).notes
    assert note.startswith("1 of 5 test images is a byte-for-byte copy of a training image")


def test_the_same_image_in_two_classes_or_in_validation_is_told(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path, write_image, {"train/a": 8, "train/b": 8, "test/a": 2, "test/b": 2})
    shutil.copy(tmp_path / "test/a/0.png", tmp_path / "test/b/copy.png")
    for number in range(8):
        shutil.copy(tmp_path / f"train/a/{number}.png", tmp_path / f"train/a/{number + 8}.png")
    leaked, contradiction = prepare_data("folder", root=tmp_path, validation=0.1, seed=1).notes
    assert "of 3 validation images" in leaked
    assert contradiction.startswith("1 image lies, byte for byte, in several classes ('a' and 'b')")


def test_links_to_folders_within_a_class_are_told(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path / "data", write_image, {"a": 5, "b": 5})
    write_tree(tmp_path, write_image, {"elsewhere": 5})
    (tmp_path / "data/a/more").symlink_to(tmp_path / "elsewhere")
    source = load("folder", tmp_path / "data")
    assert len(source.train) == 8
    assert "1 link to" in source.notes[0]
    assert str(tmp_path / "data/a/more") in source.notes[0]


def test_the_usual_place(tmp_path: Path, write_image: WriteImage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTAIL_DATA", str(tmp_path))
    write_tree(tmp_path / "folder", write_image, {"a": 10, "b": 5})
    assert len(load("folder").train) == 12


def test_images_at_any_depth_and_what_is_passed_over(tmp_path: Path, write_image: WriteImage) -> None:
    written = write_tree(tmp_path, write_image, {"a": 6, "a/deep/er": 5, "b": 6})
    hidden = (".hidden/x.png", ".ipynb_checkpoints/x.png", "a/.ipynb_checkpoints/0-checkpoint.png")
    for name in (*hidden, "__MACOSX/x.png", "@eaDir/x.png", "b/@eaDir/0.png/thumb.png", "$RECYCLE.BIN/x.png"):
        write_image(tmp_path / name)
    for name in ("a/._0.png", "a/notes.txt", "b/Thumbs.db", "readme.md", ".DS_Store"):
        (tmp_path / name).write_bytes(b"no image")
    source = load("folder", tmp_path)
    assert source.class_names == ("a", "b")
    assert len(source.train) + len(source.test) == len(written)


def test_suffixes_in_capitals_and_other_formats(tmp_path: Path, write_image: WriteImage) -> None:
    for number, suffix in enumerate(["JPEG", "JPG", "jpg", "bmp", "GIF", "tif", "webp", "PNG", "ppm"]):
        for name in "ab":
            write_image(tmp_path / name / f"{number}.{suffix}", seed=number)
    source = load("folder", tmp_path)
    assert len(source.train) + len(source.test) == 18


def test_linked_images_and_class_folders(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path / "store", write_image, {"a": 5, "b": 5})
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").symlink_to(tmp_path / "store" / "a")
    (root / "b").mkdir()
    for number in range(5):
        (root / "b" / f"{number}.png").symlink_to(tmp_path / "store" / "b" / f"{number}.png")
    assert class_counts(load("folder", root).train.labels, 2) == (4, 4)


@pytest.mark.parametrize(("channels", "expected"), [(1, 1), (3, 3)])
def test_gray_stays_gray(tmp_path: Path, write_image: WriteImage, channels: int, expected: int) -> None:
    write_tree(tmp_path, write_image, {"a": 5, "b": 5}, channels=channels)
    assert load("folder", tmp_path).train.images.shape[1] == expected


def test_one_color_image_in_the_test_set_makes_all_rgb(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path, write_image, {"train/a": 2, "train/b": 2, "test/a": 2}, channels=1)
    write_image(tmp_path / "test" / "b" / "0.png", channels=3)
    source = load("folder", tmp_path)
    assert source.train.images.shape[1] == source.test.images.shape[1] == 3


def test_sizes_that_differ_between_the_splits(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path, write_image, {"train/a": 2, "train/b": 2}, height=6)
    write_tree(tmp_path, write_image, {"test/a": 2, "test/b": 2}, height=8)
    with pytest.raises(DataError, match=r"6x6: 4 images(.|\n)*6x8: 4 images(.|\n)*data\.image_size"):
        load("folder", tmp_path)
    assert load("folder", tmp_path, image_size=5).test.images.shape == (4, 3, 5, 5)


def test_class_folders_that_differ_are_all_listed(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path, write_image, {"train/a": 1, "train/b": 1, "train/c": 1, "test/b": 1, "test/B2": 1})
    with pytest.raises(DataError) as error:
        load("folder", tmp_path)
    assert "3 differ" in str(error.value)
    for part in ("a: only in train/", "c: only in train/", "B2: only in test/"):
        assert part in str(error.value)


def test_classes_without_training_images_are_all_listed(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path, write_image, {"train/a": 1, "test/a": 1, "test/b": 1})
    for name in ("train/b", "train/c", "test/c"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"2 of 3 classes(.|\n)*class 1 \(b\)\n.*class 2 \(c\)"):
        load("folder", tmp_path)


def test_empty_class_folders_without_a_test_set(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path, write_image, {"a": 6})
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"class 1 \(b\)"):
        load("folder", tmp_path)


def test_unreadable_images_are_listed_with_their_paths(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path, write_image, {"train/a": 2, "train/b": 2, "test/a": 2, "test/b": 2})
    (tmp_path / "train" / "a" / "bad.png").write_bytes(b"")
    whole = (tmp_path / "test" / "b" / "0.png").read_bytes()
    (tmp_path / "test" / "b" / "cut.png").write_bytes(whole[:60])
    with pytest.raises(DataError) as error:
        load("folder", tmp_path)
    assert "2 of 10 images cannot be read" in str(error.value)
    assert "train/a/bad.png: the file is empty" in str(error.value)
    assert "test/b/cut.png: " in str(error.value)
    source = load("folder", tmp_path, skip_unreadable=True)
    assert (len(source.train), len(source.test), len(source.skipped)) == (4, 4, 2)


def test_broken_links_are_listed_as_unreadable(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path, write_image, {"a": 6, "b": 6})
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"1 of 13 images(.|\n)*a/gone\.png: No such file"):
        load("folder", tmp_path)
    assert len(load("folder", tmp_path, skip_unreadable=True).skipped) == 1


def test_a_class_that_loses_all_its_images_is_an_error(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path, write_image, {"train/a": 2, "test/a": 2, "test/b": 2})
    (tmp_path / "train" / "b").mkdir()
    (tmp_path / "train" / "b" / "bad.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"class 1 \(b\)"):
        load("folder", tmp_path, skip_unreadable=True)


def test_too_few_classes_say_what_the_root_is(tmp_path: Path, write_image: WriteImage) -> None:
    with pytest.raises(DataError, match="found none"):
        load("folder", Path())
    write_tree(tmp_path / "outer", write_image, {"inner/a": 2, "inner/b": 2})
    with pytest.raises(DataError, match=r"only one, inner/.*data\.root"):
        load("folder", tmp_path / "outer")


def test_other_trees_that_cannot_be_used(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path / "one", write_image, {"test/a": 1, "test/b": 1})
    with pytest.raises(DataError, match="test/ but no train/"):
        load("folder", tmp_path / "one")
    for name in ("a", "b"):
        (tmp_path / "two" / name).mkdir(parents=True)
    with pytest.raises(DataError, match=r"hold no image \(files that end in \.apng, \.bmp"):
        load("folder", tmp_path / "two")
    write_tree(tmp_path / "three", write_image, {"train/a": 1, "train/b": 1})
    for name in ("a", "b"):
        (tmp_path / "three" / "test" / name).mkdir(parents=True)
    with pytest.raises(DataError, match="test holds no image"):
        load("folder", tmp_path / "three")
    write_tree(tmp_path / "four", write_image, {"a": 1, "b": 1})
    with pytest.raises(DataError, match="no test images of its own"):
        load("folder", tmp_path / "four")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_folders_that_may_not_be_read(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path, write_image, {"train/a": 1, "train/b": 1, "test/a": 1, "test/b": 1})
    (tmp_path / "train").chmod(0)
    try:
        with pytest.raises(DataError, match="cannot be read"):
            load("folder", tmp_path)
    finally:
        (tmp_path / "train").chmod(0o755)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path, write_image, {"a": 6, "b": 6})
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "b" / "zero.png").symlink_to("/dev/zero")
    with (tmp_path / "b" / "zz.png").open("wb") as file:
        file.truncate(2**28 + 1)  # takes no place on the disk
    source = load("folder", tmp_path, skip_unreadable=True)
    assert source.skipped == (
        "a/pipe.png: not a regular file",
        "b/zero.png: not a regular file",
        "b/zz.png: 268,435,457 bytes: more than the limit of 268,435,456",
    )


def test_a_class_folder_whose_name_is_not_text_is_refused_before_any_image_is_read(
    tmp_path: Path, write_image: WriteImage
) -> None:
    write_tree(tmp_path, write_image, {"a": 6})
    broken = tmp_path / os.fsdecode(b"caf\xe9")
    broken.mkdir()
    (broken / "x.png").write_bytes(b"not looked at")
    with pytest.raises(DataError, match=r"'caf\\udce9'"):
        load("folder", tmp_path)


def test_classes_of_one_image(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path, write_image, {"a": 10, "b": 1, "c": 1})
    source = load("folder", tmp_path)
    assert class_counts(source.train.labels, 3) == (8, 1, 1)
    assert class_counts(source.test.labels, 3) == (2, 0, 0)


def test_other_image_formats_in_disguise_are_listed_and_skipped(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path, write_image, {"a": 6, "b": 6})
    (tmp_path / "a" / "drawing.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    whole = (tmp_path / "b" / "0.png").read_bytes()
    (tmp_path / "b" / "really_png.jpg").write_bytes(whole)
    with pytest.raises(DataError, match=r"1 of 14 images(.|\n)*a/drawing\.png: not an image \(BMP"):
        load("folder", tmp_path)
    source = load("folder", tmp_path, skip_unreadable=True)
    assert len(source.train) + len(source.test) == 13


@pytest.mark.parametrize("name", ["0", "0.jpg_large", "0.png.1", "0.dcm", "0.npy", "0.png ", "0.HEIC", "0.svg"])
def test_files_that_are_passed_over_are_told_by_suffix_and_count(
    tmp_path: Path, write_image: WriteImage, name: str
) -> None:
    write_tree(tmp_path, write_image, {"cat": 8, "dog": 8})
    for number in range(5):
        (tmp_path / "dog" / f"{number}{name}").write_bytes((tmp_path / "dog/0.png").read_bytes())
    for companion in ("notes.txt", "0.json", "Thumbs.db", ".hidden"):
        (tmp_path / "dog" / companion).write_text("")
    source = load("folder", tmp_path)
    assert len(source.train) + len(source.test) == 16
    (note,) = source.notes
    suffix = os.path.splitext(name)[1].lower()
    assert f"5 {suffix!r}" in note if suffix else "5 without suffix" in note
    assert "dog/ (5 beside 8 images)" in note


def test_names_that_are_images_too(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path, write_image, {"cat": 8, "dog": 8})
    for number, suffix in enumerate([".jpe", ".apng"]):
        (tmp_path / "dog" / f"{number}{suffix}").write_bytes((tmp_path / "dog/0.png").read_bytes())
    source = load("folder", tmp_path)
    assert len(source.train) + len(source.test) == 18


@pytest.mark.parametrize(
    "parts",
    [
        ["seg_train/seg_train", "seg_test/seg_test"],
        ["training_set", "test_set"],
        ["train2017", "val2017"],
        ["fold1", "fold2", "fold3"],
    ],
)
def test_folders_of_the_same_folders_are_no_classes(tmp_path: Path, write_image: WriteImage, parts: list[str]) -> None:
    write_tree(tmp_path, write_image, {f"{part}/{name}": 2 for part in parts for name in ("a", "b", "c")})
    shutil.rmtree(tmp_path / parts[1] / "c")  # a rare class need not be in every part
    with pytest.raises(DataError, match=rf"{parts[0].split('/')[0]}/(.|\n)*a, b, c(.|\n)*train/ and test/"):
        load("folder", tmp_path)


def test_a_part_without_labels_beside_them(tmp_path: Path, write_image: WriteImage) -> None:
    counts = {f"{part}/{name}": 2 for part in ("seg_train", "seg_test") for name in "ab"}
    write_tree(tmp_path, write_image, {**counts, "seg_pred": 4})
    with pytest.raises(DataError, match="seg_test/, seg_train/"):
        load("folder", tmp_path)


@pytest.mark.parametrize("inner", [("images",), ("p1", "p2")])
def test_classes_may_hold_folders_of_their_own(tmp_path: Path, write_image: WriteImage, inner: tuple[str, ...]) -> None:
    counts = {f"{name}/{part}{name * (len(inner) > 1)}": 5 for name in "ab" for part in inner}
    write_tree(tmp_path, write_image, counts)
    assert load("folder", tmp_path).class_names == ("a", "b")


@pytest.mark.parametrize("other", ["extra", "dev"])
def test_folders_that_are_not_used_are_told(tmp_path: Path, write_image: WriteImage, other: str) -> None:
    write_tree(tmp_path, write_image, {f"{part}/{name}": 2 for part in ("train", "test", other) for name in "ab"})
    source = load("folder", tmp_path)
    assert (len(source.train), len(source.test)) == (4, 4)
    assert f"{other}/ is not used" in source.notes[0]


def test_a_test_folder_without_labels(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path, write_image, {"train/a": 5, "train/b": 5, "test": 3})
    with pytest.raises(DataError, match=r"test holds images, but no class folders"):
        load("folder", tmp_path)
    (tmp_path / "test").rename(tmp_path / "test1")
    source = load("folder", tmp_path)
    assert len(source.test) == 2
    assert "test1/ is not used" in source.notes[0]


@pytest.mark.parametrize(("of_train", "of_test"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_accents_written_together_and_apart_are_the_same_class(
    tmp_path: Path, write_image: WriteImage, of_train: str, of_test: str
) -> None:
    parts = {"train": of_train, "test": of_test}
    counts = {f"{part}/{normalize(form, name)}": 2 for part, form in parts.items() for name in ("café", "thé")}
    write_tree(tmp_path, write_image, counts)
    source = load("folder", tmp_path)
    assert source.class_names == ("café", "thé")
    assert (len(source.train), len(source.test)) == (4, 4)


def test_both_spellings_of_one_class_in_one_folder(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path, write_image, {normalize(form, "café"): 3 for form in ("NFC", "NFD")} | {"thé": 3})
    with pytest.raises(DataError, match="'café' is the name of 2 classes"):
        load("folder", tmp_path)


def test_class_names_that_look_alike_are_told(tmp_path: Path, write_image: WriteImage) -> None:
    write_tree(tmp_path, write_image, {"cat": 10, "Cat": 5})
    (note,) = prepare_data("folder", root=tmp_path).notes
    assert "'Cat' (4), 'cat' (8)" in note


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every name is text")
@pytest.mark.parametrize("stream", ["never", "always"])
def test_file_names_that_are_no_text(tmp_path: Path, write_image: WriteImage, stream: str) -> None:
    counts = {"train/a": 4, "train/b": 4, "test/a": 1, "test/b": 1}
    write_tree(tmp_path, write_image, counts)
    place = tmp_path / "train" / "a"
    (place / "0.png").rename(place / os.fsdecode(b"\xe9.png"))
    (place / os.fsdecode(b"\xff.png")).write_bytes(b"no image")
    with pytest.raises(DataError, match="1 of 11 images"):
        load("folder", tmp_path, stream=stream, workers=0)
    for _ in range(2):  # the second time from the cache
        source = load("folder", tmp_path, stream=stream, workers=0, skip_unreadable=True)
        assert len(source.train) == 8
        assert source.skipped[0].startswith(os.fsdecode(b"train/a/\xff.png: not an image"))
