"""The bridge to timm: built and fed as it should be, and what is told where timm or its torchvision is missing."""

from __future__ import annotations

import builtins
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import distail
from distail.data.prepare import prepare_data
from distail.errors import CheckpointError, ModelError
from distail.models import FeatureTap, InputNormalization, check_model, create_model, load_weights, save_weights
from distail.models.timm_bridge import _mismatch
from helpers.whole_runs import experiment, run


def failing_import(monkeypatch, error):
    real = builtins.__import__

    def imports(name, *arguments, **options):
        if name == "timm":
            raise error
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", imports)


def test_timm_that_is_not_installed(monkeypatch):
    failing_import(monkeypatch, ModuleNotFoundError("No module named 'timm'"))
    with pytest.raises(ModelError, match=r"pip install 'distail\[timm\]'"):
        create_model("timm:resnet18", num_classes=3)


def test_torchvision_built_for_another_torch(monkeypatch):
    failing_import(monkeypatch, RuntimeError("operator torchvision::nms does not exist"))
    with pytest.raises(ModelError, match=r"torchvision.*pip install"):
        create_model("timm:resnet18", num_classes=3)


def test_other_errors_of_the_import_are_not_covered_up(monkeypatch):
    failing_import(monkeypatch, RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        create_model("timm:resnet18", num_classes=3)


@pytest.mark.parametrize(
    ("torch_version", "expected"),
    [
        ("2.13.0+cpu", "'torchvision==0.28.*' --index-url https://download.pytorch.org/whl/cpu"),
        ("2.11.1+cu130", "'torchvision==0.26.*' --index-url https://download.pytorch.org/whl/cu130"),
        ("2.12.0", "'torchvision==0.27.*'"),
    ],
)
def test_the_torchvision_to_install(torch_version, expected):
    assert _mismatch(torch_version, "0.20.0", RuntimeError("x")).endswith(expected)


@pytest.mark.parametrize("option", [{"shortcut": "pad"}, {"classifier": "cosine"}])
def test_options_of_our_own_networks_are_refused(option):
    with pytest.raises(ModelError, match="'timm:resnet18'"):
        create_model("timm:resnet18", num_classes=3, **option)


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [
        ("resnet18", 3, 32),
        ("mobilenetv3_small_050", 1, 32),
        ("vit_tiny_patch16_224", 3, 64),
        ("convnext_atto", 2, 64),
    ],
)
def test_models_of_several_kinds(timm, name, channels, size):
    model = create_model(f"timm:{name}", num_classes=5, in_channels=channels, image_size=size).eval()
    tap = FeatureTap(model, 5)
    outputs = tap(torch.randn(2, channels, size, size))
    head = model.get_classifier()
    assert isinstance(head, nn.Linear)
    assert outputs.features.shape == (2, tap.feature_dim)
    torch.testing.assert_close(head(outputs.features), outputs.logits)


