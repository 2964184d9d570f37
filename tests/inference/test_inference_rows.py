"""A student for tables or arrays, loaded from its file, answers as the run did, whatever its rows come as."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import csv as arrow_csv
from pyarrow import parquet

import distail
from distail.cli import main
from distail.data.columns import TableEncoding
from distail.errors import CheckpointError, DataError
from distail.evaluation.predictions import load_predictions
from distail.models import read_metadata
from distail.models.array_description import ArrayDescription
from helpers.tables import table_run
from helpers.whole_runs import run

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return table_run(tmp_path_factory.mktemp("rows") / "run")


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals")
    label = np.arange(120) % 10 // 4
    signals = np.random.default_rng(0).normal(size=(120, 2, 9)) + label[:, None, None]
    signals[::7, 1, 3] = np.nan
    np.savez(folder / "signals.npz", X=signals, y=label)
    return run(
        {
            "name": "signals",
            "output": str(folder / "run"),
            "data": {"name": "arrays", "root": str(folder / "signals.npz"), "validation": 0.1},
            "student": {"model": {"name": "mlp", "hidden": 8, "depth": 1}},
            "method": "ce",
            "training": {"epochs": 3, "batch_size": 16, "learning_rate": 0.05},
            "trainer": {"device": "cpu", "trackers": []},
        }
    )


def answers_of(finished):
    """The place of each test row in the data's file, and the run's answer for it."""
    with (finished.folder / "predictions.csv").open(newline="") as file:
        return [(int("".join(filter(str.isdigit, row["path"]))), row["answer"]) for row in csv.DictReader(file)]


def columns(path: Path) -> dict[str, list[str]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in rows[0]}


def predict(capsys, *arguments):
    capsys.readouterr()
    code = main(["predict", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, list(csv.DictReader(io.StringIO(captured.out))), captured.err


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_each_row_of_a_file_is_answered_as_the_run_answered_it(capsys, tmp_path, table, suffix):
    path = tmp_path / f"new{suffix}"
    stored = table.folder.parent / "table.csv"
    if suffix == ".parquet":
        texts = arrow_csv.ConvertOptions(column_types={"code": pa.string()}, strings_can_be_null=True)
        parquet.write_table(arrow_csv.read_csv(stored, convert_options=texts), path)
    else:
        path.write_text(stored.read_text())
    code, rows, err = predict(capsys, table.folder / "student.safetensors", path, "--id", "id", "--top", 3)
    assert (code, err) == (0, "")
    assert [row["row"] for row in rows] == [str(row) for row in range(160)]
    assert [row["id"] for row in rows] == columns(stored)["id"]
    assert [(place, rows[place]["class"]) for place, _ in answers_of(table)] == answers_of(table)
    assert sum(float(rows[0][f"probability{k}"]) for k in ("", "_2", "_3")) == pytest.approx(1, abs=1e-5)


def test_the_column_that_names_rows_may_be_an_input_and_changes_no_answer(capsys, tmp_path, table):
    """In the file gaps are written NA, which a text is and an input is not."""
    header, *lines = (table.folder.parent / "table.csv").read_text().splitlines()
    rows = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    for row, cells in enumerate(rows):
        cells["age"] = cells["age"] or "NA"
        cells["id"] = "" if row == 0 else cells["id"]
    path = tmp_path / "new.csv"
    path.write_text("\n".join([header, *(",".join(cells.values()) for cells in rows)]))
    _, plain, _ = predict(capsys, table.folder, path)
    for column in ("age", "code", "id"):
        code, named, err = predict(capsys, table.folder, path, "--id", column)
        assert (code, err) == (0, "")
        assert [row.pop("id") for row in named] == [cells[column] for cells in rows]
        assert named == plain


def test_more_classes_than_there_are_leave_the_columns_in_place(capsys, table):
    _, rows, _ = predict(capsys, table.folder, table.folder.parent / "table.csv", "--top", 7)
    assert list(rows[0]) == [
        *("path", "row"),
        *(f"{of}{k}" for k in ("", "_2", "_3") for of in ("class", "probability")),
    ]


def test_texts_that_look_like_numbers_stay_texts_where_training_had_texts(capsys, tmp_path, table):
    """Without the `x` of training the column would be read as whole numbers, and 007 as 7."""
    lines = (table.folder.parent / "table.csv").read_text().splitlines()
    codes = [line.split(",")[4] for line in lines[1:]]
    digits = [row for row, code in enumerate(codes) if code != "x"]
    (tmp_path / "digits.csv").write_text("\n".join([lines[0], *(lines[row + 1] for row in digits)]))
    _, whole, _ = predict(capsys, table.folder, table.folder.parent / "table.csv")
    _, some, err = predict(capsys, table.folder, tmp_path / "digits.csv")
    assert err == ""
    assert [row["probability"] for row in some] == [whole[row]["probability"] for row in digits]


class Frame:
    """As much of a data frame as counts: its columns by name."""

    def __init__(self, columns):
        self._columns, self.columns = columns, list(columns)

    def __getitem__(self, name):
        return self._columns[name]


def test_mappings_frames_tables_and_numbers_are_answered_alike(table):
    student = distail.load_student(table.folder)
    texts = columns(table.folder.parent / "table.csv")
    numbers = {"age": [float(age or "nan") for age in texts["age"]], "weight": np.array(texts["weight"], dtype=float)}
    given = {**texts, **numbers, "smoker": [value == "true" for value in texts["smoker"]]}
    stored = load_predictions(table.folder / "predictions.safetensors")
    with torch.no_grad():
        expected = student(given)
        places = [place for place, _ in answers_of(table)]
        torch.testing.assert_close(expected[places], stored.logits, atol=1e-5, rtol=1e-5)
        for other in (Frame(given), pa.table(given, schema=None)):
            torch.testing.assert_close(student(other), expected)
        encoding = TableEncoding.from_json(read_metadata(table.folder / "student.safetensors")["columns"])
        assert "age=(missing)" in encoding.entries
        ages = np.array(numbers["age"])
        lacks = np.isnan(ages).astype(float)
        kinds = [[float(kind == each) for kind in texts["kind"]] for each in "abc"]
        codes = [[float(code == each) for code in texts["code"]] for each in ("007", "7", "x")]
        smokes = np.array(given["smoker"], dtype=float)
        rows = torch.from_numpy(np.column_stack([ages, lacks, numbers["weight"], *kinds, *codes, smokes]))
        torch.testing.assert_close(student(rows), expected)
        torch.testing.assert_close(student(rows[5]), expected[5:6])
    adjusted = student.adjusted(1.0)(rows).double().softmax(1)
    shares = expected.double().softmax(1) / torch.tensor(table.figures["class_counts"])
    torch.testing.assert_close(adjusted, shares / shares.sum(1, keepdim=True), atol=1e-5, rtol=1e-5)


def test_what_training_never_had_is_told_and_answered(capsys, tmp_path, table):
    path = tmp_path / "odd.csv"
    path.write_text("age,weight,kind,code,smoker\n30,,zebra,7,true\n31,70,,x,false\n")
    code, rows, err = predict(capsys, table.folder, path)
    assert (code, len(rows)) == (0, 2)
    told = " ".join(err.split())
    assert "'zebra'" in told
    assert "'weight' (1)" in told
    assert "'kind' (1)" in told
    student = distail.load_student(table.folder)
    row = {"age": [30.0], "weight": [70.0], "kind": ["zebra"], "code": ["7"], "smoker": [True]}
    with pytest.warns(UserWarning, match="zebra"):
        (answer,) = student.predict(row)
    assert answer.name in student.class_names


@pytest.mark.filterwarnings("error::UserWarning")
def test_an_empty_text_from_python_is_a_gap_as_in_a_file(table):
    """As `csv.DictReader` gives it: '' in a column of numbers, too. `age` has gaps in training, `kind` has none."""
    student = distail.load_student(table.folder)
    row = {"age": ["31"], "weight": ["70"], "kind": ["a"], "code": ["7"], "smoker": [True]}
    (gap,), (empty,) = (student.predict({**row, "age": [age]}) for age in (None, ""))
    assert (empty.name, empty.probability) == (gap.name, gap.probability)
    with pytest.warns(UserWarning, match=r"without missing values in training: 'kind' \(1\)"):
        student.predict({**row, "kind": [""]})
    large = {name: pa.array(values).cast(pa.large_string()) for name, values in row.items() if name != "smoker"}
    large |= {"smoker": pa.array([True]), "age": pa.array([""], pa.large_string())}
    assert student.predict(pa.table(large))[0].probability == gap.probability


def test_everything_that_is_missing_is_told_before_the_first_answer(capsys, tmp_path, table):
    whole = (table.folder.parent / "table.csv").read_text()
    (tmp_path / "good.csv").write_text(whole)
    (tmp_path / "bad.csv").write_text("Age,weight,kin\n3,4,a\n")
    (tmp_path / "x.npy").write_bytes(b"")
    (tmp_path / "few.csv").write_text("age,weight,kind\n3,4,a\n")
    (tmp_path / "tables").mkdir()
    paths = [tmp_path / name for name in ("good.csv", "bad.csv", "few.csv", "nowhere.csv", "x.npy", "tables")]
    code, rows, err = predict(capsys, table.folder, *paths)
    told = " ".join(err.split())
    assert (code, rows) == (2, [])
    assert "Valid: ." not in told  # all columns of few.csv are inputs already
    assert "tables: it is a folder; expected a file of .csv" in told
    assert all(word in told for word in ("'age'", "'Age'", "'kind'", "'code'", "'smoker'", "nowhere.csv", "x.npy"))
    (tmp_path / "words.csv").write_text("age,weight,kind,code,smoker\nold,4,a,x,true\n")
    code, _, err = predict(capsys, table.folder, tmp_path / "words.csv")
    assert code == 2
    assert "'age'" in err
    assert "'old'" in err


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (torch.zeros(2, 3), "(rows, 10)"),
        (torch.full((1, 10), float("inf")), "infinite"),
        ("table.csv", "str"),
        ({"age": [3.0]}, "'weight'"),
        ({"age": [1.0, 2.0], "weight": [1.0], "kind": ["a"], "code": ["x"], "smoker": [True]}, "lengths"),
        ({"age": ["old"], "weight": [1.0], "kind": ["a"], "code": ["x"], "smoker": [True]}, "old"),
        ({"age": [[1.0]], "weight": [1.0], "kind": ["a"], "code": ["x"], "smoker": [True]}, "'age'"),
    ],
)
def test_rows_that_would_be_misread_are_refused(table, rows, words):
    with pytest.raises(DataError) as caught:
        distail.load_student(table.folder).predict(rows)
    assert words in str(caught.value)


def test_arrays_are_answered_as_the_run_answered_them(capsys, tmp_path, arrays):
    student = distail.load_student(arrays.folder)
    stored = load_predictions(arrays.folder / "predictions.safetensors").logits
    given = np.load(arrays.folder.parent / "signals.npz")["X"]
    places = [place for place, _ in answers_of(arrays)]
    with torch.no_grad():
        torch.testing.assert_close(student(given)[places], stored, atol=1e-5, rtol=1e-5)
    code, rows, _ = predict(capsys, arrays.folder, arrays.folder.parent / "signals.npz")
    assert code == 0
    assert [(place, rows[place]["class"]) for place in places] == answers_of(arrays)
    np.savez(tmp_path / "other.npz", X=given[:, :, :5])
    code, _, err = predict(capsys, arrays.folder, tmp_path / "other.npz")
    assert code == 2
    assert "other.npz" in err
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    assert predict(capsys, arrays.folder, tmp_path / "table.csv")[0] == 2


def test_damaged_words_of_a_file_are_told(table):
    told = read_metadata(table.folder / "student.safetensors")
    assert ArrayDescription.read(told, "x").metadata().items() <= told.items()
    for key, value in (("mean", "[1]"), ("std", "[0]"), ("input_shapes", "{}"), ("input_types", '{"": "text"}')):
        with pytest.raises(CheckpointError, match=key.split("_")[0]):
            ArrayDescription.read({**told, key: value}, "x")
    by_name = {**told, "input_shapes": json.dumps({"ids": [6], "mask": [6]})}
    with pytest.raises(CheckpointError, match="'ids'"):
        ArrayDescription.read(by_name, "x")
    with pytest.raises(CheckpointError) as caught:
        ArrayDescription.read({"input_shapes": "3"}, "x")
    assert all(f"{key}: " in str(caught.value) for key in ("model", "class_names", "input_shapes"))
    for columns_ in ("[", "[3]", "{}", '[{"name": "age"}]'):
        with pytest.raises(DataError):
            TableEncoding.from_json(columns_)
