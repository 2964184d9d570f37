"""A student loaded from its file answers as the run did, whatever its images come as."""

from __future__ import annotations

import csv
import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import distail
from distail.cli import main
from distail.data.prepare import prepare_data
from distail.errors import CheckpointError, ConfigError, DataError, ModelError
from distail.evaluation.predictions import load_predictions
from distail.models import create_model, read_metadata, save_weights
from helpers.class_folders import NAMES, folder_run

pytestmark = pytest.mark.integration


def rows(finished):
    with (finished.folder / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_run_says_what_it_answered_for_each_test_image(finished, photos):
    stored, table = load_predictions(finished.folder / "predictions.safetensors"), rows(finished)
    names = finished.figures["class_names"]
    assert [row["label"] for row in table] == [names[label] for label in stored.target]
    assert [row["answer"] for row in table] == [names[answer] for answer in stored.logits.argmax(1)]
    expected = stored.logits.softmax(1).max(1).values
    assert [float(row["probability"]) for row in table] == pytest.approx(expected.tolist(), abs=2e-6)
    assert all((photos / row["path"]).is_file() and f"/{row['label']}/" in row["path"] for row in table)


def test_names_come_out_of_the_cache_as_they_went_in(finished, photos, tmp_path):
    again = folder_run(tmp_path / "again", data={"name": "folder", "root": str(photos), "image_size": 16})
    assert [row["path"] for row in rows(again)] == [row["path"] for row in rows(finished)]


def test_the_same_answers_for_files_images_and_tensors(finished, photos):
    student = distail.load_student(finished.folder)
    paths = [photos / row["path"] for row in rows(finished)]
    stored = load_predictions(finished.folder / "predictions.safetensors").logits
    with torch.no_grad():
        torch.testing.assert_close(student(paths), stored, atol=1e-4, rtol=1e-4)
    answers = student.predict(paths)
    assert [answer.name for answer in answers] == [row["answer"] for row in rows(finished)]
    with Image.open(paths[0]) as image:
        in_color = image.convert("RGB")
    levels = np.array(in_color)
    floats = torch.from_numpy(levels / 255).float().permute(2, 0, 1)
    one = student.predict(paths[0], top=3)[0]
    assert len(one.top) == 3
    assert sum(p for _, p in student.predict(paths[0], top=9)[0].top) == pytest.approx(1)
    for image in (in_color, in_color.convert("RGBA"), levels, torch.from_numpy(levels), floats, [in_color]):
        (other,) = student.predict(image)
        assert (other.name, other.probability) == (one.name, pytest.approx(one.probability, abs=0.02))
    batch = torch.from_numpy(levels)[None].repeat(3, 1, 1, 1)
    assert len(student.predict(batch)) == len(student.predict(batch.permute(0, 3, 1, 2) / 255)) == 3


def test_the_caller_draws_the_same_random_numbers_as_before(finished):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    distail.load_student(finished.folder)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.zeros(3, 16, 16, dtype=torch.uint8), "(H, W, 3)"),
        (torch.zeros(16, 16, 3), "(3, H, W)"),
        (torch.full((3, 16, 16), 200.0), "expected 0 to 1"),
        (torch.zeros(3, 16, 16, dtype=torch.int64), "int64"),
        ("nowhere.png", "nowhere.png: No such file"),
        (None, "NoneType"),
    ],
)
def test_images_that_would_be_misread_are_refused(finished, image, words):
    with pytest.raises(DataError) as caught:
        distail.load_student(finished.folder).predict(image)
    assert words in str(caught.value)


