"""`csv-table` and `parquet`: columns as numbers, by training rows alone, and what is refused."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import csv, parquet
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from distail.config.schema import Data
from distail.data.batches import evaluation_batches
from distail.data.columns import MOST_LEVELS, TableEncoding
from distail.data.prepare import prepare_data
from distail.errors import DataError

ROWS = 90
SPLIT = ["train"] * 50 + ["val"] * 15 + ["test"] * 25


def columns(seed=0):
    random = np.random.default_rng(seed)
    return {
        "age": random.normal(40, 12, ROWS).round(3).tolist(),
        "visits": random.integers(0, 9, ROWS).tolist(),
        "city": random.choice(["Oslo", "Bergen", "Tromsø"], ROWS).tolist(),
        "smoker": (random.random(ROWS) < 0.3).tolist(),
        "outcome": [["ill", "well", "unknown"][row % 3] for row in range(ROWS)],
        "split": SPLIT,
    }


def written(folder, name, content):
    """A table, as a file of either kind."""
    table = pa.table(content)
    path = folder / ("table.csv" if name == "csv-table" else "table.parquet")
    csv.write_csv(table, path) if name == "csv-table" else parquet.write_table(table, path)
    return path


def prepared(path, name="csv-table", **options):
    return prepare_data(Data(name=name, root=path, label=options.pop("label", "outcome"), **options))


def inputs_of(data, part):
    batches = evaluation_batches(part, batch_size=16, mean=data.mean, std=data.std)
    return torch.cat([batch.inputs for batch in batches]).numpy()


@pytest.mark.parametrize("name", ["csv-table", "parquet"])
def test_numbers_and_categories_are_those_of_scikit_learn(tmp_path, name):
    content = columns()
    data = prepared(written(tmp_path, name, content), name)
    rows = np.array([content[key] for key in ("age", "visits", "city", "smoker")], dtype=object).T
    train, val, test = rows[:50], rows[50:65], rows[65:]
    if name == "csv-table":  # where they are text that pyarrow takes for booleans too
        assert TableEncoding.from_json(data.encoding).columns[3].levels is None
    numbers = ColumnTransformer([("number", StandardScaler(), [0, 1]), ("flag", StandardScaler(), [3])])
    categories = OneHotEncoder(sparse_output=False, handle_unknown="ignore")
    numbers.fit(train)
    categories.fit(train[:, [2]])
    assert data.class_names == ("ill", "unknown", "well")
    for part, given in ((data.train, train), (data.validation, val), (data.test, test)):
        found = inputs_of(data, part)
        expected = numbers.transform(given)
        np.testing.assert_allclose(found[:, [0, 1, 5]], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found[:, 2:5], categories.transform(given[:, [2]]))
    assert [data.class_names[label] for label in data.test.labels] == content["outcome"][65:]
    assert data.test.names.tolist()[0] == b"row 65"


def test_missing_values_and_levels_that_training_has_not(tmp_path):
    content = columns()
    content["age"][3] = content["age"][70] = None
    content["visits"][80] = None
    content["city"][5] = None
    content["city"][85] = "Bodø"
    data = prepared(written(tmp_path, "csv-table", content), features=["age", "visits", "city"])
    entries = TableEncoding.from_json(data.encoding).entries
    assert entries == ("age", "age=(missing)", "visits", "city=Bergen", "city=Oslo", "city=Tromsø", "city=(missing)")
    train, test = inputs_of(data, data.train), inputs_of(data, data.test)
    assert train[3, :2].tolist() == [0, 1]
    assert train[4, 1] == 0
    assert test[5, :2].tolist() == [0, 1]
    assert test[15, 2] == 0, "the mean, though training lacks no visit"
    assert train[5, 3:].tolist() == [0, 0, 0, 1]
    assert test[20, 3:].tolist() == [0, 0, 0, 0]
    told = " ".join(data.notes)
    assert all(each in told for each in ("'age' (2)", "'visits' (1)", "'city' (1)", "city='Bodø'"))


def test_many_levels_are_the_most_frequent_and_others():
    levels = np.array([f"l{number:03}" for number in range(100) for _ in range(100 - number)], dtype=object)
    encoding = TableEncoding.learnt({"code": levels}, np.ones(len(levels), dtype=bool))
    assert len(encoding.entries) == MOST_LEVELS + 1
    found = encoding.encode({"code": np.array(["l000", "l063", "l064", "new"], dtype=object)})
    assert found.argmax(1).tolist() == [0, 63, 64, 64]
    assert found.sum(1).tolist() == [1, 1, 1, 1]
    assert TableEncoding.from_json(encoding.to_json()) == encoding


def test_what_training_holds_decides_the_levels_whatever_the_seed(tmp_path):
    content = {name: values for name, values in columns().items() if name != "split"}
    path = written(tmp_path, "parquet", content)
    found = [prepare_data(Data(name="parquet", root=path, label="outcome"), seed=seed) for seed in (0, 1)]
    assert found[0].encoding == found[1].encoding
    assert found[0].subset_sha256 != found[1].subset_sha256
    assert found[0].test_sha256 == found[1].test_sha256


def test_a_folder_of_files(tmp_path):
    content = columns()
    del content["split"]
    parts = {"train": slice(50), "valid": slice(50, 65), "test": slice(65, None)}
    for part, rows in parts.items():
        parquet.write_table(
            pa.table({name: values[rows] for name, values in content.items()}), tmp_path / f"{part}.parquet"
        )
    data = prepared(tmp_path, "parquet")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [50, 15, 25]


def test_labels_are_the_texts_of_the_file(tmp_path):
    (tmp_path / "t.csv").write_text("x;y\n" + "".join(f"{row};{['007', '7'][row % 2]}\n" for row in range(20)))
    data = prepared(tmp_path / "t.csv", label="y")
    assert data.class_names == ("007", "7")
    assert any("look alike" in note for note in data.notes)


def test_groups_stay_whole_and_shared_ones_are_told(tmp_path):
    content = {name: values for name, values in columns().items() if name != "split"}
    content["patient"] = [f"p{row // 3 % 20}" for row in range(ROWS)]
    path = written(tmp_path, "csv-table", content)
    data = prepared(path, group="patient", validation=0.2)
    places = [{int(name.decode()[4:]) for name in part.names} for part in (data.train, data.validation, data.test)]
    patients = [{content["patient"][row] for row in rows} for rows in places]
    assert sorted(row for rows in places for row in rows) == list(range(ROWS))
    assert not patients[0] & patients[1]
    assert not patients[0] & patients[2]
    assert not patients[1] & patients[2]
    assert "patient" not in "".join(TableEncoding.from_json(data.encoding).entries)
    shared = prepared(written(tmp_path, "csv-table", {**content, "split": SPLIT}), group="patient")
    assert sum("groups of the test set" in note for note in shared.notes) == 1


@pytest.mark.parametrize(
    ("options", "changes", "culprits"),
    [
        ({"label": "outcom"}, {}, ["data.label", "'outcom'", "outcome"]),
        ({"features": ["age", "vists"]}, {}, ["data.features", "'vists'", "visits"]),
        ({"features": ["age", "outcome"]}, {}, ["'outcome'", "label"]),
        ({"group": "patient"}, {}, ["data.group", "'patient'"]),
        ({}, {"outcome": [None, *columns()["outcome"][1:]]}, ["1 rows have no 'outcome'"]),
        ({}, {"day": pa.array([0] * ROWS, pa.date32())}, ["'day'", "date32"]),
        ({}, {"empty": pa.nulls(ROWS)}, ["'empty'"]),
        ({}, {"age": [float("inf")] * ROWS}, ["90 numbers are infinite"]),
        ({}, {"split": ["train"] * ROWS}, ["'test'"]),
        ({"augment": ["crop"]}, {}, ["data.augment"]),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path, options, changes, culprits):
    path = written(tmp_path, "parquet", {**columns(), **changes})
    with pytest.raises(DataError) as told:
        prepared(path, "parquet", **options)
    assert [each for each in culprits if each not in str(told.value)] == []


@pytest.mark.parametrize("name", ["csv-table", "parquet"])
@pytest.mark.parametrize("content", [b"", b"PAR1broken", b"a,a\n1,2\n", b"a,outcome\n1,2,3\n", b"a,outcome\n"])
def test_files_that_are_no_table(tmp_path, name, content):
    (tmp_path / "table").write_bytes(content)
    with pytest.raises(DataError, match="table"):
        prepared(tmp_path / "table", name)


def test_other_data_has_no_label_column():
    with pytest.raises(DataError, match=r"data\.label"):
        prepare_data(Data(name="digits", label="y"))
