from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from safetensors.numpy import save_file

from distail.audit import logits_csv
from distail.audit.from_file import load_file
from distail.audit.logits_file import holds_logits, read_logits
from distail.errors import DataError

LOGITS = np.array([[1.5, -2.0, 0.25], [0.0, 3.0, -1.0]], dtype=np.float32)
LABELS = np.array([0, 2])


def write_csv(path: Path, header: str, *lines: str) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_each_kind_of_file_gives_the_same(tmp_path: Path) -> None:
    save_file({"logits": LOGITS, "target": LABELS}, tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", logits=LOGITS, labels=LABELS)
    np.savez_compressed(tmp_path / "b.npz", logits=LOGITS.astype(">f8"), target=LABELS.astype(np.uint8))
    write_csv(tmp_path / "a.csv", "label,logit_0,logit_1,logit_2", "0,1.5,-2,0.25", "2,0,3e0,-1")
    write_csv(tmp_path / "b.csv", "logit_2, logit_0 ,logit_1,target", "0.25,1.5,-2,0", "-1,0,3,2")
    write_csv(tmp_path / "c.csv", '\ufefflabel,dog,"cat, big",bee', "dog,1.5,-2,0.25", "bee,0,3,-1")
    names = {}
    for path in sorted(tmp_path.iterdir()):
        table = read_logits(path)
        np.testing.assert_array_equal(table.logits.numpy(), LOGITS)
        np.testing.assert_array_equal(table.target.numpy(), LABELS)
        names[path.name] = table.class_names
    assert names.pop("c.csv") == ("dog", "cat, big", "bee")
    assert set(names.values()) == {None}


def test_columns_of_a_csv_that_name_its_rows_are_no_classes(tmp_path: Path) -> None:
    # As a table with its index and an id is written: by number these labels would each be taken for the class before.
    numbered = write_csv(tmp_path / "a.csv", ",id,label,logit_0,logit_1,logit_2", "0,7,0,1.5,-2,0.25", "1,8b,2,0,3,-1")
    named = write_csv(tmp_path / "b.csv", "path,label,dog,cat,bee", "x/1.png,0,1.5,-2,0.25", "x/2.png,2,0,3,-1")
    prefixed = write_csv(tmp_path / "c.csv", "label,logit_dog,logit_cat,logit_bee", "dog,1.5,-2,0.25", "bee,0,3,-1")
    for path, names in ((numbered, None), (named, ("dog", "cat", "bee")), (prefixed, ("dog", "cat", "bee"))):
        table = read_logits(path)
        np.testing.assert_array_equal(table.logits.numpy(), LOGITS)
        assert (table.target.tolist(), table.class_names) == ([0, 2], names)


def test_labels_may_be_names_of_classes(tmp_path: Path) -> None:
    names, texts = ("bee", "ä", "cat"), np.array(["bee", "cat", "ä", "bee"])
    rows = np.concatenate([LOGITS, LOGITS])
    np.savez(tmp_path / "a.npz", logits=rows, target=texts, class_names=np.array(names))
    stored = np.array([text.encode() for text in texts]).view(np.uint8).reshape(4, -1)
    facts = {"class_names": json.dumps(names)}
    padded = np.pad(stored, ((0, 0), (0, 2)))
    save_file({"logits": rows, "target": padded}, tmp_path / "b.safetensors", metadata=facts)
    table = pa.table({"logits": rows.tolist(), "labels": texts}).replace_schema_metadata(facts)
    parquet.write_table(table, tmp_path / "c.parquet")
    for path in sorted(tmp_path.iterdir()):
        assert read_logits(path).target.tolist() == [0, 2, 1, 0], path


def test_the_teachers_logits_are_taken_where_there_are_both(tmp_path: Path) -> None:
    save_file({"logits": LOGITS, "teacher_logits": LOGITS + 1, "target": LABELS}, tmp_path / "p.safetensors")
    table = read_logits(tmp_path / "p.safetensors")
    assert table.source == "teacher_logits"
    np.testing.assert_array_equal(table.logits.numpy(), LOGITS + 1)


@given(st.lists(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=3, max_size=3), min_size=1, max_size=30))
def test_any_numbers_survive_csv(tmp_path_factory: pytest.TempPathFactory, rows: list[list[float]]) -> None:
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    rows = [[5.0, *row[1:]] for row in rows]  # never probabilities
    write_csv(path, "label,a,b,c", *(",".join(["1", *map(repr, row)]) for row in rows))
    np.testing.assert_array_equal(read_logits(path).logits.numpy(), np.array(rows, dtype=np.float32))