def test_other_shares_of_classes_follow_bayes_rule(finished, photos):
    student = distail.load_student(finished.folder)
    image = next((photos / "test" / "two").iterdir())
    counts = torch.tensor(finished.figures["class_counts"], dtype=torch.float64)
    names = finished.figures["class_names"]
    plain = student(image).double()[0]
    expected = (plain.softmax(0) / counts) / (plain.softmax(0) / counts).sum()
    torch.testing.assert_close(student.adjusted()(image).double().softmax(1)[0], expected, atol=1e-5, rtol=1e-5)
    same = student.adjusted(prior=dict(zip(names, counts.tolist(), strict=True)))
    torch.testing.assert_close(same(image).softmax(1)[0], plain.softmax(0).float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(student.adjusted(0.0)(image)[0], plain.float())
    with pytest.raises(ConfigError, match=r"(?s)no share of class 'one'.*'on' is not a class.*'one'"):
        student.adjusted(prior={"zero": 1, "on": 1, "two": 1, "three": 0.0})


def test_a_student_of_balanced_classes_takes_other_shares_from_equal_ones(finished, photos, tmp_path, capsys):
    weights, balanced = finished.folder / "student.safetensors", tmp_path / "balanced.safetensors"
    told = read_metadata(weights)
    assert (told["posterior"], distail.load_student(weights).posterior) == ("natural", "natural")
    save_weights(distail.load_student(weights).network, balanced, {**told, "posterior": "balanced"})
    student, image = distail.load_student(balanced), next((photos / "test" / "two").iterdir())
    shares = {"zero": 4, "one": 3, "two": 2, "three": 1}
    expected = student(image)[0] + torch.tensor([shares[name] for name in student.class_names]).log()
    torch.testing.assert_close(student.adjusted(prior=shares)(image)[0].softmax(0), expected.softmax(0))
    (tmp_path / "shares.json").write_text(json.dumps(shares))
    for words, twice in ((["--adjust", "1"], True), (["--prior", str(tmp_path / "shares.json")], False), ([], False)):
        assert main(["predict", str(balanced), str(image), *words]) == 0
        assert ("corrects the priors twice" in capsys.readouterr().err) == twice
        assert main(["predict", str(weights), str(image), *words]) == 0
        assert "corrects the priors twice" not in capsys.readouterr().err


def test_the_file_alone_says_that_its_run_tested_adjusted_logits(photos, tmp_path, capsys):
    changes = {"method": {"name": "ce", "adjust": 1.5}, "training": {"epochs": 1, "batch_size": 32}}
    folder = folder_run(tmp_path / "run", **changes).folder
    image = str(next((photos / "test" / "two").iterdir()))
    for source in (folder, shutil.copy(folder / "student.safetensors", tmp_path)):
        assert main(["predict", str(source), image]) == 0
        assert "use --adjust 1.5" in capsys.readouterr().err
        assert main(["predict", str(source), image, "--adjust", "1.5"]) == 0
        assert "--adjust" not in capsys.readouterr().err


def test_predictions_that_are_not_adjusted_as_the_metrics_are_warn(tmp_path):
    changes = {"method": {"name": "ce", "adjust": 1.5}, "training": {"epochs": 1, "batch_size": 32}}
    folder = folder_run(tmp_path / "run", **changes).folder
    image = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    for source in (folder, shutil.copy(folder / "student.safetensors", tmp_path)):
        student = distail.load_student(source)
        assert student.reported_tau == 1.5
        with pytest.warns(UserWarning, match=r"adjusted with tau 1.5, these predictions are not: use .adjusted\(1.5\)"):
            student.predict(image)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            student.adjusted(1.5).predict(image)
            student.adjusted(0).predict(image)
    student.posterior = "balanced"
    with pytest.warns(UserWarning, match="corrects the priors twice"):
        student.adjusted()


@pytest.mark.parametrize(("mode", "tags"), [("I;16", {281: 4095}), ("I;16", {262: 0}), ("L", {262: 0})])
def test_a_tiff_is_the_same_by_path_and_as_an_image(finished, tmp_path, mode, tags):
    """Its levels are read by tags, which a copy of the image would not have."""
    levels = np.linspace(0, 4000 if mode == "I;16" else 250, 64).reshape(8, 8)
    image = Image.fromarray(levels.astype(np.uint16 if mode == "I;16" else np.uint8))
    image.save(tmp_path / "a.tiff", tiffinfo=tags)
    student = distail.load_student(finished.folder)
    with Image.open(tmp_path / "a.tiff") as opened:
        assert torch.equal(student([opened]), student([tmp_path / "a.tiff"]))


def test_no_image_has_no_prediction(finished):
    assert distail.load_student(finished.folder).predict([]) == []


def test_a_run_of_an_earlier_version_can_be_adjusted_too(finished, tmp_path):
    weights = finished.folder / "student.safetensors"
    told = {key: value for key, value in read_metadata(weights).items() if key != "class_counts"}
    save_weights(distail.load_student(weights).network, tmp_path / "student.safetensors", told)
    with pytest.raises(ConfigError, match="class_counts"):
        distail.load_student(tmp_path).adjusted()
    (tmp_path / "result.json").write_bytes((finished.folder / "result.json").read_bytes())
    expected = distail.load_student(finished.folder).adjusted().offset
    assert torch.equal(distail.load_student(tmp_path).adjusted().offset, expected)


def own_network(num_classes, in_channels):
    return nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))


