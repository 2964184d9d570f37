"""What users are told of columns that lost something: gaps, numbers read as texts, and what float32 has no room for."""

from __future__ import annotations

import numpy as np
import pytest

from distail.config.schema import Data
from distail.data.column_notes import MOST_COMPARED, numbers_as_texts_note, rounded_note
from distail.data.prepare import PreparedData, prepare_data


def texts(*levels: str | None, times: int = 1) -> np.ndarray:
    return np.array(levels * times, dtype=object)


DIGITS = tuple("123456789")


@pytest.mark.parametrize(
    ("values", "examples"),
    [
        (texts(*DIGITS, "?", times=3), "('?')"),
        (texts(*DIGITS, *["unknown"] * 40), "('unknown')"),  # few rows are numbers, but nearly all levels
        (texts("?", "-", None, *["1", "2", "3", "4", "5", "6"] * 9), "('?')"),  # many levels are none, but few rows
        (texts(*(f"{number},5" for number in range(20))), "('0,5')"),
        (texts(*(f"{number},234" for number in range(20)), *DIGITS), "('0,234')"),
        (texts(*(f"{number}%" for number in range(20)), "n.a."), "('n.a.', '0%')"),
        (texts(*(f"-1.{number}e-3" for number in range(20))), "('-1.0e-3')"),  # of a parquet file
        (texts(*(f"$1'000.{number}" for number in range(20))), '("$1\'000.0")'),
    ],
)
def test_numbers_that_are_texts_are_told_with_what_makes_them_such(values: np.ndarray, examples: str) -> None:
    note = numbers_as_texts_note({"dose": values, "age": np.arange(3.0)})
    assert note is not None
    assert f"'dose' {examples}" in note
    assert "'age'" not in note


@pytest.mark.parametrize(
    "values",
    [
        texts("1", "2", "3", "?", times=30),  # as codes of a category are
        texts(*DIGITS, "a", "b", "c", "d"),
        texts(*(f"{day:02}.03.2020" for day in range(1, 29))),
        texts(*(f"A{number}" for number in range(20))),
        texts(*(f"{number}.{number}.1" for number in range(20))),
        texts(*(f"{number}-{number + 9}" for number in range(20))),
        texts(".", ",", "%", "+", "-", "$", "e5", ""),
        texts(None, None),
    ],
)
def test_categories_are_no_numbers(values: np.ndarray) -> None:
    assert numbers_as_texts_note({"code": values}) is None


def test_what_float32_has_no_room_for_is_told() -> None:
    draw = np.random.default_rng(0)
    note = rounded_note(
        [
            ("time", 1.7e9 + np.arange(-80.0, 80)),
            ("flag", 1e9 + np.array([0.0, 1.0, np.nan] * 5)),
            ("plain", draw.normal(size=2 * MOST_COMPARED)),
            ("far", 1e4 + draw.normal(size=500)),
            ("whole", np.array([0.0, 1.0, 1.0] * 50)),
            ("constant", np.full(9, 0.1)),
            ("none", np.full(9, np.nan)),
        ]
    )
    left = len(np.unique(np.float32(1.7e9 + np.arange(-80.0, 80))))
    assert note is not None
    assert f"'time' (of 160 different values {left} are left), 'flag' (of 2 different values 1 is left):" in note


def written(tmp_path, kind: str, column: np.ndarray) -> Data:  # type: ignore[no-untyped-def]
    y = np.arange(len(column)) % 2
    if kind == "arrays":
        np.savez(tmp_path / "data.npz", X=np.stack([y + 0.5, column], 1), y=y)
        return Data(name="arrays", root=tmp_path / "data.npz")
    lines = [f"{label},{value!r},{label}" for label, value in zip(y.tolist(), column.tolist(), strict=True)]
    (tmp_path / "data.csv").write_text("\n".join(["a,b,y", *lines]))
    return Data(name="csv-table", root=tmp_path / "data.csv", label="y")


def told(data: PreparedData, *words: str) -> int:
    return sum(all(word in note for word in words) for note in data.notes)


@pytest.mark.parametrize(("kind", "name"), [("arrays", "'X[:, 1]'"), ("csv-table", "'b'")])
def test_tables_and_arrays_tell_gaps_and_lost_differences_once(tmp_path, kind: str, name: str) -> None:  # type: ignore[no-untyped-def]
    column = 1.7e9 + np.arange(100.0)
    assert told(prepare_data(written(tmp_path, kind, column)), "float32", f"{name} (of ") == 1
    column -= column.min()
    column[[3, 7, 20]] = np.nan
    data = prepare_data(written(tmp_path, kind, column))
    assert told(data, "float32") == 0
    assert told(data, "missing values", f"{name} (3)") == 1


def test_a_table_of_numbers_with_question_marks_is_told(tmp_path) -> None:  # type: ignore[no-untyped-def]
    lines = [f"{row % 11 if row % 7 else '?'};{row},5;{'ab'[row % 2]}" for row in range(60)]
    (tmp_path / "uci.csv").write_text("\n".join(["nuclei;size;kind", *lines]))
    data = prepare_data(Data(name="csv-table", root=tmp_path / "uci.csv", label="kind"))
    assert told(data, "look like numbers", "'nuclei' ('?')", "'size' ('0,5')") == 1
