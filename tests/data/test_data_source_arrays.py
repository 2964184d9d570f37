"""`arrays`: what a file of np.savez holds, standardized by training statistics alone, and what is refused."""

import numpy as np
import pytest
import torch

from distail.config.schema import Data
from distail.config.training import Mix
from distail.data.arrays import LabeledArrays
from distail.data.batches import TrainingBatches, evaluation_batches
from distail.data.mixing import check_mix
from distail.data.prepare import prepare_data
from distail.data.sources import load_source
from distail.errors import DataError


def saved(path, **arrays):
    np.savez(path / "data.npz", **arrays)
    return path / "data.npz"


def made(rows=60, classes=3, columns=4, seed=0):
    random = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    x = random.normal(loc=5 + y[:, None], scale=[[0.1, 1, 10, 100]], size=(rows, columns))
    x[:, 1] = 7  # a constant
    return x, y


def prepared(path, **options):
    return prepare_data(Data(name="arrays", root=path, **options))


def inputs_of(data, part, **options):
    batches = evaluation_batches(part, batch_size=7, mean=data.mean, std=data.std, **options)
    return torch.cat([batch.inputs for batch in batches])


def test_statistics_are_those_of_the_training_rows_alone(tmp_path):
    x, y = made()
    split = np.array(["train"] * 30 + ["valid"] * 12 + ["test"] * 18)
    x[30:] += 1000  # whatever else there is must not be looked at
    x[3, 0] = np.nan
    data = prepared(saved(tmp_path, X=x, y=y, split=split))
    train = x[:30].astype(np.float32).astype(np.float64)
    mean, std = np.nanmean(train, axis=0), np.nanstd(train, axis=0)
    std[1] = 1
    np.testing.assert_allclose(data.mean, mean, rtol=1e-9)
    np.testing.assert_allclose(data.std, std, rtol=1e-9)
    for part, rows in ((data.train, slice(30)), (data.validation, slice(30, 42)), (data.test, slice(42, 60))):
        expected = np.nan_to_num((x[rows] - mean) / std, nan=0.0)
        np.testing.assert_allclose(inputs_of(data, part).numpy(), expected, rtol=1e-4, atol=1e-4)
    assert inputs_of(data, data.train)[3, 0] == 0, "a missing value is the mean"