OWN = "inference.test_inference_student:own_network"
DIGITS = {"name": "digits", "imbalance_factor": 20}


@pytest.mark.parametrize("network", ["VGG8", OWN, {"name": "resnet8", "shortcut": "pad"}])
def test_a_file_alone_says_how_to_feed_its_network(tmp_path, network):
    """With nothing but the file, its words and something that builds the network: the logits that the run stored."""
    folder_run(tmp_path / "run", data=DIGITS, student={"model": network}, training={"epochs": 1})
    path = tmp_path / "run" / "student.safetensors"
    with safe_open(path, framework="pt") as file:
        told = file.metadata()
    options = {"num_classes": len(json.loads(told["class_names"])), "in_channels": int(told["in_channels"])}
    if told["model"] == OWN:
        built = own_network(**options)
    else:
        assert distail.load_student(path).class_names == tuple("0123456789")
        built = create_model(told["model"], shortcut=told["shortcut"], image_size=int(told["image_size"]), **options)
    built.load_state_dict(load_file(path))
    mean, std = (torch.tensor(json.loads(told[key]))[:, None, None] for key in ("mean", "std"))
    images = prepare_data("digits").test.images
    assert images.shape[2:] == (int(told["height"]), int(told["width"]))
    stored = load_file(tmp_path / "run" / "predictions.safetensors")["logits"]
    with torch.no_grad():
        torch.testing.assert_close(built.eval()((images / 255 - mean) / std), stored, atol=1e-4, rtol=1e-4)
        for student in (distail.load_student(tmp_path / "run"), distail.load_student(path, network=built)):
            torch.testing.assert_close(student(images.permute(0, 2, 3, 1)), stored, atol=1e-4, rtol=1e-4)


def test_code_of_ones_own_is_run_for_a_run_or_by_name_not_because_a_file_says_so(tmp_path, monkeypatch):
    folder_run(tmp_path / "run", data=DIGITS, student=OWN, training={"epochs": 1})
    file = tmp_path / "run" / "student.safetensors"
    with pytest.raises(ModelError, match="because a file names it"):
        distail.load_student(file)
    assert distail.load_student(file, network=OWN).class_names == distail.load_student(tmp_path / "run").class_names
    monkeypatch.setenv("DISTAIL_NO_CODE", "1")
    with pytest.raises(ModelError, match="refuses"):
        distail.load_student(tmp_path / "run")


def test_what_cannot_be_loaded_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no .*nothing"):
        distail.load_student(tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"no student\.safetensors"):
        distail.load_student(tmp_path)
    save_weights(nn.Linear(2, 2), tmp_path / "w.safetensors", {})
    with pytest.raises(CheckpointError, match="does not name its network"):
        distail.load_student(tmp_path / "w.safetensors")
    told = {"model": "resnet8", "class_names": json.dumps(NAMES), "in_channels": "three", "image_size": "8"}
    save_weights(nn.Linear(2, 2), tmp_path / "w.safetensors", {**told, "mean": "[0.5, null]", "std": "[0]"})
    with pytest.raises(CheckpointError, match=r"(?s)in_channels: .*three.*mean: .*finite.*std: .*above 0"):
        distail.load_student(tmp_path / "w.safetensors")
