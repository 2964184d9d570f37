from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest

from distail.data.long_tail import class_counts
from distail.errors import DataError
from helpers.sources import load

WriteImage = Callable[..., np.ndarray]


@pytest.fixture
def manifest(tmp_path: Path, write_image: WriteImage) -> Callable[[str], Path]:
    """Ten images i0.png ... i9.png in a folder and a manifest beside it with the given text."""
    for number in range(10):
        write_image(tmp_path / "set" / "images" / f"i{number}.png", seed=number)

    def write(text: str) -> Path:
        path = tmp_path / "set" / "list.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_labels_of_any_text_and_a_split(
    manifest: Callable[[str], Path], write_image: WriteImage, tmp_path: Path
) -> None:
    lines = ["path,label,split"]
    lines += [
        f"images/i{number}.png,class {10 if number % 2 else 9},{'test' if number > 6 else 'train'}"
        for number in range(10)
    ]
    source = load("csv", manifest("\n".join(lines)))
    assert source.class_names == ("class 9", "class 10")
    assert source.train.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert source.test.labels.tolist() == [1, 0, 1]
    expected = write_image(tmp_path / "again.png", seed=8)
    np.testing.assert_array_equal(source.test.images[1].permute(1, 2, 0).numpy(), expected)


def test_without_a_split_a_stratified_fifth(manifest: Callable[[str], Path]) -> None:
    path = manifest("label,path\n" + "\n".join(f"{number % 2},images/i{number}.png" for number in range(10)))
    source = load("csv", path)
    assert source.class_names == ("0", "1")
    assert class_counts(source.train.labels, 2) == (4, 4)
    assert class_counts(source.test.labels, 2) == (1, 1)


def test_numbers_are_ordered_as_numbers(manifest: Callable[[str], Path]) -> None:
    labels = [2, 10, 2, 10, 2, 10, 2, 10, 1, 1]
    text = "path,label\n" + "\n".join(f"images/i{number}.png,{label}" for number, label in enumerate(labels))
    assert load("csv", manifest(text)).class_names == ("1", "2", "10")


@pytest.mark.parametrize("stream", ["always", "never"])
def test_a_validation_split_and_groups_of_ones_own(
    manifest: Callable[[str], Path], write_image: WriteImage, tmp_path: Path, stream: str
) -> None:
    parts = ["train"] * 5 + ["valid"] * 2 + ["test"] * 3
    rows = [f"images/i{number}.png,{'ab'[number % 2]},{part},p{number // 2}" for number, part in enumerate(parts)]
    source = load("csv", manifest("path,label,split,group\n" + "\n".join(rows)), stream=stream)
    found = [[name.decode() for name in part.names] for part in (source.train, source.validation, source.test)]
    assert found == [[f"images/i{number}.png" for number in range(*ends)] for ends in ((0, 5), (5, 7), (7, 10))]
    groups = source.groups
    assert [part.tolist() for part in (groups.train, groups.validation, groups.test)] == [
        [0, 0, 1, 1, 2],
        [2, 3],
        [3, 4, 4],
    ]
    unknown = [rows[0].replace(",p0", ",nan"), *rows[1:]]  # as pandas writes a missing one
    with pytest.raises(DataError, match="line 2: there is no group, but 'nan'"):
        load("csv", manifest("path,label,split,group\n" + "\n".join(unknown)))
    with pytest.raises(DataError, match="'patient'"):
        load("csv", manifest("path,label,split,group\n" + "\n".join(rows)), group="patient")
    assert load("csv", manifest("path,label,split,group\n" + "\n".join(rows)), group=None).groups is None


