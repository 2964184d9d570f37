"""Examples of several classes: read from each source, split, and refused where it has no meaning.

Shapes: N examples, C classes.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from distail import Datasets
from distail.data.labels import strata
from distail.data.long_tail import class_counts
from distail.data.prepare import prepare_data
from distail.data.splits import stratified_split
from distail.errors import DataError
from helpers.multi_label_data import NAMES, multi_label_arrays, save_arrays

SEVERAL = {"targets": "multi_label"}


def test_arrays(tmp_path):
    x, y = multi_label_arrays()
    data = prepare_data("arrays", root=save_arrays(tmp_path), validation=0.2, **SEVERAL)
    assert data.class_names == NAMES
    assert data.samples == len(data.train)
    assert data.class_counts == tuple(data.train.labels.sum(0).tolist())
    whole = torch.cat([part.labels for part in (data.train, data.validation, data.test)])
    assert whole.dtype == torch.bool
    assert whole.sum(0).tolist() == y.sum(0).tolist()
    row = int(data.test.names[0].decode()[2:-1])
    np.testing.assert_array_equal(data.test.labels[0].numpy(), y[row])
    np.testing.assert_array_equal(data.test.inputs[0].numpy(), x[row])


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_rare_classes_are_held_out_in_proportion(fraction):
    labels = torch.from_numpy(multi_label_arrays(2000)[1])
    kept, held_out = stratified_split(labels, fraction, seed=3)
    assert sorted([*kept.tolist(), *held_out.tolist()]) == list(range(2000))
    rare = int(class_counts(labels, 6)[-1] * fraction + 0.5)
    assert labels[held_out].sum(0)[-1].item() == rare
    np.testing.assert_allclose(labels[held_out].float().mean(0), labels.float().mean(0), atol=0.06)


def test_the_rarest_class_decides_and_none_is_a_stratum_of_its_own():
    labels = torch.tensor([[True, True, False], [True, False, False], [False, False, False], [True, False, True]])
    assert strata(labels).tolist() == [1, 0, 3, 2]
    assert torch.equal(strata(torch.tensor([2, 0])), torch.tensor([2, 0]))


def test_tables_and_manifests_have_bars_between_classes(tmp_path):
    x, y = multi_label_arrays(60)
    texts = ["|".join(name for name, has in zip(NAMES[:4], row, strict=True) if has) for row in y[:, :4]]
    table = tmp_path / "table.csv"
    lines = [f"{a},{text}" for a, text in zip(x[:, 0], texts, strict=True)]
    table.write_text("\n".join(["value,kinds", *lines]))
    found = prepare_data("csv-table", root=table, label="kinds", **SEVERAL)
    assert found.class_names == tuple(sorted(NAMES[:4]))
    whole = torch.cat([found.train.labels, found.test.labels])
    expected = {name: int(y[:, place].sum()) for place, name in enumerate(NAMES[:4])}
    assert dict(zip(found.class_names, whole.sum(0).tolist(), strict=True)) == expected

    for row in range(60):
        Image.fromarray(np.full((4, 4), row, dtype=np.uint8)).save(tmp_path / f"{row}.png")
    manifest = tmp_path / "list.csv"
    manifest.write_text("\n".join(["path,label", *(f"{row}.png,{text}" for row, text in enumerate(texts))]))
    for stream in ("never", "always"):
        images = prepare_data("csv", root=manifest, stream=stream, workers=0, **SEVERAL)
        of_row = {
            int(name.decode().split(".")[0]): labels
            for part in (images.train, images.test)
            for name, labels in zip(part.names, part.labels, strict=True)
        }
        order = [NAMES.index(name) for name in images.class_names]
        assert torch.equal(torch.stack([of_row[row] for row in range(60)]), torch.from_numpy(y[:, order]))


def made_datasets():
    x, y = multi_label_arrays(40)
    items = [(torch.from_numpy(row), torch.from_numpy(has).float()) for row, has in zip(x, y[:, :3], strict=True)]
    return Datasets(train=items[:30], validation=None, test=items[30:], class_names=NAMES[:3])


def test_data_of_your_own():
    data = prepare_data(f"{__name__}:made_datasets", **SEVERAL)
    assert torch.equal(data.train.labels, torch.from_numpy(multi_label_arrays(40)[1][:30, :3]))
    with pytest.raises(DataError, match=r"rows of numbers.*data\.targets: multi_label"):
        prepare_data(f"{__name__}:made_datasets")


def test_another_order_of_classes(tmp_path):
    order = tmp_path / "order.txt"
    order.write_text("\n".join(reversed(NAMES)))
    root = save_arrays(tmp_path)
    natural, other = (
        prepare_data("arrays", root=root, class_order=chosen, **SEVERAL) for chosen in ("natural", str(order))
    )
    assert other.class_names == tuple(reversed(NAMES))
    assert torch.equal(other.train.labels.flip(1), natural.train.labels)


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (np.zeros(8), r"\(8,\).*matrix"),
        (np.full((8, 2), 2), "0 and 1"),
        (np.zeros((5, 2)), r"\(5, 2\).*\(8, classes\)"),
        (np.zeros((8, 2)), "2 of 2 classes have no training"),
        (np.tile([True, False], (8, 1)) | (np.arange(8) % 2 == 0)[:, None], "always present"),
    ],
)
def test_labels_that_cannot_be_used(tmp_path, y, said):
    path = tmp_path / "wrong.npz"
    np.savez(path, X=np.random.default_rng(0).normal(size=(8, 3)), y=y)
    with pytest.raises(DataError, match=said):
        prepare_data("arrays", root=path, **SEVERAL)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "digits"}, r"digits.*arrays, csv, csv-table"),
        ({"name": "arrays", "imbalance_factor": 10}, "imbalance_factor"),
        ({"name": "arrays", "sampler": "class_balanced"}, r"sampler.*instance"),
    ],
)
def test_what_is_for_one_class_is_refused(tmp_path, options, said):
    name = options.pop("name")
    with pytest.raises(DataError, match=said):
        prepare_data(name, root=save_arrays(tmp_path), **options, **SEVERAL)


def test_a_matrix_needs_the_key(tmp_path):
    with pytest.raises(DataError, match=r"y is bool \(400, 6\)"):
        prepare_data("arrays", root=save_arrays(tmp_path))


def test_a_matrix_of_labels_without_multi_label_is_told_what_it_may_be(tmp_path):
    x, y = multi_label_arrays(40)
    np.savez(tmp_path / "data.npz", X=x, y=y)
    with pytest.raises(DataError, match=r"data\.targets: multi_label"):
        prepare_data("arrays", root=tmp_path / "data.npz")
