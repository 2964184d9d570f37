"""Images listed as lines of path and label."""

from pathlib import Path

import pytest

from distail.config.schema import Data
from distail.data.prepare import prepare_data
from distail.data.sources import load_source
from distail.data.sources.locate import files_state
from distail.errors import DataError


@pytest.fixture
def listed(tmp_path, write_image):
    """Writes the images of `{folder: count}` and two lists of them; every fourth image is a test image."""

    def write(folders, label=lambda number, folder: number, separator=" "):
        lines = {"train": [], "test": []}
        for number, (folder, count) in enumerate(folders.items()):
            for image in range(count):
                path = tmp_path / "images" / folder / f"a picture {image}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_image(path, seed=100 * number + image)
                split = "test" if image % 4 == 3 else "train"
                lines[split].append(f"{folder}/a picture {image}.png{separator}{label(number, folder)}")
        for split, rows in lines.items():
            (tmp_path / f"{split}.txt").write_text("\n".join(rows) + "\n\n")
        return Data(name="list", root=tmp_path / "images", train=tmp_path / "train.txt", test=tmp_path / "test.txt")

    return write


def test_numbers_are_the_labels_and_folders_name_the_classes(listed):
    source = load_source(listed({"n03": 8, "n01": 12, "n02": 4}))
    assert source.class_names == ("n03", "n01", "n02")
    assert source.train.labels.tolist() == [0] * 6 + [1] * 9 + [2] * 3
    assert source.test.labels.tolist() == [0] * 2 + [1] * 3 + [2]
    assert source.train.names[0] == b"n03/a picture 0.png"


def test_numbers_name_classes_whose_images_lie_together(listed):
    source = load_source(listed({"all/x": 8, "other/x": 8}, separator="\t"))
    assert source.class_names == ("0", "1")


def test_labels_may_be_names(listed):
    source = load_source(listed({"a": 4, "b": 8}, label=lambda number, folder: f"class-{9 + number}"))
    assert source.class_names == ("class-9", "class-10")
    assert source.train.labels.tolist() == [0] * 3 + [1] * 6


def test_a_list_that_numbers_the_classes_otherwise_is_told(listed, tmp_path):
    options = listed({"cat": 8, "dog": 8, "lynx": 8})
    assert not any("numbered" in note for note in load_source(options).notes)
    rows = (tmp_path / "test.txt").read_text().splitlines()
    kept = [row.replace("png 2", "png 1") for row in rows if "dog" not in row]
    (tmp_path / "test.txt").write_text("\n".join(kept))
    (note,) = [note for note in load_source(options).notes if "numbered" in note]
    assert "test.txt: 2 images in the folder of another class" in note
    assert "'lynx/a picture 3.png', which is 1 and so 'dog'" in note


def test_lists_may_lie_in_the_root_and_streaming_gives_the_same(listed, tmp_path):
    options = listed({"a": 8, "b": 8})
    for split in ("train", "test"):
        (tmp_path / f"{split}.txt").rename(tmp_path / "images" / f"{split}.txt")
    options = options.model_copy(update={"train": Path("train.txt"), "test": Path("test.txt"), "validation": 0.2})
    held, streamed = (prepare_data(options.model_copy(update={"stream": how})) for how in ("never", "always"))
    assert held.subset_sha256 == streamed.subset_sha256
    assert held.class_counts == streamed.class_counts


def test_a_list_that_changes_is_other_data(listed, tmp_path):
    options = listed({"a": 8, "b": 8})
    before = files_state(options)
    file = tmp_path / "train.txt"
    file.write_text("\n".join(file.read_text().splitlines()[1:]))
    assert files_state(options) != before


def test_every_wrong_line_is_told_at_once(listed, tmp_path):
    options = listed({"a": 8, "b": 8})
    file = tmp_path / "train.txt"
    file.write_text(file.read_text() + "a/none.png 0\n/etc/passwd 0\n../x.png 0\na/a picture 0.png 0\n")
    with pytest.raises(DataError) as caught:
        load_source(options)
    told = str(caught.value)
    assert "4 problems" in told
    for culprit in ("'a/none.png' does not exist", "'/etc/passwd' is absolute", "'../x.png' leaves", "listed before"):
        assert culprit in told
    assert "line 14" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "lists no image"),
        ("alone.png\n", "line 1: 'alone.png' has no label"),
        ("a/a picture 0.png 2\n", "no image of"),
    ],
)
def test_lists_that_are_none(listed, tmp_path, text, told):
    options = listed({"a": 8, "b": 8})
    (tmp_path / "train.txt").write_text(text)
    if text.endswith("2\n"):
        (tmp_path / "test.txt").write_text("a/a picture 3.png 2\n")
    with pytest.raises(DataError, match=told):
        load_source(options)