def test_spaces_quotes_bom_and_further_columns(manifest: Callable[[str], Path]) -> None:
    rows = [f'"images/i{number}.png", "a, b" ,7' if number % 2 else f"images/i{number}.png,c,8" for number in range(10)]
    source = load("csv", manifest("\ufeffpath, label , weight\r\n" + "\r\n".join(rows) + "\r\n\r\n"))
    assert source.class_names == ("a, b", "c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "missing: path, label"),
        ("file,label\nx,1\n", r"has the columns file, label; missing: path"),
        ("path\nx\n", "missing: label"),
        ("path,label\n", "lists no image"),
        ("path,label\nimages/i0.png,\n", "line 2: there is no label"),
        ("path,label\nimages/i0.png\n", "line 2: there is no label"),
        ("path,label\n,a\n", "line 2: there is no path"),
        ("path,label,split\nimages/i0.png,a,vla\n", "line 2: .*'vla'.*train, test, val"),
        ("path,label,split\nimages/i0.png,a,\n", "line 2: .*''.*train, test, val"),
        ("path,label,group\nimages/i0.png,a,\n", "line 2: there is no group"),
        ("path,label,split\nimages/i0.png,a,train\n", "no row has the split 'test'"),
        ("path,label,split\nimages/i0.png,a,test\n", "no row has the split 'train'"),
        ("path,label\nimages/none.png,a\n", "line 2: 'images/none.png' does not exist"),
        ("path,label\nimages/none.png,a\n", "^1 problem in "),
        ("path,label\nimages/i0.png,a,b,c\n", "^1 problem in "),
        ("path,label\nimages,a\n", "line 2: 'images' is not a file"),
        ("path,label\n../other.png,a\n", r"'\.\./other\.png' .*\.\."),
        ("path,label\nimages/../images/i0.png,a\n", r"by \.\."),
        ("path,label\n/etc/passwd,a\n", "'/etc/passwd' is absolute"),
        ("path,label\nC:\\x.png,a\n", "is absolute"),
        ("path,label\nimages/i0.png,a\nimages/i0.png,b\n", r"lines 2, 3: 'images/i0\.png' is listed more than once"),
    ],
)
def test_what_cannot_be_used_is_said(manifest: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load("csv", manifest(text))


def test_all_problems_at_once_cut_after_ten(manifest: Callable[[str], Path]) -> None:
    rows = [f"images/gone{number}.png,a" for number in range(9)] + ["/abs.png,", "../x.png,b"]
    with pytest.raises(DataError) as error:
        load("csv", manifest("path,label\n" + "\n".join(rows)))
    message = str(error.value)
    assert message.startswith("12 problems in ")
    assert "line 2: 'images/gone0.png' does not exist" in message
    assert "line 11: there is no label" in message
    assert message.endswith("... and 2 more")


def test_links_may_not_leave_the_folder(
    manifest: Callable[[str], Path], tmp_path: Path, write_image: WriteImage
) -> None:
    write_image(tmp_path / "secret" / "x.png")
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "secret" / "x.png")
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "secret")
    (tmp_path / "set" / "inner.png").symlink_to(tmp_path / "set" / "images" / "i0.png")
    with pytest.raises(DataError) as error:
        load("csv", manifest("path,label\nlink.png,a\nlinked/x.png,a\ninner.png,b\n"))
    assert "2 problems" in str(error.value)
    assert "'link.png' leaves the manifest's folder by a symbolic link" in str(error.value)
    assert "'linked/x.png' leaves" in str(error.value)


def test_a_manifest_in_a_linked_folder_is_fine(manifest: Callable[[str], Path], tmp_path: Path) -> None:
    manifest("path,label\n" + "\n".join(f"images/i{number}.png,{number % 2}" for number in range(10)))
    (tmp_path / "alias").symlink_to(tmp_path / "set")
    assert len(load("csv", tmp_path / "alias" / "list.csv").train) == 8


