"""Weights on disk: the round trip, and every damage."""

from __future__ import annotations

import argparse
import os
import pickle
import shutil
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from distail.errors import CheckpointError, ModelError
from distail.models import FeatureTap, create_model, load_weights, read_metadata, save_weights
from distail.models.weights import recognize_weights, unused_weights


def resnet8(classes=4, **options):
    return create_model("resnet8", num_classes=classes, **options)


def same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.fixture
def stored(tmp_path):
    model = resnet8()
    with torch.no_grad():
        model(torch.randn(4, 3, 8, 8))  # moves the running statistics
    path = tmp_path / "teacher.safetensors"
    save_weights(model, path, {"model": "resnet8", "classes": "cat,dog"})
    return model, path


def test_round_trip_is_exact_and_carries_metadata(stored):
    model, path = stored
    other = resnet8()
    assert not same(model, other)
    load_weights(other, path)
    assert same(model, other)
    assert read_metadata(path) == {"model": "resnet8", "classes": "cat,dog"}


def test_round_trip_of_channels_last_and_of_a_tapped_model(tmp_path):
    tap = FeatureTap(resnet8().to(memory_format=torch.channels_last), 4)
    save_weights(tap.model, tmp_path / "a.safetensors", {})
    other = resnet8()
    load_weights(other, tmp_path / "a.safetensors")
    assert same(tap.model, other)


def test_tied_weights(tmp_path):
    def tied():
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    first, second = tied(), tied()
    save_weights(first, tmp_path / "a.safetensors", {})
    load_weights(second, tmp_path / "a.safetensors")
    assert same(first, second)
    assert second[0].weight is second[1].weight


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text there")
def test_files_whose_names_are_not_utf8(stored, tmp_path):
    model, path = stored
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    save_weights(model, folder / "a.safetensors", {"model": "resnet8"})
    torch.save({"state_dict": model.state_dict(), "state_dict_ema": model.state_dict()}, path.with_suffix(".pth"))
    shutil.move(path.with_suffix(".pth"), folder / "b.pth")
    for name in ("a.safetensors", "b.pth"):
        recognize_weights(folder / name)
        other = resnet8()
        load_weights(other, folder / name)
        assert same(model, other)
    assert read_metadata(folder / "a.safetensors") == {"model": "resnet8"}
    assert len(unused_weights(folder / "b.pth")) == 1


def test_saving_makes_the_folder_and_leaves_one_file(tmp_path):
    save_weights(nn.Linear(2, 2), tmp_path / "new" / "a.safetensors", {})
    assert os.listdir(tmp_path / "new") == ["a.safetensors"]