def test_images_reach_the_model_normalized_as_it_was_trained(timm):
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    model = create_model("timm:resnet18", num_classes=5, mean=mean, std=std).eval()
    raw_NCHW = torch.rand(2, 3, 8, 8, dtype=torch.float64).numpy()
    seen = []
    model.model.conv1.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    given = (raw_NCHW - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    model(torch.from_numpy(given).float())
    theirs = model.model.pretrained_cfg
    expected = (raw_NCHW - np.reshape(theirs["mean"], (3, 1, 1))) / np.reshape(theirs["std"], (3, 1, 1))
    np.testing.assert_allclose(seen[0].numpy(), expected, atol=1e-5)


def test_gray_images_are_normalized_with_the_mean_over_channels(timm):
    model = create_model("timm:resnet18", num_classes=5, in_channels=1, mean=(0.0,), std=(1.0,))
    assert isinstance(model.normalization, InputNormalization)
    config = model.model.pretrained_cfg
    expected = -np.mean(config["mean"]) / np.mean(config["std"])
    assert model.normalization.shift.item() == pytest.approx(expected, rel=1e-6)


def test_without_mean_and_std_images_pass_as_they_are(timm):
    assert isinstance(create_model("timm:resnet18", num_classes=5).normalization, nn.Identity)


def test_a_normalization_for_other_channels_is_told(timm):
    with pytest.raises(ModelError, match="one value per channel"):
        create_model("timm:resnet18", num_classes=5, in_channels=3, mean=(0.5,), std=(0.5,))


def test_pretrained_weights_for_other_classes_keep_the_body(timm, tmp_path):
    pretrained = timm.create_model("resnet18", num_classes=1000)
    save_file(pretrained.state_dict(), tmp_path / "pretrained.safetensors")
    told = []
    model = create_model("timm:resnet18", num_classes=5, weights=tmp_path / "pretrained.safetensors", tell=told.append)
    [sentence] = told
    assert all(word in sentence for word in ("fc.weight", "fc.bias", "1,000", "5"))
    assert torch.equal(model.model.layer1[0].conv1.weight, pretrained.layer1[0].conv1.weight)
    assert model.get_classifier().out_features == 5
    again = create_model(
        "timm:resnet18", num_classes=1000, weights=str(tmp_path / "pretrained.safetensors"), tell=told.append
    )
    assert told == [sentence]
    assert torch.equal(again.model.fc.weight, pretrained.fc.weight)


def test_pretrained_weights_without_a_classifier_or_for_gray_images(timm, tmp_path):
    pretrained = timm.create_model("resnet18", num_classes=1000)
    body = {key: value for key, value in pretrained.state_dict().items() if not key.startswith("fc.")}
    save_file(body, tmp_path / "body.safetensors")
    told = []
    model = create_model(
        "timm:resnet18", num_classes=5, in_channels=1, weights=tmp_path / "body.safetensors", tell=told.append
    )
    assert len(told) == 1
    assert "has no head" in told[0]
    torch.testing.assert_close(model.model.conv1.weight, pretrained.conv1.weight.sum(1, keepdim=True))


def test_weights_that_do_not_fit(timm, tmp_path):
    save_file(timm.create_model("resnet34", num_classes=7).state_dict(), tmp_path / "larger.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "stranger.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"no")
    torch.save({"a": torch.zeros(2)}, tmp_path / "a.bin")
    for file, error, message in (
        ("stranger.safetensors", ModelError, r"100 missing in the file: conv1.weight.*\n.*1 in the file but.*: a"),
        ("damaged.safetensors", CheckpointError, "is damaged"),
        ("nothing.safetensors", CheckpointError, "does not exist"),
        ("a.bin", ModelError, "100 missing in the file: conv1.weight"),
    ):
        with pytest.raises(error, match=message):
            create_model("timm:resnet18", num_classes=5, weights=tmp_path / file)
    with pytest.raises(ModelError, match=r"larger.*does not fit[^$]*missing in the file[^$]*of another shape"):
        create_model("timm:resnet50", num_classes=5, weights=tmp_path / "larger.safetensors")
    with pytest.raises(ModelError, match=r"larger.*does not fit[^$]* 96 in the file but not in the model: layer1\.2"):
        create_model("timm:resnet18", num_classes=5, weights=tmp_path / "larger.safetensors")


@pytest.mark.parametrize(
    ("change", "told"),
    [(lambda weight: weight * torch.nan, "has nan or infinity"), (lambda weight: weight.char(), "int8 tensors")],
)
def test_weights_that_are_no_finite_numbers_are_refused(timm, tmp_path, change, told):
    state = timm.create_model("resnet18", num_classes=7).state_dict()
    name = "layer1.0.conv1.weight"
    save_file({**state, name: change(state[name])}, tmp_path / "changed.safetensors")
    for classes in (5, 7):
        with pytest.raises(CheckpointError, match=rf"timm:resnet18: .*{told}.*{name}"):
            create_model("timm:resnet18", num_classes=classes, weights=tmp_path / "changed.safetensors")


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("efficientnet_b0", 64),
        ("resnet18", 64),
        ("mobilenetv3_small_050", 64),
        ("convnext_atto", 64),
        ("deit_tiny_distilled_patch16_224", 32),
    ],
)
def test_a_new_head_starts_near_the_uniform_answer(timm, tmp_path, name, size):
    torch.manual_seed(0)
    new = create_model(f"timm:{name}", num_classes=8, image_size=size)
    options = {"img_size": size} if name.startswith("deit") else {}
    pretrained = timm.create_model(name, num_classes=11, **options)
    save_file(pretrained.state_dict(), tmp_path / "pretrained.safetensors")
    told = []
    other = create_model(
        f"timm:{name}", num_classes=8, image_size=size, weights=tmp_path / "pretrained.safetensors", tell=told.append
    )
    assert len(told) == 1
    images, target = torch.randn(8, 3, size, size), torch.arange(8)
    for model in (new, other):
        model.train("deit" not in name)  # which gives two answers in training
        with torch.no_grad():
            loss = nn.functional.cross_entropy(model(images), target)
        assert loss.item() == pytest.approx(np.log(8), abs=0.05)


