from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distail.audit.from_file import load_file
from distail.audit.logits_file import counted_labels, read_class_counts
from distail.errors import DataError


@given(st.lists(st.integers(0, 10**9), min_size=1), st.sampled_from([",", " ", "\n", ", ", ";"]))
def test_a_list_is_read_however_it_is_separated(counts: list[int], between: str) -> None:
    assert read_class_counts(between.join(map(str, counts))) == tuple(counts)


def test_files_of_each_kind(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("500\n20\n3\n")
    (tmp_path / "b.json").write_text("[500, 20, 3]")
    (tmp_path / "result.json").write_text(json.dumps({"class_counts": [500, 20, 3], "name": "x"}))
    for path in tmp_path.iterdir():
        assert read_class_counts(str(path)) == (500, 20, 3)


def test_counts_with_names_follow_the_order_of_the_logits(tmp_path: Path) -> None:
    path, order = tmp_path / "result.json", ("cat", "cow", "dog")
    path.write_text(json.dumps({"class_names": ["cat", "dog", "cow"], "class_counts": [500, 60, 5]}))
    assert read_class_counts(str(path), order) == (500, 5, 60)
    assert read_class_counts(str(path)) == (500, 60, 5)
    (tmp_path / "logits.csv").write_text(f"label,{','.join(order)}\n0,3,1,2\n1,0,1,2\n")
    assert load_file(tmp_path / "logits.csv", str(path)).class_counts == (500, 5, 60)
    with pytest.raises(DataError, match="dog"):
        read_class_counts(str(path), ("cat", "cow", "wolf"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.json", "{", "JSON"),
        ("x.json", "[" * 200_000, "JSON"),
        ("x.json", '{"counts": [1]}', "'class_counts'"),
        ("x.json", "[1.5]", "whole numbers"),
        ("x.txt", "5, many", "'many'"),
        ("x.txt", "5, -1", "'-1'"),
        ("x.txt", "", r"x\.txt"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=said):
        read_class_counts(str(tmp_path / name))


def test_neither_list_nor_file() -> None:
    with pytest.raises(DataError, match=r"'cuonts\.txt'.*500,120,30"):
        read_class_counts("cuonts.txt")


def test_labels_are_counted_and_an_empty_class_is_told() -> None:
    assert counted_labels(torch.tensor([0, 2, 2, 1, 7]), 3) == (1, 1, 2)
    with pytest.raises(DataError, match=r"class 1, 3"):
        counted_labels(torch.tensor([0, 2, 2]), 4)
