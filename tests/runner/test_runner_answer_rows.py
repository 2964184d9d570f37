"""Rows of a file of answers find their images by path, id or order; what does not fit is told, all at once."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from distail.data.dataset import LabeledImages
from distail.data.prepare import PreparedData
from distail.errors import DataError
from distail.evaluation.array_file import open_arrays
from distail.runner.answer_rows import match_rows

TRAIN_ROWS, VALIDATION_ROWS = torch.tensor([7, 0, 4, 9, 2]), torch.tensor([1, 8])
AUGMENT = [{"name": "crop"}]


def images(names=None, size=0):
    count = len(names) if names else size
    own = None if names is None else np.array([name.encode() for name in names])
    return LabeledImages(torch.zeros(count, 1, 2, 2, dtype=torch.uint8), torch.arange(count) % 2, names=own)


def prepared(named):
    parts = {
        "train": [f"train/a/{row}.png" for row in TRAIN_ROWS.tolist()],
        "validation": [f"train/a/{row}.png" for row in VALIDATION_ROWS.tolist()],
        "test": [f"test/a/{row}.png" for row in range(3)],
    }
    made = {split: images(names) if named else images(size=len(names)) for split, names in parts.items()}
    return PreparedData(
        **made,
        class_names=("a", "b"),
        class_counts=(3, 2),
        subset_sha256="1" * 64,
        validation_sha256="2" * 64,
        test_sha256="3" * 64,
        mean=(0.5,),
        std=(0.5,),
        train_rows=TRAIN_ROWS,
        validation_rows=VALIDATION_ROWS,
    )


def matched(tmp_path, count, data, augment=AUGMENT, **arrays):
    np.savez(tmp_path / "x.npz", **arrays)
    return match_rows(open_arrays(tmp_path / "x.npz"), count, data, augment)


def refused(tmp_path, count, data, augment=AUGMENT, **arrays):
    with pytest.raises(DataError) as error:
        matched(tmp_path, count, data, augment, **arrays)
    return str(error.value)


WHOLE = [f"train/a/{row}.png" for row in range(10)]
TESTED = [f"test/a/{row}.png" for row in range(3)]


def test_paths_of_a_whole_data_set_serve_any_part_of_it(tmp_path):
    order = np.random.default_rng(0).permutation(13)
    paths = np.array([*WHOLE, *TESTED])[order]
    found = matched(tmp_path, 13, prepared(named=True), path=paths)
    assert [paths[row] for row in found.train] == [f"train/a/{row}.png" for row in TRAIN_ROWS.tolist()]
    assert [paths[row] for row in found.validation] == [f"train/a/{row}.png" for row in VALIDATION_ROWS.tolist()]
    assert [paths[row] for row in found.test] == TESTED
    assert (found.views, found.surplus) == (0, 3)


def test_ids_are_rows_of_the_training_part_or_of_the_test_part(tmp_path):
    ids, splits = np.array([*range(9, -1, -1), 2, 1, 0]), np.array(["train"] * 10 + ["test"] * 3)
    found = matched(tmp_path, 13, prepared(named=False), id=ids, split=splits)
    assert ids[found.train].tolist() == TRAIN_ROWS.tolist()
    assert found.test.tolist() == [12, 11, 10]
    assert found.validation.tolist() == [8, 1]
    without_test = matched(tmp_path, 10, prepared(named=True), id=ids[:10])
    assert torch.equal(without_test.train, found.train)
    assert without_test.test is None


def test_the_order_of_rows_counts_where_the_file_names_the_data_by_its_hash(tmp_path):
    data = prepared(named=False)
    found = matched(tmp_path, 5, data, subset_sha256=data.subset_sha256)
    assert found.train.tolist() == [0, 1, 2, 3, 4]
    assert (found.validation, found.test) == (None, None)
    splits = np.array(["test"] * 3 + ["train"] * 5)
    hashes = {"subset_sha256": data.subset_sha256, "test_sha256": data.test_sha256}
    found = matched(tmp_path, 8, data, split=splits, **hashes)
    assert (found.train.tolist(), found.test.tolist()) == ([3, 4, 5, 6, 7], [0, 1, 2])


def test_views_are_those_of_the_same_images_drawn_alike(tmp_path):
    data, facts = prepared(named=False), {"subset_sha256": "1" * 64}
    rows = TRAIN_ROWS.tolist()
    arrays = {
        "id": np.array([*rows, *rows[::-1], 0, 1, 2]),
        "view": np.array([1] * 5 + [0] * 5 + [-1] * 3),
        "split": np.array(["train"] * 10 + ["test"] * 3),
    }
    path = tmp_path / "x.safetensors"
    from safetensors.torch import save_file

    texts = np.array(arrays.pop("split"), dtype="S5").view(np.uint8).reshape(13, 5)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()} | {"split": torch.from_numpy(texts)}
    save_file(tensors, path, metadata={**facts, "view_seed": "17", "augment": json.dumps(AUGMENT)})
    found = match_rows(open_arrays(path), 13, data, AUGMENT)
    assert found.train.tolist() == [9, 8, 7, 6, 5, 0, 1, 2, 3, 4]
    assert (found.views, found.view_seed, found.plain, found.test.tolist()) == (2, 17, None, [10, 11, 12])

    save_file(tensors, path, metadata={"subset_sha256": "4" * 64, "augment": "[]"})
    with pytest.raises(DataError) as error:
        match_rows(open_arrays(path), 13, data, AUGMENT)
    for said in ("other training images (subset_sha256 444444444444", "drawn with augment []", "view_seed"):
        assert said in str(error.value)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"path": np.array(WHOLE[:5])}, ["2 of 5 training images have no row, by path: train/a/7.png, train/a/9.png"]),
        ({"path": np.array(["a/0.png"] * 5)}, ["4 rows have a path that is not unique", "5 of 5 training images"]),
        ({"path": np.array([*WHOLE, TESTED[0]])}, ["2 of 3 test images have no row"]),
        ({"path": np.array(WHOLE[:9]), "split": np.array(["tset"] * 9)}, ["split holds tset; expected train, val"]),
        ({"id": np.arange(3)}, ["3 of 5 training images have no row, by id: 7, 4, 9"]),
        ({"id": np.array([0.5] * 10)}, ["id are torch.float64; expected whole numbers or texts"]),
        ({"id": np.arange(9), "view": np.arange(8)}, [r"view have the shape (8,); expected (9,)"]),
        ({"x": np.zeros(4)}, ["4 rows for 5 training images", "neither path nor id", "expected " + "1" * 64]),
        (
            {"x": np.zeros(5), "subset_sha256": np.array("9" * 64)},
            ["subset_sha256 is 999999999999", "in this run 1111111"],
        ),
    ],
)
def test_what_does_not_fit_is_told(tmp_path, arrays, said):
    count = len(next(iter(arrays.values())))
    message = refused(tmp_path, count, prepared(named=True), **arrays)
    for text in said:
        assert text in message


def test_paths_for_data_that_has_none_are_refused(tmp_path):
    message = refused(tmp_path, 10, prepared(named=False), path=np.array(WHOLE))
    assert "expected id" in message


def test_names_that_data_without_files_get_in_predictions_serve_as_well(tmp_path):
    ids = np.array([*(f"train[{row}]" for row in range(10)), *(f"test[{row}]" for row in range(3))])
    found = matched(tmp_path, 13, prepared(named=False), id=ids)
    assert found.train.tolist() == TRAIN_ROWS.tolist()
    assert found.test.tolist() == [10, 11, 12]


def test_ids_are_rows_of_the_table_where_it_is_one_file(tmp_path):
    # Rows 3, 7, ... of the file were drawn for testing: nobody can know their places in the parts.
    drawn = torch.tensor([3, 7, 11])
    rest = torch.tensor([row for row in range(13) if row not in drawn.tolist()])
    data = replace(prepared(named=True), file_rows=(rest, drawn))
    ids = np.random.default_rng(0).permutation(13)
    found = matched(tmp_path, 13, data, id=ids)
    assert ids[found.train].tolist() == rest[TRAIN_ROWS].tolist()
    assert ids[found.validation].tolist() == rest[VALIDATION_ROWS].tolist()
    assert ids[found.test].tolist() == drawn.tolist()
    assert "of 5 training images have no row" in refused(tmp_path, 13, data, id=ids - 20)
    # With a split they count inside each part, as for any other data.
    ids, splits = np.array([*range(10), *range(3)]), np.array(["train"] * 10 + ["test"] * 3)
    assert matched(tmp_path, 13, data, id=ids, split=splits).test.tolist() == [10, 11, 12]


def own(ids, **changes):
    """Data of one file, of 13 rows, that calls them `ids`; rows 3, 7 and 11 are its test part."""
    drawn = torch.tensor([3, 7, 11])
    rest = torch.tensor([row for row in range(13) if row not in drawn.tolist()])
    parts = ids[rest.numpy()], ids[drawn.numpy()]
    return replace(prepared(named=True), file_rows=(rest, drawn), ids=parts, **changes)


NAMES = np.random.default_rng(1).permutation(13)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    ("column", "stored"),
    [
        (NAMES + 1000, NAMES + 1000),
        (NAMES + 7, NAMES + 7),
        (NAMES + 1000, (NAMES + 1000).astype(str)),
        (np.array([f"p{name}".encode() for name in NAMES]), np.array([f"p{name}" for name in NAMES])),
        (np.array([str(name + 20).encode() for name in NAMES]), NAMES + 20),
    ],
)
def test_ids_of_a_tables_own_column_find_its_rows(tmp_path, column, stored, split):
    data = own(column)
    order = np.random.default_rng(2).permutation(13)
    arrays = {"id": stored[order]} | ({"split": np.array(["test"] * 4 + ["train"] * 9)} if split else {})
    found = matched(tmp_path, 13, data, **arrays)
    rest, drawn = (rows.numpy() for rows in data.file_rows)
    assert found.own_id is True
    assert order[found.train].tolist() == rest[TRAIN_ROWS].tolist()
    assert order[found.validation].tolist() == rest[VALIDATION_ROWS].tolist()
    assert order[found.test].tolist() == drawn.tolist()


def test_ids_that_may_be_rows_are_rows_unless_it_is_said(tmp_path):
    data, ids = own(NAMES), np.arange(13)
    found = matched(tmp_path, 13, data, id=ids)
    assert found.own_id is False
    assert found.train.tolist() == data.file_rows[0][TRAIN_ROWS].tolist()
    np.savez(tmp_path / "x.npz", id=ids)
    asked = match_rows(open_arrays(tmp_path / "x.npz"), 13, data, AUGMENT, own_id=True)
    assert asked.train.tolist() == NAMES[data.file_rows[0][TRAIN_ROWS].numpy()].tolist()
    assert matched(tmp_path, 13, own(np.arange(13)), id=ids).own_id is None  # both are the same
    assert matched(tmp_path, 13, own(NAMES + 1), id=ids).own_id is None
    assert "have no row, by id" in refused(tmp_path, 13, own(NAMES + 20), id=ids + 13)
