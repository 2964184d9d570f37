"""`csv-table`: what is a gap and what a name, labels that are measurements, and files that are not UTF-8."""

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from distail.config.schema import Data
from distail.data.columns import TableEncoding
from distail.data.prepare import prepare_data
from distail.data.sources.table_file import column_names, read_table
from distail.errors import DataError


def table(folder, labels, header="x,kind,y", kinds=("a", "NA", "b", "nan", ""), encoding="utf-8"):
    lines = [f"{row},{kinds[row % len(kinds)]},{label}" for row, label in enumerate(labels)]
    (folder / "t.csv").write_text("\n".join([header, *lines]) + "\n", encoding=encoding)
    return folder / "t.csv"


def prepared(path, name="csv-table", **options):
    return prepare_data(Data(name=name, root=path, label="y", **options))


@pytest.mark.parametrize("token", ["NA", "null", "nan", "N/A", " NA ", '"NA"'])
@pytest.mark.parametrize("targets", ["single_label", "multi_label"])
def test_a_label_that_may_be_a_gap_is_refused_with_both_ways_out(tmp_path, token, targets):
    path = table(tmp_path, [token if row % 9 == 4 else "ab"[row % 2] for row in range(40)])
    with pytest.raises(DataError, match="4 cells of the column 'y', the first in row 4 ") as told:
        prepared(path, targets=targets)
    assert token.strip(' "') in str(told.value)
    assert "another name" in str(told.value)
    assert ("empty" in str(told.value)) == (targets == "multi_label")


def test_an_empty_label_is_none_and_na_beside_others_a_class(tmp_path):
    labels = ["NA|a", "b", "", "a", "  "] * 10
    data = prepared(table(tmp_path, labels), targets="multi_label")
    assert data.class_names == ("a", "b", "NA")
    rows = [int(name.decode()[4:]) for name in data.test.names]
    assert data.test.labels.sum(1).tolist() == [{"NA|a": 2, "b": 1, "a": 1}.get(labels[row], 0) for row in rows]
    with pytest.raises(DataError, match="20 rows have no 'y', the first is row 2 "):
        prepared(table(tmp_path, labels))


def test_a_group_that_may_be_a_gap_is_refused(tmp_path):
    with pytest.raises(DataError, match="16 cells of the column 'kind', the first in row 1 "):
        prepared(table(tmp_path, ["a", "b"] * 20), group="kind")


def test_gaps_of_features_are_gaps(tmp_path):
    encoding = TableEncoding.from_json(prepared(table(tmp_path, ["a", "b"] * 20)).encoding)
    assert encoding.entries == ("x", "kind=a", "kind=b", "kind=(missing)")
    with pytest.raises(DataError, match="the column 'kind' has no value"):
        prepared(table(tmp_path, ["a", "b"] * 20, kinds=("", "NA")))