def test_blocks_of_csv_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logits_csv, "_BLOCK_BYTES", 200)
    path = write_csv(tmp_path / "x.csv", "label,a,b", *(f"{i % 2},{i},{-i}" for i in range(500)))
    table = read_logits(path)
    assert table.logits[:, 0].tolist() == list(range(500))
    assert table.target.tolist() == [i % 2 for i in range(500)]


def test_an_empty_cell_is_not_a_number(tmp_path: Path) -> None:
    table = read_logits(write_csv(tmp_path / "x.csv", "label,a,b", "0,1,2", "1,,2"))
    assert table.logits.isnan().tolist() == [[False, False], [True, False]]


class Danger:
    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return Path("/tmp/never").touch, ()  # type: ignore[return-value]


def pickled(path: Path) -> None:
    np.savez(path, logits=np.array([Danger(), 1], dtype=object), labels=LABELS)


def one_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, LOGITS)


def truncated(path: Path) -> None:
    np.savez(path, logits=LOGITS, labels=LABELS)
    path.write_bytes(path.read_bytes()[:-100])


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3 * 2**30)


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content, encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        ("x.npz", pickled, "pickled"),
        ("x.npz", lambda path: path.write_bytes(pickle.dumps(LOGITS)), "pickled"),
        (
            "x.npz",
            lambda path: np.savez(path, logits=LOGITS, labels=LABELS, class_names=np.array(list("abc"), dtype=object)),
            r"array class_names.*class_names\.astype\(str\)",
        ),
        (
            "x.npz",
            lambda path: np.savez(path, logits=LOGITS, labels=["a", "d"], class_names=["a", "b", "c"]),
            "labels hold 'd'; .* a, b, c",
        ),
        ("x.npz", one_array, "single array"),
        ("x.npz", truncated, "npz"),
        ("x.npz", lambda path: path.write_bytes(b""), "npz"),
        ("x.npz", lambda path: np.savez(path, scores=LOGITS), "scores; expected logits"),
        ("x.npz", lambda path: np.savez(path, logits=LOGITS, labels=np.array(["a", "b"])), "labels .*text"),
        ("x.npz", lambda path: np.savez(path, logits=np.eye(2), labels=LABELS), "probabilities"),
        (
            "x.npz",
            lambda path: np.savez(path, logits=np.array([[0.97, 0.01], [0.33, 0.66]]), labels=LABELS),
            "probabilities",
        ),
        ("x.npz", lambda path: np.savez(path, logits=100 * np.eye(2), labels=LABELS), r"percentages.*numpy\.log"),
        ("x.safetensors", lambda path: path.write_bytes(b"12345678garbage"), "safetensors"),
        ("x.safetensors", lambda path: save_file({"logits": LOGITS}, path), "logits; expected logits .*target"),
        ("x.pkl", lambda path: path.write_bytes(b""), r"'\.pkl'.*\.csv, \.npz, \.parquet, \.safetensors"),
        ("x", lambda path: path.write_bytes(b""), "'nothing'"),
        ("x.csv", huge, r"3\.0 GiB.*2 GiB.*npz"),
        ("x.csv", text(""), "expected a header: label,logit_0"),
        ("x.csv", text("label;a;b\n0;1;2\n"), "'label'.*commas"),
        ("x.csv", text("a,b\n1,2\n"), "'label'.*'a', 'b'"),
        ("x.csv", text("label\n1\n"), "expected .*logit_0"),
        ("x.csv", text("label,a,a\n0,1,2\n"), "'a'"),
        ("x.csv", text("label,logit_0,logit_2\n0,1,2\n"), "'logit_1'; expected logit_0 to logit_1"),
        ("x.csv", text("label,file,a\n0,cat.png,2\n"), r"'file'.*'cat\.png'"),
        ("x.csv", text("label,a,b\n0,1\n"), "3 columns, got 2"),
        (
            "x.csv",
            text("label,a,b\n0,5,2\nzebra,5,1\n"),
            "'zebra' in row 1",
        ),
        (
            "x.csv",
            text("label,cat,dog\ncat,5,2\ndog,5,1\ncow,1,2\n"),
            "'cow' in row 2",
        ),
        (
            "x.csv",
            text("label,cat,dog\ncat,5,2\n1,5,1\n"),
            "'1' in row 1.*'cat', 'dog'",
        ),
        ("x.csv", text("label,logit_0,logit_1\n0.5,5,2\n"), r"'0\.5' in row 0"),
        ("x.csv", lambda path: path.write_bytes(b"label,\xff\xfe\n"), "csv"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, name: str, write: Callable[[Path], object], said: str) -> None:
    write(tmp_path / name)
    with pytest.raises(DataError, match=said):
        read_logits(tmp_path / name)
    assert not Path("/tmp/never").exists()


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.npz"):
        read_logits(tmp_path / "x.npz")