@pytest.mark.parametrize("name", ["a.pth", "a.pth.tar", "a.bin", "a"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.net."])
def test_pretrained_weights_of_any_name_and_prefix(timm, tmp_path, name, prefix):
    pretrained = timm.create_model("resnet18", num_classes=7)
    state = {prefix + key: value for key, value in pretrained.state_dict().items() if "num_batches" not in key}
    torch.save({"state_dict": {**state, "n_averaged": torch.tensor(3)}, "epoch": 3}, tmp_path / name)
    model = create_model("timm:resnet18", num_classes=7, weights=tmp_path / name)
    assert all(torch.equal(value, model.model.state_dict()[key.removeprefix(prefix)]) for key, value in state.items())
    assert "state_dict" not in model.model.pretrained_cfg


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_a_students_file_says_how_to_feed_it(timm, tmp_path, name):
    """With nothing but the file, torch, safetensors and timm: the logits that the run stored."""
    config = experiment(
        tmp_path / "run",
        "ce",
        data={"name": "digits", "imbalance_factor": 20, "image_size": 32},
        teacher=None,
        student=f"timm:{name}",
        training={"epochs": 1, "batch_size": 256},
    )
    run(config)
    path = tmp_path / "run" / "student.safetensors"
    with safe_open(path, framework="pt") as file:
        told = file.metadata()
    options = {"img_size": int(told["image_size"])} if name.startswith("vit") else {}
    network = timm.create_model(
        told["model"].removeprefix("timm:"),
        num_classes=len(json.loads(told["class_names"])),
        in_chans=int(told["in_channels"]),
        **options,
    ).eval()
    network.load_state_dict({key.removeprefix("model."): value for key, value in load_file(path).items()})
    mean, std = (torch.tensor(json.loads(told[key]))[:, None, None] for key in ("mean", "std"))
    images = prepare_data("digits", image_size=32).test.images.float() / 255
    stored = load_file(tmp_path / "run" / "predictions.safetensors")["logits"]
    with torch.no_grad():
        torch.testing.assert_close(network((images - mean) / std), stored, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(distail.load_student(path)(images), stored, atol=2e-3, rtol=2e-3)


def test_our_own_files_round_trip_and_bare_timm_files_load_too(timm, tmp_path):
    first, second, third = (create_model("timm:resnet18", num_classes=5) for _ in range(3))
    save_weights(first, tmp_path / "a.safetensors", {})
    load_weights(second, tmp_path / "a.safetensors")
    save_file(first.model.state_dict(), tmp_path / "bare.safetensors")
    load_weights(third, tmp_path / "bare.safetensors")
    for other in (second, third):
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in first.state_dict().items())


def test_unknown_timm_names_are_short(timm):
    with pytest.raises(ModelError, match=r"'resnet19'.*resnet18") as caught:
        create_model("timm:resnet19", num_classes=5)
    assert len(str(caught.value)) < 300
    with pytest.raises(ModelError, match="'resnet19'"):
        check_model("timm:resnet19")
    check_model("timm:resnet18")


def test_what_timm_refuses_is_told(timm):
    with pytest.raises(ModelError, match=r"'timm:inception_v3'.*\(2, 3, 8, 8\)"):
        create_model("timm:inception_v3", num_classes=5, image_size=8)
