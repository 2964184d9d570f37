"""The order of the classes: natural, as text, or that of a file."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from distail.data.prepare import prepare_data
from distail.errors import DataError

NAMES = ["1", "2", "10"]


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Class n holds images whose gray level is 10 times n."""
    monkeypatch.setenv("DISTAIL_CACHE", str(tmp_path / "cache"))
    for name in NAMES:
        (tmp_path / "tree" / name).mkdir(parents=True)
        for number in range(10):
            Image.fromarray(np.full((8, 8), 10 * int(name), np.uint8)).save(tmp_path / "tree" / name / f"{number}.png")
    return tmp_path / "tree"


def classes_by_level(tree, **options):
    """The name of each label, and that its images are those of that name."""
    data = prepare_data("folder", root=tree, **options)
    for images in (data.train, data.test):
        levels = images.images[:, 0, 0, 0].tolist()
        assert [10 * int(data.class_names[label]) for label in images.labels.tolist()] == levels
    return list(data.class_names)


def test_natural_and_as_torchvision_sorts(tree):
    assert classes_by_level(tree) == ["1", "2", "10"]
    assert classes_by_level(tree, class_order="text") == ["1", "10", "2"]


def test_the_order_of_a_file(tree, tmp_path):
    (tmp_path / "order.txt").write_text("10\n1\n\n2\n", encoding="utf-8-sig")
    assert classes_by_level(tree, class_order=str(tmp_path / "order.txt")) == ["10", "1", "2"]


@pytest.mark.parametrize(
    ("text", "told"),
    [("10\n1\n", "Missing: '2'"), ("10\n1\n2\n3\n", "not in the data: '3'"), ("10\n1\n1\n", "Missing: '2'")],
)
def test_a_file_of_other_classes(tree, tmp_path, text, told):
    (tmp_path / "order.txt").write_text(text)
    with pytest.raises(DataError, match=told):
        classes_by_level(tree, class_order=str(tmp_path / "order.txt"))


def test_neither_an_order_nor_a_file(tree):
    with pytest.raises(DataError, match=r"no file 'texts'.*Did you mean 'text'"):
        classes_by_level(tree, class_order="texts")
