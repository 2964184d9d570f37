"""The layouts of the Hugging Face hub, from local files."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from distail.config.schema import Data
from distail.data.prepare import prepare_data
from distail.data.sources import load_source
from distail.errors import DataError


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue(), pixels


def write_parquet(file, labels, names, first=0, **columns):
    """As `datasets` writes it: a struct of bytes and path, names in the schema's metadata."""
    images = [{"bytes": png(first + row)[0], "path": f"{row}.png"} for row in range(len(labels))]
    table = pa.table({"image": images, "label": pa.array(labels, pa.int64()), **columns})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        told = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": told})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)


def of(root, **changes):
    return Data(name="huggingface", root=root, **changes)


@pytest.mark.parametrize("names", [["tabby", "lynx"], {"0": "tabby", "1": "lynx"}])
def test_parquet_in_parts_with_names_from_the_schema(tmp_path, names):
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", [0, 1, 0], names)
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", [1], names, first=3)
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [1, 0], names, first=4)
    source = load_source(of(tmp_path))
    assert source.class_names == ("tabby", "lynx")
    assert source.train.labels.tolist() == [0, 1, 0, 1]
    for row in range(4):
        assert np.array_equal(source.train.images[row].permute(1, 2, 0).numpy(), png(row)[1])


def test_files_that_number_their_classes_otherwise_are_refused(tmp_path):
    """As `class_encode_column` of each split leaves them, where one has no image of a class."""
    write_parquet(tmp_path / "train.parquet", [0, 1, 2], ["cat", "dog", "lynx"])
    write_parquet(tmp_path / "test.parquet", [0, 1], ["cat", "lynx"], first=3)
    with pytest.raises(DataError, match=r"test.parquet numbers its classes cat, lynx, but .* cat, dog, lynx"):
        load_source(of(tmp_path))
    write_parquet(tmp_path / "test.parquet", [0, 2], None, first=3)
    assert load_source(of(tmp_path)).test.labels.tolist() == [0, 2]


def test_labels_without_names_are_refused(tmp_path):
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}.parquet", [0, 1], None)
    with pytest.raises(DataError, match=r"train.parquet does not contain the names of its labels.*ClassLabel"):
        load_source(of(tmp_path))


def test_parquet_does_not_stream(tmp_path):
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}.parquet", [0, 1], ["a", "b"])
    with pytest.raises(DataError, match="stream"):
        load_source(of(tmp_path, stream="always"))


def write_folder(folder, labels, kind):
    rows = []
    for row, label in enumerate(labels):
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        (folder / "pictures" / f"{row}.png").write_bytes(png(row)[0])
        rows.append({"file_name": f"pictures/{row}.png", "label": label, "caption": "a, b"})
    if kind == "csv":
        lines = ["file_name,label,caption", *(f'{row["file_name"]},{row["label"]},"a, b"' for row in rows)]
    else:
        lines = [json.dumps(row) for row in rows]
    (folder / f"metadata.{kind}").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("labels", [("dog", "cat"), (1, 0), (10, 9)])
def test_imagefolder_with_metadata(tmp_path, kind, labels):
    first, second = labels
    write_folder(tmp_path / "train", [first, second, first], kind)
    write_folder(tmp_path / "validation", [second, first], kind)
    source = load_source(of(tmp_path))
    assert source.class_names == (str(second), str(first))
    assert source.train.labels.tolist() == [1, 0, 1]
    assert source.test.labels.tolist() == [0, 1]
    assert any("validation/ is the test set" in note for note in source.notes)


def test_without_a_test_set_a_fifth_is_it(tmp_path):
    write_folder(tmp_path, ["a"] * 10 + ["b"] * 10, "csv")
    source = load_source(of(tmp_path))
    assert source.test.labels.bincount().tolist() == [2, 2]


def test_every_wrong_row_is_told(tmp_path):
    write_folder(tmp_path / "train", ["a", "b"], "csv")
    with (tmp_path / "train" / "metadata.csv").open("a") as file:
        file.write("pictures/9.png,a,x\n,a,x\npictures/0.png,,x\n../../../../etc/passwd,a,x\n")
    with pytest.raises(DataError) as caught:
        load_source(of(tmp_path))
    assert "4 problems" in str(caught.value)
    for culprit in ("line 4: 'pictures/9.png' is not a file", "line 5: no file_name", "line 6: no label", "line 7"):
        assert culprit in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[1]", '{"file_name": "x.png"}', ""])