def test_groups_can_be_left_aside(tmp_path):
    x, y = made()
    path = saved(tmp_path, X=x, y=y, group=np.arange(60) // 2)
    assert load_source(Data(name="arrays", root=path)).groups is not None
    assert load_source(Data(name="arrays", root=path, group=None)).groups is None


def test_training_batches_are_the_same_numbers_in_the_epochs_order(tmp_path):
    x, y = made()
    data = prepared(saved(tmp_path, X=x, y=y))
    in_order = inputs_of(data, data.train)
    options = {"batch_size": 8, "mean": data.mean, "std": data.std, "num_classes": 3, "seed": 3}
    batches = list(TrainingBatches(data.train, **options).epoch(1))
    assert all(torch.equal(batch.inputs, in_order[batch.index]) for batch in batches)
    assert sorted(torch.cat([batch.index for batch in batches]).tolist()) == list(range(len(data.train)))
    ranks = [list(TrainingBatches(data.train, **options, rank=rank, world_size=2).epoch(1)) for rank in (0, 1)]
    for whole, *parts in zip(batches[:-1], *(rank[:-1] for rank in ranks), strict=True):
        assert torch.equal(torch.cat([part.inputs for part in parts]), whole.inputs)


def test_channels_of_more_dimensions_are_standardized_over_all_places(tmp_path):
    x = np.random.default_rng(1).normal(3, [[1], [5]], size=(40, 2, 9))
    data = prepared(
        saved(tmp_path, X=x, y=np.arange(40) % 2, split=np.array(["train", "train", "test", "test"] * 10)), validation=0
    )
    rows = np.arange(40) % 4 < 2
    np.testing.assert_allclose(data.mean, x[rows].astype(np.float32).mean(axis=(0, 2), dtype=np.float64), rtol=1e-6)
    assert data.train.input_shape == (2, 9)


def test_whole_numbers_reach_the_network_as_they_are(tmp_path):
    x = np.random.default_rng(1).integers(0, 50, size=(40, 6))
    data = prepared(saved(tmp_path, X=x, y=np.array(["b", "a10", "a9", "b"] * 10)))
    assert data.class_names == ("a9", "a10", "b")
    assert (data.mean, data.std) == ((), ())
    found = inputs_of(data, data.test)
    assert found.dtype == torch.int64
    names = [int(name.decode()[2:-1]) for name in data.test.names]
    assert np.array_equal(found.numpy(), x[names])


@pytest.mark.parametrize("shape", [(9, 9), (3, 9, 9), (9, 9, 3)])
def test_bytes_are_images(tmp_path, shape):
    x = np.random.default_rng(0).integers(0, 256, size=(20, *shape), dtype=np.uint8)
    data = prepared(saved(tmp_path, X=x, y=np.arange(20) % 2), augment=["flip"])
    channels_last = np.moveaxis(data.train.images.numpy(), 1, -1)
    rows = [int(name.decode()[2:-1]) for name in data.train.names]
    expected = {2: x[..., None], 3: x if shape[-1] == 3 else np.moveaxis(x, 1, -1)}[len(shape)]
    assert np.array_equal(channels_last, expected[rows])


def test_class_names_name_whole_numbers(tmp_path):
    x, y = made()
    data = prepared(saved(tmp_path, X=x, y=y, class_names=["low", "mid", "high"]), class_order="natural")
    assert data.class_names == ("low", "mid", "high")
    rows = [int(name.decode()[2:-1]) for name in data.test.names]
    assert data.test.labels.tolist() == y[rows].tolist()


@pytest.mark.parametrize(
    ("changes", "culprits"),
    [
        ({"y": None}, ["'y'"]),
        ({"y": np.arange(7)}, ["y is int64 (7,)", "(60,)"]),
        ({"y": np.arange(60) / 7}, ["y is float64"]),
        ({"Y": np.arange(60), "y": None}, ["'Y'", "'y'"]),
        ({"X": np.zeros((60, 2)) + np.inf}, ["X holds 120 values that are infinite"]),
        ({"X": np.array(["a"] * 60).reshape(60, 1)}, ["X is <U1", "csv-table"]),
        ({"X": np.zeros(60)}, ["X is float64 (60,)"]),
        ({"X": np.zeros((60, 0))}, ["X is float64 (60, 0)"]),
        ({"X": np.array([[{}]] * 60)}, ["Python objects"]),
        ({"split": np.array(["train", "tset"] * 30)}, ["'tset'", "test"]),
        ({"split": np.array(["train", "val"] * 30)}, ["'test'"]),
        ({"class_names": np.array(["a", "b"])}, ["from 0 to 1", "'2'"]),
        ({"y": np.zeros(60, dtype=int)}, ["a single class"]),
        ({"group": np.array([1.0, 2.0, np.nan] * 20)}, ["20 of 60 have no group", "number 2 ", "'nan'"]),
        ({"group": np.array(["a", " ", "b"] * 20)}, ["20 of 60 have no group", "number 1 "]),
        ({"X": np.stack([np.arange(60.0), np.full(60, np.nan)], 1)}, ["only nan, in X[:, 1];"]),
        ({"X": np.stack([np.full((60, 4), np.nan), np.zeros((60, 4))], 1)}, ["only nan, in X[:, 0];"]),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path, changes, culprits):
    x, y = made()
    arrays = {name: value for name, value in ({"X": x, "y": y} | changes).items() if value is not None}
    with pytest.raises(DataError) as told:
        prepared(saved(tmp_path, **arrays))
    assert [each for each in culprits if each not in str(told.value)] == []


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", b"\x93NUMPY\x01\x00v\x00", b"x,y\n1,2\n"])
def test_files_that_are_no_arrays(tmp_path, content):
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"data\.npz"):
        prepared(tmp_path / "data.npz")


def test_options_of_images_are_refused(tmp_path):
    x, y = made()
    with pytest.raises(DataError, match=r"data\.augment, data\.image_size"):
        prepared(saved(tmp_path, X=x, y=y), augment=["crop"], image_size=8)
    with pytest.raises(DataError, match=r"data\.root"):
        load_source(Data(name="arrays"))


def test_the_same_row_in_training_and_test_is_told(tmp_path):
    x, y = made()
    split = np.array(["train"] * 40 + ["test"] * 20)
    x[57] = x[0]
    notes = prepared(saved(tmp_path, X=x, y=y, split=split)).notes
    assert any("1 of 20 test examples is a byte-for-byte copy of a training example" in note for note in notes)


def test_mixup_is_of_floats_and_cutmix_of_images():
    from distail.config.training import Mix

    floats = LabeledArrays(torch.randn(8, 3), torch.tensor([0, 1] * 4))
    whole = LabeledArrays(torch.zeros(8, 3, dtype=torch.int64), torch.tensor([0, 1] * 4))
    options = {"batch_size": 8, "mean": [0.0] * 3, "std": [1.0] * 3, "num_classes": 2, "seed": 0}
    plain = next(TrainingBatches(floats, **options).epoch(0))
    mixed = next(TrainingBatches(floats, **options, mix=Mix(name="mixup")).epoch(0))
    assert torch.equal(plain.index, mixed.index)
    own = mixed.mixed.own[:, None]
    partners = torch.stack([next(x for x in plain.inputs if torch.allclose(own[i] * plain.inputs[i] + (1 - own[i]) * x,
                                                                           mixed.inputs[i], atol=1e-5))
                            for i in range(8)])  # fmt: skip
    torch.testing.assert_close(mixed.inputs, own * plain.inputs + (1 - own) * partners, atol=1e-5, rtol=0)
    for data, name, said in ((floats, "cutmix", "needs images"), (whole, "mixup", "floats")):
        with pytest.raises(DataError, match=said):
            TrainingBatches(data, **options, mix=Mix(name=name))


def test_damaged_compressed_arrays_are_told_and_not_raised_as_they_come(tmp_path):
    path = tmp_path / "data.npz"
    few_values = np.random.default_rng(0).integers(0, 9, size=(400, 5)).astype(float)  # which do compress
    np.savez_compressed(path, X=few_values, y=np.arange(400) % 2)
    content = bytearray(path.read_bytes())
    middle = len(content) // 3  # inside the compressed values of X
    content[middle : middle + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"data\.npz cannot be read"):
        load_source(Data(name="arrays", root=path))


def test_weights_stay_with_their_rows_and_have_mean_one_in_training(tmp_path):
    x, y = made()
    weight = 1.0 + np.arange(60)
    data = prepared(saved(tmp_path, X=x, y=y, weight=weight), imbalance_factor=4, validation=0.2)
    rows = [int(name.decode()[2:-1]) for name in data.train.names]
    batches = TrainingBatches(data.train, batch_size=8, mean=data.mean, std=data.std, num_classes=3, seed=0)
    np.testing.assert_allclose(batches.weights, weight[rows] / weight[rows].mean(), rtol=1e-6)
    assert data.class_counts == tuple(np.bincount(y[rows])), "examples are counted, whatever they weigh"
    other = prepared(saved(tmp_path, X=x, y=y, weight=weight[::-1].copy()), imbalance_factor=4, validation=0.2)
    assert other.subset_sha256 != data.subset_sha256
    with pytest.raises(DataError, match=r"training\.mix: .* weights"):
        check_mix(Mix(name="mixup"), data.train)


@pytest.mark.parametrize("weight", [np.full(60, -1.0), np.full(60, np.nan), np.zeros(60), np.array(["a"] * 60)])
def test_weights_that_are_none_are_told(tmp_path, weight):
    x, y = made()
    with pytest.raises(DataError, match="weight is"):
        prepared(saved(tmp_path, X=x, y=y, weight=weight))


def test_images_have_no_weights(tmp_path):
    x = np.zeros((20, 9, 9), dtype=np.uint8)
    with pytest.raises(DataError, match="'weight'"):
        prepared(saved(tmp_path, X=x, y=np.arange(20) % 2, weight=np.ones(20)))


def test_a_column_without_a_training_value_is_refused(tmp_path):
    x, y = made()
    split = np.array(["train"] * 40 + ["test"] * 20)
    x = x.astype(np.float32)
    x[:40, 1] = np.nan
    with pytest.raises(DataError, match=r"no training example has a value in X\[:, 1\], though others have"):
        prepared(saved(tmp_path, X=x, y=y, split=split))
    x[0, 1] = 3.0
    assert prepared(saved(tmp_path, X=x, y=y, split=split)).mean[1] == 3.0


def test_texts_may_be_bytes_of_utf_8(tmp_path):
    """As h5py gives them."""
    x, y = made()
    words = np.char.encode(np.where(np.arange(len(y)) % 2 == 0, "\u00e4 ", "b"), "utf-8")
    assert prepared(saved(tmp_path, X=x, y=words)).class_names == ("b", "\u00e4")
    words[0] = b"\xff"
    with pytest.raises(DataError, match="y has bytes that are not UTF-8"):
        prepared(saved(tmp_path, X=x, y=words))
