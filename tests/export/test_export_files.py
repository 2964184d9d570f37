"""Exported files answer as the student does, take images of any size, and say what they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import distail
from distail.cli import main
from distail.data.dataset import LabeledImages
from distail.errors import ConfigError, IncompleteError, ModelError
from distail.evaluation.metrics import evaluate_predictions
from distail.evaluation.predictions import load_predictions
from distail.export.export import LOST_TOO_MUCH, Options, export, raise_if_lost, read_options
from distail.export.formats import METADATA_FILE, written
from distail.export.graph import Signature
from distail.export.int8 import quantize
from distail.export.parity import equal_answers, logits_of, parity, tail_flips
from distail.export.runtimes import open_onnx, open_torch
from distail.inference.student import Student
from distail.models.description import Description
from distail.report.page import render_page
from distail.report.read_run import run_view_from_folder
from helpers.class_folders import folder_run
from helpers.whole_runs import Recorder

pytestmark = pytest.mark.integration
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")


def levels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(("file", "opened"), [("student.onnx", open_onnx), ("student.pt2", open_torch)])
@pytest.mark.parametrize("shape", [(1, 16, 16, 3), (5, 40, 23, 3), (2, 9, 30, 3)])
def test_float_files_answer_as_the_student_for_any_batch_and_size(finished, exported, file, opened, shape):
    student, images = distail.load_student(finished.folder), levels(*shape)
    with torch.no_grad():
        expected = student(images).numpy()
    np.testing.assert_allclose(opened(exported[0] / file, 1)(images), expected, atol=1e-4)


def test_a_file_says_what_it_takes_and_gives(finished, exported):
    session = onnxruntime.InferenceSession(exported[0] / "student.onnx")
    (image,), outputs = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["batch", "height", "width", 3])
    assert [(each.name, each.shape) for each in outputs] == [("logits", ["batch", 4]), ("probabilities", ["batch", 4])]
    logits, probabilities = session.run(None, {"image": levels(3, 16, 16, 3)})
    np.testing.assert_allclose(torch.from_numpy(logits).softmax(1), probabilities, atol=1e-6)
    told = session.get_modelmeta().custom_metadata_map
    extra = {METADATA_FILE: ""}
    torch.export.load(exported[0] / "student.pt2", extra_files=extra)
    names = finished.figures["class_names"]
    assert json.loads(told["class_names"]) == json.loads(json.loads(extra[METADATA_FILE])["class_names"]) == names


def test_every_file_is_judged_by_groups_of_classes_on_the_test_set(finished, exported):
    folder, content = exported
    assert json.loads((folder / "export.json").read_text()) == json.loads(json.dumps(content))
    first, onnx, int8, pt2 = content["files"]
    assert first["test"]["per_class_recall"] == finished.student["per_class_recall"]
    assert [each["file"] for each in content["files"]] == [
        "student.safetensors",
        "student.onnx",
        "student-int8.onnx",
        "student.pt2",
    ]
    for each in (onnx, pt2):
        assert each["parity"]["largest_logit_difference"] < 1e-4
        assert each["parity"]["equal_answers"] == 100
        assert each["parity"]["differences"]["groups.thirds.tail"]["difference"] == 0
    assert int8["parity"]["largest_logit_difference"] > 0
    assert int8["bytes"] < onnx["bytes"]
    for each in content["files"]:
        assert each["failed"] is None
        assert each["peak_mb"] > 10
        assert {(time["batch"], time["threads"]) for time in each["latency"]} == {(1, 1), (32, 1), (1, 0), (32, 0)}
        assert all(0 < time["median_ms"] <= time["p95_ms"] for time in each["latency"])


def test_the_page_of_the_run_shows_the_files(finished, exported):
    page = render_page(run_view_from_folder(finished.folder))
    assert all(each["file"] in page for each in exported[1]["files"])
    path = exported[0] / "export.json"
    stored = path.read_text()
    for damaged in ("{", '{"files": 3}', '{"files": [{"latency": [{"batch": "x"}], "parity": 1}]}'):
        path.write_text(damaged)
        render_page(run_view_from_folder(finished.folder))
    path.write_text(stored)


def test_other_shares_of_classes_are_in_the_classifiers_bias(finished, tmp_path):
    student = distail.load_student(finished.folder).adjusted(1.5)
    deployed = written("torch", student, Signature("float", 3, True), tmp_path / "a.pt2")
    assert not deployed.adds
    images = np.ascontiguousarray(levels(3, 20, 20, 3).transpose(0, 3, 1, 2) / 255).astype(np.float32)
    with torch.no_grad():
        expected = student(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(open_torch(tmp_path / "a.pt2", 1)(images), expected, atol=1e-4)


class Odd(nn.Module):
    """The classifier is not the last word, so that its bias cannot take what is added to the logits."""

    def __init__(self):
        super().__init__()
        self.body, self.classifier = nn.Flatten(), nn.Linear(12, 2)

    def forward(self, images):
        return 3 * self.classifier(self.body(images))


def told(channels=3, size=2, classes=2):
    names = tuple(f"c{n}" for n in range(classes))
    counts = tuple(range(classes, 0, -1))
    return Description("x", "conv", "linear", names, channels, size, size, (0.5,) * 3, (0.5,) * 3, counts)


def test_where_the_bias_cannot_take_it_it_is_added(tmp_path):
    student = Student(Odd(), told()).adjusted(1.0)
    deployed = written("torch", student, Signature("uint8", None, True), tmp_path / "a.pt2")
    assert deployed.adds
    images = levels(2, 2, 2, 3)
    with torch.no_grad():
        np.testing.assert_allclose(open_torch(tmp_path / "a.pt2", 1)(images), student(images).numpy(), atol=1e-5)


class Untraceable(Odd):
    def forward(self, images):
        return super().forward(images) if float(images.sum()) > 0 else images


def test_a_network_that_cannot_be_exported_is_told(tmp_path):
    with pytest.raises(ModelError, match="--format torch: the network cannot be exported"):
        written("torch", Student(Untraceable(), told()), Signature("uint8", None, True), tmp_path / "a.pt2")
    assert not (tmp_path / "a.pt2").exists()


def test_layers_stay_in_float_until_the_tail_is_kept(exported, tmp_path):
    """The file as it is in int8 is said to lose 9 points, with one layer in float 3, with two 0.5."""
    losses, calibration = iter((9.0, 3.0, 0.5)), [levels(8, 16, 16, 3)]
    found = quantize(exported[0] / "student.onnx", tmp_path / "a.onnx", calibration, lambda _: next(losses), 1.0, print)
    assert len(found) == 2
    network = distail.models.create_model("resnet8", num_classes=4)
    assert set(found) <= {name for name, _ in network.named_modules()}
    exact, half, whole = (
        open_onnx(path, 1)(calibration[0])
        for path in (exported[0] / "student.onnx", tmp_path / "a.onnx", exported[0] / "student-int8.onnx")
    )
    assert 0 < np.square(half - exact).mean() < np.square(whole - exact).mean()


def test_int8_works_for_fixed_batches_and_float_images_too(finished, tmp_path):
    folder, content = export(
        finished.folder,
        Options(int8=True, batch=8, input="float", adjust=1.0, max_tail_loss=100.0, seconds=0.02),
        output=tmp_path / "out",
    )
    assert content["adjusted"]
    assert content["files"][1]["parity"]["equal_answers"] == 100
    session = onnxruntime.InferenceSession(folder / "student-int8.onnx")
    assert session.get_inputs()[0].shape == [8, 3, "height", "width"]
    assert content["files"][2]["test"]["top1"] > content["files"][0]["test"]["top1"] - 10


def test_parity_is_what_plain_loops_find():
    generator = torch.Generator().manual_seed(0)
    student, target = torch.randn(60, 3, generator=generator), torch.arange(60) % 3
    file = student + 0.8 * torch.randn(60, 3, generator=generator)
    found = parity(file, student, target, [50, 20, 5], resamples=200)
    tail = found["differences"]["groups.thirds.tail"]
    recalls = [
        100 * sum(int(logits[i].argmax()) == 2 for i in range(60) if target[i] == 2) / 20 for logits in (file, student)
    ]
    assert tail["difference"] == pytest.approx(recalls[0] - recalls[1])
    assert tail["interval"][0] <= tail["difference"] <= tail["interval"][1]
    assert found["test"] == evaluate_predictions(file, target, [50, 20, 5])
    same = sum(int(file[i].argmax()) == int(student[i].argmax()) for i in range(60))
    assert equal_answers(file, student) == pytest.approx(100 * same / 60)
    flips = sum(int(student[i].argmax()) == 2 != int(file[i].argmax()) for i in range(60) if target[i] == 2)
    assert tail_flips(file, student, target, [2]) == pytest.approx(100 * flips / 20)


def test_a_last_batch_that_is_too_small_is_filled_up(exported, finished):
    stored = load_predictions(finished.folder / "predictions.safetensors")
    images = LabeledImages(torch.from_numpy(levels(5, 3, 16, 16)), torch.zeros(5, dtype=torch.int64))
    seen = []

    def run(given):
        seen.append(len(given))
        return np.zeros((len(given), stored.logits.shape[1]), dtype=np.float32)

    assert len(logits_of(run, images, Signature("uint8", 4, True))) == 5
    assert seen == [4, 4]


def test_a_tail_that_loses_too_much_is_exit_code_3(exported, finished, capsys, monkeypatch):
    content = json.loads(json.dumps(exported[1]))
    raise_if_lost(content)
    content["files"][2]["parity"]["differences"]["groups.thirds.tail"]["difference"] = -100.5
    with pytest.raises(
        IncompleteError, match=r"student-int8.onnx: the tail third loses 100.50 points, balan"
    ) as caught:
        raise_if_lost(content)
    assert caught.value.exit_code == LOST_TOO_MUCH
    monkeypatch.setattr("distail.export.show.export", lambda *_: (exported[0], content))
    assert main(["export", str(finished.folder), "--int8"]) == 3
    assert "student-int8.onnx" in capsys.readouterr().out


def test_all_that_is_wrong_with_the_options_is_told_at_once(finished, tmp_path, capsys):
    with pytest.raises(ConfigError) as caught:
        read_options("onnyx,torch", True, "-1", "uint9", None, None, float("nan"))
    words = ("'onnx'", "--int8", "'uint8'", "--batch '-1'", "--max-tail-loss nan")
    assert all(word in str(caught.value) for word in words)
    assert main(["export", str(tmp_path)]) == 2
    assert "finished run" in capsys.readouterr().err


ELSEWHERE = """
import json, sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
probabilities = session.run(["probabilities"], {"image": np.load(sys.argv[2])})[0]
print(json.dumps([names[i] for i in probabilities.argmax(1)]))
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules} & {"torch", "distail", "PIL"})))
"""


def test_elsewhere_onnxruntime_and_numpy_are_enough(finished, exported, tmp_path, photos):
    """As in an environment without torch: a process that imports nothing else."""
    student = distail.load_student(finished.folder)
    paths = sorted((photos / "test").rglob("*.png"))
    np.save(tmp_path / "images.npy", np.stack([student.pixels(path) for path in paths]))
    command = [sys.executable, "-c", ELSEWHERE, str(exported[0] / "student.onnx"), str(tmp_path / "images.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr
    answers, imported = map(json.loads, done.stdout.splitlines())
    assert answers == [answer.name for answer in student.predict(paths)]
    assert imported == []


def test_what_is_odd_about_the_metrics_is_told_and_stays_on_the_page(tmp_path):
    method = {"name": "ce", "supervised": "balanced_softmax"}
    folder = folder_run(tmp_path / "run", method=method, training={"epochs": 1, "batch_size": 32}).folder
    (tmp_path / "run-photos" / "test" / "two" / "0.png").unlink()
    told = Recorder()
    export(folder, Options(int8=True, batch=512, adjust=1.0, max_tail_loss=100.0, seconds=0.02), reporter=told)
    page = render_page(run_view_from_folder(folder))
    for words in ("corrects the priors twice", "other test images"):
        assert sum(words in line for line in told.messages) == 1
        assert words in page
