"""`csv-table` and `parquet`: what names rows is no input without a word."""

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from distail.config.schema import Data
from distail.data.column_notes import identifiers_note
from distail.data.columns import TableEncoding
from distail.data.prepare import prepare_data
from distail.data.sources.table_file import read_table
from distail.errors import DataError

ROWS = 40
NUMBERS = [*range(ROWS)]
SHUFFLED = np.random.default_rng(0).permutation(10 * ROWS)[:ROWS].tolist()
SIZES = np.random.default_rng(1).normal(size=ROWS).round(3).tolist()
KINDS = ["a", "b", "c", "d"] * (ROWS // 4)


def written(path, header, *columns):
    rows = zip(*columns, strict=True)
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def prepared(path, name="csv-table", **options):
    return prepare_data(Data(name=name, root=path, label="y", **options))


def features(data):
    return [column.name for column in TableEncoding.from_json(data.encoding).columns]


def told(data, *words):
    return sum(all(word in note for word in words) for note in data.notes)


@pytest.mark.parametrize("index", [NUMBERS, NUMBERS[::-1], SHUFFLED])
@pytest.mark.parametrize("header", ["", " ", "Unnamed: 0", "Unnamed: 0.1"])
def test_the_index_of_a_data_frame_is_no_input_unless_it_is_asked_for(tmp_path, header, index):
    path = written(tmp_path / "t.csv", f"{header},size,y", index, SIZES, KINDS)
    data = prepared(path)
    assert features(data) == ["size"]
    assert told(data, "left out", repr(header)) == 1
    chosen = prepared(path, features=(header, "size"))
    assert features(chosen) == [header, "size"]
    assert not told(chosen, "left out")


def test_the_index_of_each_file_is_left_out(tmp_path):
    for part in ("train", "test"):
        written(tmp_path / f"{part}.csv", ",size,y", NUMBERS, SIZES, KINDS)
    data = prepared(tmp_path)
    assert features(data) == ["size"]
    assert told(data, "left out") == 1


def test_the_index_that_pandas_writes_to_parquet_is_left_out(tmp_path):
    table = pa.table({"size": SIZES, "y": KINDS, "__index_level_0__": SHUFFLED})
    parquet.write_table(table, tmp_path / "t.parquet")
    assert features(prepared(tmp_path / "t.parquet", "parquet")) == ["size"]


@pytest.mark.parametrize("values", [SIZES, [number // 2 for number in NUMBERS], KINDS])
def test_a_column_without_a_name_that_counts_no_rows_is_an_input(tmp_path, values):
    data = prepared(written(tmp_path / "t.csv", ",size,y", values, SIZES, KINDS))
    assert features(data) == ["", "size"]
    assert not told(data, "left out")


def test_separators_at_the_end_of_lines_make_no_column(tmp_path):
    blank = [""] * ROWS
    data = prepared(written(tmp_path / "t.csv", "size,y,,", SIZES, KINDS, blank, blank))
    assert features(data) == ["size"]
    assert told(data, "left out", "2 columns") == 1
    named = written(tmp_path / "named.csv", "size,y,weight", SIZES, KINDS, blank)
    with pytest.raises(DataError, match="the column 'weight' has no value"):
        prepared(named)
    with pytest.raises(DataError, match="more than once"):
        read_table(written(tmp_path / "twice.csv", ",y,", SIZES, KINDS, SIZES), "csv-table", ())


@pytest.mark.parametrize("ids", [NUMBERS, SHUFFLED, [f"p{number}" for number in NUMBERS]])
def test_an_identifier_is_told_once_with_what_leaves_it_out(tmp_path, ids):
    path = written(tmp_path / "t.csv", "id,size,kind,y", ids, SIZES, KINDS[::-1], KINDS)
    data = prepared(path)
    assert told(data, "'id'", "data.features=[size,kind]") == 1
    assert not told(prepared(path, features=("size", "kind")), "'id'")
    assert not told(prepared(path, features=("id", "size")), "'id'")  # it was asked for


def test_an_identifier_in_each_of_two_files_is_told(tmp_path):
    for part in ("train", "test"):
        written(tmp_path / f"{part}.csv", "id,size,y", NUMBERS, SIZES, KINDS)
    assert told(prepared(tmp_path), "'id'", "data.features=[size]") == 1


def test_measurements_are_no_identifiers():
    draw = np.random.default_rng(0)
    measured = {
        "float": draw.normal(size=200),
        "gap": np.array([*range(199), np.nan]),
        "twice": np.array([*range(199), 0.0]),
        "flag": np.array([0.0, 1.0] * 100),
        "comma": np.array([f"{number},5" for number in range(200)], dtype=object),
        "texts": np.array([None, *map(str, range(199))], dtype=object),
    }
    assert len(np.unique(measured["float"])) == 200
    assert identifiers_note(measured) is None
    assert identifiers_note({"age": np.array([31.0, 40.0, 28.0])}) is None


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        (SHUFFLED, True),
        ([f" p{number}" for number in NUMBERS], True),
        ([number // 2 for number in NUMBERS], False),
        (SIZES, False),
    ],
)
def test_what_a_table_calls_its_rows_goes_with_them(tmp_path, ids, kept):
    data = prepared(written(tmp_path / "t.csv", "id,size,y", ids, SIZES, KINDS), features=("size",))
    if not kept:
        assert data.ids is None
        return
    own = [each.encode() if isinstance(each, str) else each for each in ids]
    stripped = [each.strip() if isinstance(each, bytes) else each for each in own]
    for found, rows in zip(data.ids, data.file_rows, strict=True):
        assert found.tolist() == [stripped[row] for row in rows.tolist()]