def test_a_failed_save_leaves_the_old_file(stored, monkeypatch):
    _, path = stored
    before = path.read_bytes()

    def full(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_weights(resnet8(), path, {})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module.model.", "_orig_mod.module."])
def test_a_wrapper_prefix_is_ignored(stored, prefix, tmp_path):
    model, _ = stored
    save_file({prefix + key: value for key, value in model.state_dict().items()}, tmp_path / "b.safetensors")
    other = resnet8()
    load_weights(other, tmp_path / "b.safetensors")
    assert same(model, other)


def test_a_prefix_of_the_model_itself_is_ignored_too(stored, tmp_path):
    model, path = stored
    tap = FeatureTap(resnet8(), 4)
    load_weights(tap, path)
    assert same(tap.model, model)
    save_weights(tap, tmp_path / "tap.safetensors", {})
    other = resnet8()
    load_weights(other, tmp_path / "tap.safetensors")
    assert same(other, model)


@pytest.mark.parametrize("keys", [("state_dict", "state_dict_ema"), ("model", "model_ema"), ("ema", "model")])
def test_weights_that_are_there_twice_are_told(stored, keys, tmp_path):
    model, path = stored
    used, other = sorted(keys, key=lambda key: "ema" in key)
    twin = {f"module.{name}": tensor for name, tensor in resnet8().state_dict().items()}
    scaler = {"scale": torch.tensor(65536.0)}
    torch.save({key: model.state_dict() if key == used else twin for key in keys} | {"amp": scaler}, tmp_path / "x.pth")
    loaded = resnet8()
    load_weights(loaded, tmp_path / "x.pth")
    assert same(loaded, model)
    (note,) = unused_weights(tmp_path / "x.pth")
    assert f"under '{used}' are used, not those under '{other}'" in note
    torch.save({used: model.state_dict(), "amp": scaler}, tmp_path / "once.pth")
    assert unused_weights(tmp_path / "once.pth") == unused_weights(path) == unused_weights(tmp_path / "gone.pth") == []


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda t: (t * 100).to(torch.int8), "int8"),
        (lambda t: t.to(torch.complex64), "complex64"),
        (lambda t: t.to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (lambda t: t.to_sparse(), "sparse"),
        (lambda t: t.to("meta"), "meta"),
    ],
)
def test_what_is_no_weight_is_refused(stored, change, kind, tmp_path):
    weights = stored[0].state_dict()
    weights["classifier.weight"] = change(weights["classifier.weight"])
    torch.save(weights, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=rf"x\.pth .*{kind} .*classifier\.weight"):
        load_weights(resnet8(), tmp_path / "x.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions_are_read(stored, dtype, tmp_path):
    torch.save(
        {name: t.to(dtype) if t.is_floating_point() else t for name, t in stored[0].state_dict().items()},
        tmp_path / "x.pth",
    )
    load_weights(resnet8(), tmp_path / "x.pth")


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_plain_torch_files(stored, wrap, suffix, tmp_path):
    model, _ = stored
    torch.save(wrap(model.state_dict()), tmp_path / f"a{suffix}")
    other = resnet8()
    load_weights(other, tmp_path / f"a{suffix}")
    assert same(model, other)


def as_safetensors(state, path):
    save_file(dict(state), path)


def as_before_torch_16(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [torch.save, as_before_torch_16, as_safetensors])
@pytest.mark.parametrize(
    "name", ["a.pth.tar", "a.th", "a.t7", "a.ckpt", "a.bin", "a.PTH", "a", "a.safetensors", "a.pth"]
)
def test_a_file_is_known_by_its_content(stored, write, name, tmp_path):
    model, _ = stored
    write(model.state_dict(), tmp_path / name)
    recognize_weights(tmp_path / name)
    other = resnet8()
    load_weights(other, tmp_path / name)
    assert same(model, other)
    assert read_metadata(tmp_path / name) == {}


def test_the_length_of_a_header_is_no_pickle(tmp_path):
    """A safetensors file whose first bytes, the length of its header, are those of a pickle."""
    path = next(
        path
        for path in (tmp_path / str(letters) for letters in range(700))
        if save_weights(nn.Linear(2, 2), path, {"about": "x" * int(path.name)}) or path.read_bytes()[:2] == b"\x80\x02"
    )
    assert "about" in read_metadata(path)


@pytest.mark.parametrize("prefix", ["backbone.", "net.encoder.", "module.model."])
def test_any_prefix_that_all_share_is_ignored(stored, prefix, tmp_path):
    model, _ = stored
    torch.save({"state_dict": {prefix + key: value for key, value in model.state_dict().items()}}, tmp_path / "a.pth")
    other = resnet8()
    load_weights(other, tmp_path / "a.pth")
    assert same(model, other)


def test_an_average_of_weights_as_torch_keeps_it(stored, tmp_path):
    model, _ = stored
    average = torch.optim.swa_utils.AveragedModel(model)
    torch.save(average.state_dict(), tmp_path / "a.pth")
    assert "n_averaged" in average.state_dict()
    other = resnet8()
    load_weights(other, tmp_path / "a.pth")
    assert same(model, other)


def test_counters_of_batch_normalization_may_be_missing(stored, tmp_path):
    model, _ = stored
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "a.pth")
    other = resnet8()
    load_weights(other, tmp_path / "a.pth")
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in state.items())


def test_a_prefix_that_only_some_share_is_another_network(stored, tmp_path):
    state = stored[0].state_dict()
    both = {f"{part}.{key}": value for part in ("student", "teacher") for key, value in state.items()}
    torch.save(both, tmp_path / "a.pth")
    with pytest.raises(ModelError, match="in the file but not in the model: teacher"):
        load_weights(resnet8(), tmp_path / "a.pth")