def test_damaged_metadata(tmp_path, text):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "metadata.jsonl").write_text(text)
    with pytest.raises(DataError, match=r"metadata\.jsonl"):
        load_source(of(tmp_path))


def test_neither_layout(tmp_path):
    with pytest.raises(DataError, match=r"metadata\.csv"):
        load_source(of(tmp_path))


@pytest.mark.parametrize("name", ["validation", "valid", "val"])
def test_a_validation_split_beside_the_test_set_is_used(tmp_path, name):
    for split, labels in (("train", [0, 1, 0, 1]), (name, [1, 0, 1]), ("test", [0, 1])):
        write_parquet(tmp_path / "parquet" / f"{split}.parquet", labels, ["a", "b"], first=10 * len(split))
        write_folder(tmp_path / "folder" / split, labels, "csv")
    for root in (tmp_path / "parquet", tmp_path / "folder"):
        source = load_source(of(root))
        parts = (source.train, source.validation, source.test)
        assert [part.labels.tolist() for part in parts] == [[0, 1, 0, 1], [1, 0, 1], [0, 1]]
        assert not any("not used" in note for note in source.notes)


def test_groups_of_the_metadata_stay_whole(tmp_path):
    write_folder(tmp_path, [0, 1] * 20, "jsonl")
    file = tmp_path / "metadata.jsonl"
    rows = [{**json.loads(line), "patient": row // 4} for row, line in enumerate(file.read_text().splitlines())]
    file.write_text("\n".join(map(json.dumps, rows)))
    source = load_source(of(tmp_path, group="patient"))
    patient_of = {row["file_name"]: row["patient"] for row in rows}
    patients = [{patient_of[name.decode()] for name in part.names.tolist()} for part in (source.train, source.test)]
    assert not patients[0] & patients[1]
    assert [len(each) for each in (source.groups.train, source.groups.test)] == [len(source.train), len(source.test)]
    assert load_source(of(tmp_path, group=None)).groups is None
    with pytest.raises(DataError, match="'pateint'"):
        load_source(of(tmp_path, group="pateint"))
    for none in (None, "nan"):
        file.write_text("\n".join(map(json.dumps, [{**rows[0], "patient": none}, *rows[1:]])))
        with pytest.raises(DataError, match=r"1 image of .* without 'patient'"):
            load_source(of(tmp_path, group="patient"))


def write_table(root, names, name="metadata.csv", separator=","):
    """Images by their paths, of class a and b in turn, and one table of them all."""
    labels = ["ab"[row % 2] for row in range(len(names))]
    for row, path in enumerate(names):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(png(row)[0])
    if name.endswith("csv"):
        lines = [separator.join(row) for row in [("file_name", "label"), *zip(names, labels, strict=True)]]
    else:
        rows = zip(names, labels, strict=True)
        lines = [json.dumps({"file_name": path, "label": label}) for path, label in rows]
    (root / name).write_text("\n".join(lines), encoding="utf-8-sig")


def names_of(images):
    return None if images is None else [name.decode() for name in images.names.tolist()]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
@pytest.mark.parametrize(
    ("folders", "note"),
    [
        ({"train": "train", "test": "test"}, False),
        ({"train": "data/Train", "validation": "data/dev", "test": "data/eval"}, False),
        ({"train": "train", "test": "val"}, True),
    ],
)
def test_folders_of_one_table_are_the_splits(tmp_path, name, folders, note):
    names = {split: [f"{folder}/test/{row}.png" for row in range(4)] for split, folder in folders.items()}
    write_table(tmp_path, [path for paths in names.values() for path in paths], name)
    source = load_source(of(tmp_path))
    found = {"train": source.train, "validation": source.validation, "test": source.test}
    assert {split: names_of(images) for split, images in found.items() if images is not None} == names
    assert any("is the test set" in said for said in source.notes) == note


@pytest.mark.parametrize("folders", [("train", "cat"), ("train",), ("pictures",)])
def test_without_a_folder_for_testing_a_fifth_of_one_table_is_it(tmp_path, folders):
    write_table(tmp_path, [f"{folder}/{row}.png" for folder in folders for row in range(20)])
    source = load_source(of(tmp_path))
    assert len(source.test) == 4 * len(folders)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["train/1.png", "train/2.png", "test/3.png", "4.png"], ["test", "1 image", "'4.png'"]),
        (["cat/1.png", "val/2.png"], ["validation", "'cat/1.png'"]),
        (["test/1.png", "test/2.png"], ["test", "none in train/"]),
    ],
)
def test_a_table_of_which_only_some_lie_in_folders_of_splits_is_refused(tmp_path, names, said):
    write_table(tmp_path, names)
    with pytest.raises(DataError) as told:
        load_source(of(tmp_path))
    assert [part for part in said if part not in str(told.value)] == []


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_what_separates_columns_and_a_byte_order_mark(tmp_path, separator):
    write_table(tmp_path / "train", ["1.png", "2.png", "3.png"], separator=separator)
    write_table(tmp_path / "test", ["1.png", "2.png"], "metadata.jsonl")
    source = load_source(of(tmp_path))
    assert source.class_names == ("a", "b")
    assert (source.train.labels.tolist(), source.test.labels.tolist()) == ([0, 1, 0], [0, 1])