def test_files_that_are_not_csv(manifest: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01path,label\x80")
    with pytest.raises(DataError, match="cannot be read as CSV in UTF-8"):
        load("csv", tmp_path / "binary.csv")
    with pytest.raises(DataError, match="not a file"):
        load("csv", tmp_path)
    with pytest.raises(DataError, match=r"needs data\.root"):
        load("csv")


def test_a_class_only_in_the_test_set(manifest: Callable[[str], Path]) -> None:
    with pytest.raises(DataError, match=r"class 1 \(b\)"):
        load("csv", manifest("path,label,split\nimages/i0.png,a,train\nimages/i1.png,b,test\n"))


def test_a_changed_label_is_not_taken_from_the_cache(manifest: Callable[[str], Path]) -> None:
    text = "path,label\n" + "\n".join(f"images/i{number}.png,{number % 2}" for number in range(10))
    first = load("csv", manifest(text))
    second = load("csv", manifest(text.replace("i1.png,1", "i1.png,0")))
    assert (first.train.labels.sum() + first.test.labels.sum()).item() == 5
    assert (second.train.labels.sum() + second.test.labels.sum()).item() == 4
    assert load("csv", manifest(text)).notes == ()


def test_unreadable_images(manifest: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "set" / "images" / "i3.png").write_bytes(b"")
    path = manifest("path,label\n" + "\n".join(f"images/i{number}.png,{number % 2}" for number in range(10)))
    with pytest.raises(DataError, match=r"1 of 10 images(.|\n)*images/i3\.png: .*empty"):
        load("csv", path)
    assert len(load("csv", path, skip_unreadable=True).skipped) == 1


def lists_ten(header: str, separator: str = ",", end: str = "\n") -> str:
    return end.join([header, *(f"images/i{number}.png{separator}c{number % 2}" for number in range(10))])


@pytest.mark.parametrize("separator", [",", "\t", ";", "\t "])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_and_line_ends_of_every_program(manifest: Callable[[str], Path], separator: str, end: str) -> None:
    path = manifest("")
    path.write_bytes(lists_ten(f"path{separator}label", separator, end).encode("utf-8-sig"))
    source = load("csv", path)
    assert source.class_names == ("c0", "c1")
    assert len(source.train) == 8


def test_images_outside_the_folder_only_when_told(
    manifest: Callable[[str], Path], tmp_path: Path, write_image: WriteImage
) -> None:
    write_image(tmp_path / "secret" / "x.png")
    write_image(tmp_path / "secret" / "y.png")
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "secret" / "x.png")
    path = manifest(lists_ten("path,label") + f"\nlink.png,c0\n../secret/x.png,c0\n{tmp_path}/secret/y.png,c1")
    with pytest.raises(DataError) as error:
        load("csv", path)
    assert "3 problems" in str(error.value)
    assert str(error.value).count("data.allow_outside_root: true allows it") == 3
    source = load("csv", path, allow_outside_root=True)
    assert len(source.train) + len(source.test) == 13


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label,path\nimages/i0.png,a,b\n", "has the column path more than once"),
        ("path,label\nimages/i0.png,a,b\n", "line 2: 3 fields, but 2 columns.* quotes"),
        ("path,label\nimages/i0.png,a\0b\nimages/i1.png,c\n", r"'a\\x00b'"),
        ("path,label\nimages/\0.png,a\n", "does not exist"),
        ("path,label\nimages/i0.png,a\n./images//i0.png,b\n", r"lines 2, 3: 'images/i0\.png' is listed more than once"),
        ("path,label\nimages\\i0.png,a\n", r"separated by /"),
        ("path,label\nloop.png,a\n", "'loop.png'"),
        (f"path,label\n{'x' * 300}.png,a\n", "File name too long"),
        (f"path,label\n{'x/' * 3000}.png,a\n", "File name too long"),
        (lists_ten("path,label").replace("c1", "c0"), "has a single class, 'c0'"),
        (lists_ten("path,label").replace("c1", "c\x1b[2J"), r"'c\\x1b\[2J'"),
        (lists_ten("path,label") + '\nimages/i0.png,"a\nb"', "listed more than once"),
        ("path,label\n" + "x" * 140_000, "field larger than field limit"),
        ("x" * 140_000, "field larger than field limit"),
        ('path,label\n"' + "x\n" * 140_000, "field larger than field limit"),
    ],
)
def test_what_no_program_should_write(manifest: Callable[[str], Path], text: str, message: str) -> None:
    path = manifest(text)
    (path.parent / "loop.png").symlink_to(path.parent / "loop.png")
    with pytest.raises(DataError, match=message):
        load("csv", path)


def test_utf_16_and_a_device(manifest: Callable[[str], Path]) -> None:
    path = manifest("")
    path.write_bytes(lists_ten("path,label").encode("utf-16"))
    with pytest.raises(DataError, match="cannot be read as CSV in UTF-8"):
        load("csv", path)
    with pytest.raises(DataError, match="which is not a file"):
        load("csv", "/dev/zero")


def test_numbers_of_thousands_of_digits_are_labels_like_others(manifest: Callable[[str], Path]) -> None:
    text = lists_ten("path,label").replace("c0", "9" * 5000).replace("c1", "8" * 5000)
    assert load("csv", manifest(text)).class_names == ("8" * 5000, "9" * 5000)


@pytest.mark.parametrize(("in_file", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_of_paths_written_together_and_apart(
    manifest: Callable[[str], Path], tmp_path: Path, in_file: str, on_disk: str
) -> None:
    (tmp_path / "set" / "images" / "i3.png").rename(tmp_path / "set" / "images" / normalize(on_disk, "thé.png"))
    names = [normalize(in_file, "thé") if number == 3 else f"i{number}" for number in range(10)]
    lines = [f"images/{name}.png,{'ab'[number % 2]}" for number, name in enumerate(names)]
    source = load("csv", manifest("path,label\n" + "\n".join(lines)))
    assert len(source.train) + len(source.test) == 10
    with pytest.raises(DataError, match="listed more than once"):
        load("csv", manifest("path,label\n" + "\n".join([*lines, f"images/{normalize(on_disk, 'thé')}.png,a"])))


def test_rows_are_known_by_their_place_in_the_file(manifest: Callable[[str], Path]) -> None:
    source = load("csv", manifest("path,label\n" + "\n".join(f"images/i{9 - row}.png,{row % 2}" for row in range(10))))
    assert source.file_rows is not None
    for rows, images in zip(source.file_rows, (source.train, source.test), strict=True):
        assert images.names is not None
        assert [f"images/i{9 - row}.png" for row in rows.tolist()] == [name.decode() for name in images.names.tolist()]