def test_labels_of_the_test_alone(listed, tmp_path):
    options = listed({"a": 8, "b": 8})
    (tmp_path / "test.txt").write_text("a/a picture 3.png 7\n")
    with pytest.raises(DataError, match=r"labels 7, of which .*train.txt has no image"):
        load_source(options)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match=r"needs data\.root, data\.train, data\.test"):
        load_source(Data(name="list"))
    with pytest.raises(DataError, match=r"data.train is none.txt.*looked at none.txt and"):
        load_source(Data(name="list", root=tmp_path, train=Path("none.txt"), test=Path("none.txt")))


def test_lists_of_another_data_set_are_refused():
    with pytest.raises(DataError, match=r"data\.train, data\.test are for lists only"):
        load_source(Data(name="digits", train=Path("a.txt"), test=Path("b.txt")))


def test_a_list_of_validation_images_is_used_and_none_are_drawn(listed, tmp_path):
    options = listed({"a": 12, "b": 8})
    lines = [line for line in (tmp_path / "train.txt").read_text().splitlines() if line]
    (tmp_path / "val.txt").write_text("\n".join(lines[::4]))
    (tmp_path / "train.txt").write_text("\n".join(line for line in lines if line not in lines[::4]))
    before = files_state(options)
    for stream in ("never", "always"):
        data = prepare_data(options.model_copy(update={"validation": tmp_path / "val.txt", "stream": stream}))
        names = [name.decode() for name in data.validation.names.tolist()]
        assert names == [line.rpartition(" ")[0] for line in lines[::4]]
        assert len(data.train) == len(lines) - len(names)
    assert Data.model_validate({"name": "list", "validation": "val.txt"}).validation == Path("val.txt")
    assert files_state(options.model_copy(update={"validation": tmp_path / "val.txt"})) != before
    (tmp_path / "val.txt").write_text(lines[1])
    with pytest.raises(DataError, match=r"val.txt, line 1: .*is listed before"):
        load_source(options.model_copy(update={"validation": tmp_path / "val.txt"}))
    with pytest.raises(DataError, match=r"data.validation is .*no such file"):
        load_source(options.model_copy(update={"validation": Path("nowhere.txt")}))
    with pytest.raises(DataError, match=r"data.validation is 'val.txt': only data set 'list'"):
        load_source(Data(name="digits", validation=Path("val.txt")))


def test_a_third_column_is_the_group_and_no_split_tears_it_apart(listed, tmp_path):
    options = listed({"a": 40, "b": 40}, separator="\t")
    for split in ("train", "test"):
        lines = [line for line in (tmp_path / f"{split}.txt").read_text().splitlines() if line]
        (tmp_path / f"{split}.txt").write_text("\n".join(f"{line}\tp{row // 3}" for row, line in enumerate(lines)))
    patient_of = {}
    for line in (tmp_path / "train.txt").read_text().splitlines():
        path, _, patient_of[path] = line.split("\t")
    data = prepare_data(options.model_copy(update={"validation": 0.3}))
    patients = [{patient_of[name.decode()] for name in part.names.tolist()} for part in (data.train, data.validation)]
    assert patients[1]
    assert not patients[0] & patients[1]
    assert any("of the test set are in the training set too" in note for note in data.notes)
    with (tmp_path / "train.txt").open("a") as file:
        (tmp_path / "images" / "a" / "one more.png").write_bytes((tmp_path / "images/a/a picture 0.png").read_bytes())
        file.write("\na/one more.png\t0\tnan")
    with pytest.raises(DataError, match=r"1 line without a group"):
        load_source(options)
    file = tmp_path / "train.txt"
    file.write_text(file.read_text().removesuffix("\tnan"))
    with pytest.raises(DataError, match=r"1 line without a group"):
        load_source(options)
    assert load_source(options.model_copy(update={"group": None})).groups is None