def test_logits_are_told_from_weights(tmp_path: Path) -> None:
    save_file({"logits": LOGITS, "labels": LABELS}, tmp_path / "logits.safetensors")
    save_file({"fc.weight": LOGITS}, tmp_path / "weights.safetensors")
    assert holds_logits(tmp_path / "logits.safetensors")
    assert not holds_logits(tmp_path / "weights.safetensors")
    assert not holds_logits(tmp_path / "none.safetensors")


def test_half_precision_logits_stay_small(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", logits=LOGITS.astype(np.float16), labels=LABELS)
    assert read_logits(tmp_path / "x.npz").logits.dtype == torch.float16


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_labels_without_sign(tmp_path: Path, dtype: str, kind: str) -> None:
    path = tmp_path / f"x.{kind}"
    arrays = {"logits": 5 * np.eye(3, dtype="float32"), "target": np.array([0, 2, 1], dtype=dtype)}
    np.savez(path, **arrays) if kind == "npz" else save_file(arrays, path)
    assert read_logits(path).target.long().tolist() == [0, 2, 1]


def test_labels_that_no_number_of_torch_holds(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", logits=np.zeros((2, 2)), labels=np.array([0, 2**63], dtype=np.uint64))
    with pytest.raises(DataError, match=r"labels hold 9223372036854775808"):
        read_logits(tmp_path / "x.npz")


def test_names_with_as_many_bytes_as_there_are_classes_are_names(tmp_path: Path) -> None:
    names = [*"abcdefghi", "automobile"]
    texts = np.array([name.ljust(10, "\0").encode() for name in names]).view("S10")
    stored = np.frombuffer(b"".join(text.ljust(10, b"\0") for text in texts.tolist()), np.uint8).reshape(10, 10)
    rows = np.eye(10, dtype=np.float32) * 3
    save_file({"logits": rows, "target": stored}, tmp_path / "a.safetensors", {"class_names": json.dumps(names)})
    assert read_logits(tmp_path / "a.safetensors").target.tolist() == list(range(10))


def test_of_several_views_of_an_image_one_is_judged_and_its_split_told(tmp_path: Path) -> None:
    view = np.repeat([0, 1], 2)
    logits = np.concatenate([LOGITS, LOGITS[:, ::-1]])
    split = np.array([b"train"] * 4)
    path = tmp_path / "views.npz"
    np.savez(path, logits=logits, target=np.tile([0, 1], 2), split=split, view=view, id=np.tile([0, 1], 2))
    table = read_logits(path)
    np.testing.assert_array_equal(table.logits.numpy(), LOGITS)
    found = load_file(path, "5,4,3")
    assert any("train images" in caution for caution in found.cautions)
    assert "2 images" in found.images