def test_texts_are_as_they_stand_and_categories_have_gaps(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,code,size,empty\nNA,007,1,\n7,NA,nan,\n,,3,NA\n")
    found = read_table(path, "csv-table", ["id"], ["code"])
    assert found.to_pydict() == {
        "id": ["NA", "7", None],
        "code": ["007", None, None],
        "size": [1, None, 3],
        "empty": [None] * 3,
    }


def test_labels_of_a_parquet_file_are_texts_or_gaps_as_it_says(tmp_path):
    content = {"x": list(range(40)), "y": ["NA", "b"] * 20}
    parquet.write_table(pa.table(content), tmp_path / "t.parquet")
    assert prepared(tmp_path / "t.parquet", "parquet").class_names == ("b", "NA")


@pytest.mark.parametrize("name", ["csv-table", "parquet"])
def test_a_label_that_is_a_measurement_is_refused(tmp_path, name):
    values = [0.37, 1.0, 2.5, 4.0] * 10
    path = table(tmp_path, values)
    if name == "parquet":
        path = tmp_path / "t.parquet"
        parquet.write_table(pa.table({"x": list(range(40)), "y": values}), path)
    with pytest.raises(DataError, match=r"2 of the 4 different values of the label 'y' are fractions \(0\.37, 2\.5\)"):
        prepared(path, name)


def test_whole_floats_versions_and_texts_of_parquet_are_classes(tmp_path):
    assert prepared(table(tmp_path, ["-1.0", "1.0"] * 20)).class_names == ("-1.0", "1.0")
    assert prepared(table(tmp_path, ["1.5", "2.0", "none"] * 20)).class_names == ("1.5", "2.0", "none")
    parquet.write_table(pa.table({"x": list(range(40)), "y": ["0.5", "1"] * 20}), tmp_path / "t.parquet")
    assert prepared(tmp_path / "t.parquet", "parquet").class_names == ("0.5", "1")


@pytest.mark.parametrize(
    ("encoding", "header", "kind"),
    [
        ("utf-16", "x,kind,y", "a"),
        ("utf-16-le", "x,kind,y", "a"),
        ("latin-1", "x,kind,y", "Malmö"),
        ("latin-1", "ö,kind,y", "a"),
    ],
)
def test_a_file_that_is_not_utf8_is_told_as_such(tmp_path, encoding, header, kind):
    kinds = ["a"] * 900 + [kind]  # further back than a reader looks at once
    path = table(tmp_path, ["a", "b"] * 1000, header, kinds, encoding)
    line = 1 if encoding.startswith("utf-16") or header[0] != "x" else 902
    for read in (
        lambda: prepared(path),
        lambda: read_table(path, "csv-table", ()),
        lambda: read_table(path, "csv-table", ["kind"]),
    ):
        with pytest.raises(DataError, match=rf"not UTF-8 \(line {line}\); expected"):
            read()
    if line == 1:
        with pytest.raises(DataError, match="not UTF-8"):
            column_names(path, "csv-table")


def test_a_byte_order_mark_of_utf8_is_no_part_of_a_name(tmp_path):
    path = table(tmp_path, ["å", "b"] * 20, encoding="utf-8-sig")
    assert column_names(path, "csv-table")[0] == "x"
    assert np.array_equal(prepared(path).class_names, ("b", "å"))


def test_whole_numbers_that_no_float_holds_are_rounded_and_told(tmp_path):
    lines = [f"{10**17 + 1000 * row},{row},{'ab'[row % 2]}" for row in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["big,x,y", *lines]))
    notes = prepared(tmp_path / "t.csv").notes
    assert any("float32 cannot" in note and "'big'" in note for note in notes)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_labels_of_several_classes_may_be_missing_in_any_column_of_texts(tmp_path, kind):
    labels = pa.array(["a|b", None, "b", "a"] * 15).cast(kind)
    parquet.write_table(pa.table({"x": np.arange(60.0), "y": labels}), tmp_path / "t.parquet")
    data = prepared(tmp_path / "t.parquet", name="parquet", targets="multi_label")
    assert data.class_names == ("a", "b")


@pytest.mark.parametrize("column", [True, False])
def test_the_column_that_splits_is_told_where_there_is_one(tmp_path, column):
    rows = [(row, "ab"[row % 2], "train" if row < 30 else "test") for row in range(40)]
    if column:
        (tmp_path / "t.csv").write_text("\n".join(["x,y,split", *(f"{x},{y},{split}" for x, y, split in rows)]))
    else:
        for part in ("train", "test"):
            lines = [f"{x},{y}" for x, y, split in rows if split == part]
            (tmp_path / f"{part}.csv").write_text("\n".join(["x,y", *lines]))
    notes = prepared(tmp_path / "t.csv" if column else tmp_path).notes
    assert any("'split' selects" in note for note in notes) == column


def test_rows_that_are_encoded_alike_are_no_copies(tmp_path):
    """Of more cities than have numbers of their own, the rare ones look alike to the network."""
    lines = [f"city{row},{row % 2},{'ab'[row // 2 % 2]}" for row in range(400)]
    (tmp_path / "t.csv").write_text("\n".join(["city,sex,y", *lines]))
    told = [note for note in prepared(tmp_path / "t.csv").notes if "inputs" in note]
    assert any("have the same inputs as training examples, as the network sees them" in note for note in told)
    assert not any("byte" in note for note in prepared(tmp_path / "t.csv").notes)
