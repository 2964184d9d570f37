"""`csv-table` and `parquet`: columns as numbers, by training rows alone, and what is refused."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import csv, parquet
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from distail.config.schema import Data
from distail.config.training import Mix
from distail.data.batches import evaluation_batches
from distail.data.columns import MOST_CODES, MOST_LEVELS, TableEncoding
from distail.data.mixing import check_mix
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
    encoding = TableEncoding.learned({"code": levels}, np.ones(len(levels), dtype=bool))
    assert len(encoding.entries) == MOST_LEVELS + 1
    found = encoding.encode({"code": np.array(["l000", "l063", "l064", "new"], dtype=object)})
    assert found.argmax(1).tolist() == [0, 63, 64, 64]
    assert found.sum(1).tolist() == [1, 1, 1, 1]
    assert TableEncoding.from_json(encoding.to_json()) == encoding


@pytest.mark.parametrize("name", ["csv-table", "parquet"])
def test_embedded_categories_are_the_codes_of_scikit_learn_and_0_is_unknown(tmp_path, name):
    content = columns()
    content["city"][85] = "Bodø"
    data = prepared(written(tmp_path, name, content), name, categories="embedded")
    one_hot = prepared(tmp_path / f"table.{'csv' if name == 'csv-table' else 'parquet'}", name)
    cities = np.array(content["city"], dtype=object)[:, None]
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1).fit(cities[:50])
    assert data.train.cardinalities == (0, 0, 4, 0)
    assert one_hot.train.cardinalities is None
    for part, other, rows in ((data.train, one_hot.train, slice(50)), (data.test, one_hot.test, slice(65, None))):
        found, expected = inputs_of(data, part), inputs_of(one_hot, other)
        np.testing.assert_array_equal(found[:, 2], encoder.transform(cities[rows])[:, 0] + 1)
        np.testing.assert_array_equal(found[:, [0, 1, 3]], expected[:, [0, 1, 5]])
    assert inputs_of(data, data.test)[20, 2] == 0
    assert any("city='Bodø'" in note for note in data.notes)
    encoding = TableEncoding.from_json(data.encoding)
    assert encoding.entries == ("age", "visits", "city=(code)", "smoker")
    assert encoding.to_json() == data.encoding
    assert "embedded" not in one_hot.encoding, "what files of before hold"
    with pytest.raises(DataError, match=r"data\.categories"):
        check_mix(Mix(name="mixup"), data.train)
    check_mix(Mix(name="mixup"), one_hot.train)


def test_codes_of_others_and_of_gaps_come_after_the_levels():
    levels = [f"l{number:04}" for number in range(MOST_CODES + 2) for _ in range(1 + (number < MOST_CODES))]
    column = np.array([*levels, None], dtype=object)
    encoding = TableEncoding.learned({"code": column}, np.ones(len(column), dtype=bool), embedded=True)
    assert encoding.cardinalities == (MOST_CODES + 3,)
    some = np.array(["l0000", f"l{MOST_CODES - 1:04}", f"l{MOST_CODES:04}", "new", None], dtype=object)
    found = encoding.encode({"code": some})[:, 0].tolist()
    assert found == [1, MOST_CODES, MOST_CODES + 1, MOST_CODES + 1, MOST_CODES + 2]
    known = TableEncoding.learned({"code": np.array(["a", "b"], dtype=object)}, np.ones(2, dtype=bool), embedded=True)
    assert known.encode({"code": np.array([None, "c", "b"], dtype=object)})[:, 0].tolist() == [0, 0, 2]


FLAGS = {"rain": [1, 0, 0], "hail": [True, False, True], "fog": ["0", "1.0", "0"]}


@pytest.mark.parametrize("name", ["csv-table", "parquet"])
def test_several_columns_of_0_and_1_are_classes(tmp_path, name):
    flags = {key: [value[row % 3] for row in range(ROWS)] for key, value in FLAGS.items()}
    path = written(tmp_path, name, {**columns(), **flags})
    data = prepared(path, name, label=["rain", "fog", "hail"], targets="multi_label", features=["age", "city"])
    assert data.class_names == ("rain", "fog", "hail")
    assert data.train.labels[:3].int().tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]
    assert data.class_counts == tuple(data.train.labels.sum(0).tolist())
    whole = prepared(path, name, label=["rain", "fog", "hail"], targets="multi_label")
    entries = TableEncoding.from_json(whole.encoding).entries
    assert not [entry for entry in entries if entry.split("=")[0] in flags], "a label is nothing to learn from"


@pytest.mark.parametrize(
    ("label", "targets", "culprits"),
    [
        (["rain", "hial"], "multi_label", ["'hial'", "hail"]),
        (["rain", "age"], "multi_label", ["'age'", "in row 0"]),
        (["rain", "hail", "some"], "multi_label", ["'some'", "'-1' in row 4", "'nothing' in row 7", "0 or 1"]),
        (["rain", "hail"], "single_label", ["data.label", "multi_label"]),
    ],
)
def test_label_columns_that_cannot_be_used_are_told(tmp_path, label, targets, culprits):
    flags = {key: [value[row % 3] for row in range(ROWS)] for key, value in FLAGS.items()}
    some = ["-1" if row == 4 else None if row == 7 else "1" for row in range(ROWS)]
    path = written(tmp_path, "csv-table", {**columns(), **flags, "some": some})
    with pytest.raises(DataError) as told:
        prepared(path, label=label, targets=targets)
    assert [each for each in culprits if each not in str(told.value)] == []


@pytest.mark.parametrize("label", [[], ["a", "a"], [3], 3, {"a": 1}])
def test_a_label_is_the_name_of_a_column_or_several(label):
    with pytest.raises(ValueError, match=r"column|more than once"):
        Data(name="csv-table", label=label)


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
    told = [note for note in shared.notes if " groups of the " in note]
    assert [note.split(" too:")[0] for note in told] == [
        "9 of 9 groups of the test set are in the training set",
        "3 of 6 groups of the validation set are in the training set",
        "1 of 9 groups of the test set is in the validation set",
    ]
    unused = prepared(tmp_path / "table.csv", group="patient", validation=0)
    assert [note for note in unused.notes if " groups of the " in note] == told[:1]


def test_a_measurement_called_group_need_not_be_one(tmp_path):
    content = {name: values for name, values in columns().items() if name != "split"}
    content["group"] = ["treated", "control"] * (ROWS // 2)
    path = written(tmp_path, "csv-table", content)
    with pytest.raises(DataError) as refused:
        prepared(path, validation=0.2)
    assert all(word in str(refused.value) for word in ("'group' (1 group)", "data.group", "null"))
    with pytest.raises(DataError, match=r"'group' is the column of the group; data\.group=null"):
        prepared(path, features=("age", "group"))
    data = prepared(path, group=None, validation=0.2)
    assert {"group=control", "group=treated"} <= set(TableEncoding.from_json(data.encoding).entries)
    assert not any("stay together" in note for note in data.notes)
    told = [note for note in prepared(path, group="city", validation=0.3).notes if "stay together" in note]
    assert len(told) == 1
    assert all(word in told[0] for word in ("'city'", "2 groups for training", "1 for the test"))


@pytest.mark.parametrize(
    ("options", "changes", "culprits"),
    [
        ({"label": "outcom"}, {}, ["data.label", "'outcom'", "outcome"]),
        ({"features": ["age", "vists"]}, {}, ["data.features", "'vists'", "visits"]),
        ({"features": ["age", "outcome"]}, {}, ["'outcome'", "label"]),
        ({"group": "patient"}, {}, ["data.group", "'patient'"]),
        ({}, {"outcome": [None, *columns()["outcome"][1:]]}, ["1 row has no 'outcome'"]),
        ({}, {"day": pa.array([0] * ROWS, pa.date32())}, ["'day'", "date32"]),
        ({}, {"empty": pa.nulls(ROWS)}, ["'empty'"]),
        ({}, {"age": [float("inf")] * ROWS}, ["90 numbers are infinite", "in 'age'"]),
        ({}, {"age": [1e39, *range(1, ROWS)]}, ["1 number is infinite, or too large for float32, in 'age'"]),
        ({}, {"split": ["train"] * ROWS}, ["'test'"]),
        ({"augment": ["crop"]}, {}, ["data.augment"]),
        ({}, {"group": [float("nan"), *map(float, range(1, ROWS))]}, ["1 of 90 have no group", "'nan'"]),
        ({}, {"group": ["", *map(str, range(1, ROWS))]}, ["1 of 90 have no group"]),
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


def test_rows_of_several_files_are_called_by_file(tmp_path):
    content = {name: values for name, values in columns().items() if name != "split"}
    for part in ("train", "test"):
        written(tmp_path, "parquet", content).rename(tmp_path / f"{part}.parquet")
    data = prepared(tmp_path, "parquet", group=None)
    assert [data.test.names[row].decode() for row in (0, -1)] == [
        "test.parquet, row 0",
        f"test.parquet, row {ROWS - 1}",
    ]