def test_metadata_that_is_not_read_is_told(tmp_path):
    write_table(tmp_path / "train", ["1.png", "2.png", "3.png"])
    write_table(tmp_path / "test", ["1.png", "2.png"])
    write_table(tmp_path, ["4.png"])
    source = load_source(of(tmp_path))
    assert len(source.train) == 3
    assert any(f"{tmp_path / 'metadata.csv'} is not read" in said for said in source.notes)


def test_an_image_that_is_listed_twice_is_refused(tmp_path):
    write_table(tmp_path / "train", ["1.png", "2.png", "./1.png"])
    write_table(tmp_path / "test", ["../train/2.png", "4.png"], "metadata.jsonl")
    with pytest.raises(DataError, match=r"2 images .* more than once") as told:
        load_source(of(tmp_path))
    for place in (
        "'train/1.png': train/metadata.csv, line 2, train/metadata.csv, line 4",
        "test/metadata.jsonl, line 1",
    ):
        assert place in str(told.value)


def patients(root, **columns):
    """Two images of each of ten patients, and two of another for the test."""
    write_parquet(root / "train.parquet", [0, 1] * 10, ["a", "b"], **columns)
    write_parquet(root / "test.parquet", [0, 1], ["a", "b"], 20, **{name: ["z", "z"] for name in columns})
    return root


def test_groups_of_parquet_stay_whole(tmp_path):
    root = patients(tmp_path, patient=[f"p{row // 2}" for row in range(20)])
    for name, options in (("group", {}), ("patient", {"group": "patient"})):
        data = prepare_data(of(root, validation=0.3, **options), seed=0)
        kept, held_out = ({row // 2 for row in rows.tolist()} for rows in (data.train_rows, data.validation_rows))
        assert bool(kept & held_out) == (name == "group"), "a default name that no column has makes no groups"
    with pytest.raises(DataError, match=r"data\.group: .*'patients'.*patient"):
        load_source(of(root, group="patients"))
    with pytest.raises(DataError, match="10 of 20 have no group"):
        load_source(of(patients(tmp_path / "gaps", patient=["a", None] * 10), group="patient"))


@pytest.mark.parametrize(("labels", "names"), [((0.0, 1.0), ("0", "1")), ((False, True), ("False", "True"))])
def test_numbers_of_metadata_are_written_alike(tmp_path, labels, names):
    for split in ("train", "test"):
        write_folder(tmp_path / split, labels, "jsonl")
    assert load_source(of(tmp_path)).class_names == names


def test_one_table_says_where_its_rows_are(tmp_path):
    write_table(tmp_path, [f"{row}.png" for row in range(20)])
    source = load_source(of(tmp_path))
    for rows, images in zip(source.file_rows, (source.train, source.test), strict=True):
        assert [f"{row}.png" for row in rows.tolist()] == names_of(images)