def test_the_only_state_dict_beside_other_things(stored, tmp_path):
    model, _ = stored
    torch.save({"net": model.state_dict(), "acc": 93.1, "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "a.pth")
    other = resnet8()
    load_weights(other, tmp_path / "a.pth")
    assert same(model, other)


@pytest.mark.parametrize("read", [recognize_weights, lambda path: load_weights(resnet8(), path)])
def test_of_several_state_dicts_one_is_proposed(stored, read, tmp_path):
    state = stored[0].state_dict()
    torch.save({"model_ema": state, "raw": state, "epoch": 3}, tmp_path / "a.pth.tar")
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path / "a.pth.tar")
    message = str(caught.value)
    assert "it holds 'model_ema', 'raw', 'epoch'" in message
    assert "torch.load('a.pth.tar', weights_only=True)['model_ema']" in message


class Code:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return (os.system, (self.command,))


def test_nothing_is_unpickled(tmp_path):
    witness = tmp_path / "was-here"
    options = {"model": nn.Linear(2, 2).state_dict(), "args": argparse.Namespace(lr=0.1)}
    torch.save(options, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"argparse\.Namespace.*'a\.pth', weights_only=False\)\['model'\]"):
        load_weights(resnet8(), tmp_path / "a.pth")
    for content in (Code(f"touch {witness}"), nn.Linear(2, 2)):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(CheckpointError, match=r"more than tensors.*could run code"):
            load_weights(resnet8(), tmp_path / "a.pth")
    assert not witness.exists()


@pytest.mark.parametrize("content", [b"", b"abc", b"\x80\x02" + b"x" * 50, pickle.dumps({"a": 1})])
def test_torch_files_that_are_damaged(content, tmp_path):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"teacher: .*a\.pt"):
        load_weights(resnet8(), tmp_path / "a.pt")


def test_a_truncated_torch_file(stored, tmp_path):
    path = tmp_path / "a.pt"
    torch.save(stored[0].state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        load_weights(resnet8(), path)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(2)], torch.zeros(2), {"state_dict": {"a": 1}}])
def test_torch_files_that_are_no_state_dict(content, tmp_path):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="must hold a plain state dict"):
        load_weights(resnet8(), tmp_path / "a.pt")


@pytest.mark.parametrize("read", [lambda path: load_weights(resnet8(), path, what="student"), read_metadata])
def test_missing_files_folders_and_damage(read, stored, tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        read(tmp_path / "nothing.safetensors")
    with pytest.raises(CheckpointError, match="is a folder"):
        read(tmp_path)
    content = stored[1].read_bytes()
    for damaged in (b"", b"no", content[:200], content[:-10], b"\xff" * 64):
        (tmp_path / "c.safetensors").write_bytes(damaged)
        with pytest.raises(CheckpointError, match="not a safetensors file, or is damaged"):
            read(tmp_path / "c.safetensors")


def test_messages_name_whose_weights_they_are(tmp_path):
    with pytest.raises(CheckpointError, match=r"^student: .*nothing\.safetensors' does not exist"):
        load_weights(resnet8(), tmp_path / "nothing.safetensors", what="student")


@pytest.mark.parametrize("classifier", ["linear", "cosine"])
def test_another_number_of_classes(classifier, tmp_path):
    save_weights(resnet8(10, classifier=classifier), tmp_path / "a.safetensors", {})
    with pytest.raises(ModelError, match=r"10 classes.* 4 .*classifier\.weight"):
        load_weights(resnet8(4, classifier=classifier), tmp_path / "a.safetensors")


def test_other_channels_are_no_other_classes(tmp_path):
    save_weights(resnet8(in_channels=1), tmp_path / "a.safetensors", {})
    with pytest.raises(ModelError, match=r"stem\.0\.weight \(16, 1, 3, 3\) in the file, \(16, 3, 3, 3\) here"):
        load_weights(resnet8(), tmp_path / "a.safetensors")


@pytest.mark.parametrize("inside", [False, True])
def test_one_of_several_networks_in_a_file_can_be_stored_alone(tmp_path, inside):
    own = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = {f"{prefix}.{name}": tensor for prefix in ("net", "teacher") for name, tensor in own.state_dict().items()}
    state |= {"loss.weight": torch.ones(3)}
    torch.save({"state_dict": state, "epoch": 1} if inside else state, tmp_path / "a.pth")
    with pytest.raises(ModelError, match="'net\\.', 'teacher\\.'") as caught:
        load_weights(own, tmp_path / "a.pth")
    code = str(caught.value).rpartition("torch.save(")[2].removesuffix(", 'weights.pth')")
    torch.save(eval(code, {"state": state}), tmp_path / "b.pth")
    load_weights(own, tmp_path / "b.pth")
    with pytest.raises(ModelError, match="another architecture"):
        load_weights(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3)), tmp_path / "a.pth")
    torch.save({**own.state_dict(), "loss.weight": torch.ones(3)}, tmp_path / "c.pth")
    with pytest.raises(ModelError, match="beside all of the model"):
        load_weights(own, tmp_path / "c.pth")


def test_a_deeper_network_is_not_cut_to_a_shallower_one(tmp_path):
    deep = create_model("resnet20", num_classes=10, shortcut="pad").state_dict()
    torch.save(deep, tmp_path / "deep.pth")
    with pytest.raises(ModelError, match=r"deeper network of the same family.*body\.stage1\.1\.") as caught:
        load_weights(create_model("resnet8", num_classes=10, shortcut="pad"), tmp_path / "deep.pth")
    assert "torch.save" not in str(caught.value)


def test_another_architecture_is_told_by_the_file_itself(tmp_path):
    stranger = create_model("resnet20", num_classes=10, shortcut="pad")
    save_weights(stranger, tmp_path / "a.safetensors", {"model": "resnet20", "shortcut": "pad"})
    model = create_model("resnet8", num_classes=4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ModelError) as caught:
        load_weights(model, tmp_path / "a.safetensors")
    message = str(caught.value)
    assert "does not fit Network" in message
    assert "10 missing in the file: body.stage2.0.shortcut.0.weight" in message
    assert "and 2 more" in message
    assert "60 in the file but not in the model: body.stage1.1." in message
    assert "and 52 more" in message
    assert "2 of another shape: classifier.weight (10, 64) in the file, (4, 64) here" in message
    assert "'resnet20' with shortcut 'pad'" in message
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_weights_of_strangers_get_a_hint(tmp_path):
    save_weights(nn.Linear(3, 3), tmp_path / "a.safetensors", {})
    with pytest.raises(ModelError, match="another library"):
        load_weights(resnet8(), tmp_path / "a.safetensors")


def test_create_model_starts_from_weights(stored):
    model, path = stored
    assert same(create_model("resnet8", num_classes=4, weights=path), model)
    with pytest.raises(ModelError, match=r"resnet20: (.|\n)*'resnet8'"):
        create_model("resnet20", num_classes=4, weights=str(path))


def test_half_precision_weights_fill_a_full_precision_model(tmp_path):
    model = resnet8()
    save_file({key: value.half() for key, value in model.state_dict().items()}, tmp_path / "a.safetensors")
    other = resnet8()
    load_weights(other, tmp_path / "a.safetensors")
    assert other.classifier.weight.dtype == torch.float32
    torch.testing.assert_close(other.classifier.weight, model.classifier.weight, atol=1e-3, rtol=1e-2)


def test_a_torch_file_has_no_metadata(tmp_path):
    torch.save(resnet8().state_dict(), tmp_path / "teacher.pt")
    assert read_metadata(tmp_path / "teacher.pt") == {}
    with pytest.raises(CheckpointError, match=r"does not exist"):
        read_metadata(tmp_path / "missing.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(stored, value):
    model, path = stored
    with torch.no_grad():
        next(model.parameters())[0] = value
    save_weights(model, path, {})
    first = next(iter(model.state_dict()))
    with pytest.raises(CheckpointError, match=rf"teacher: .* 1 of \d+ tensors: {first}"):
        load_weights(resnet8(), path)
