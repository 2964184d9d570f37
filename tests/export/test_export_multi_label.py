"""The exported file of a student of several classes per example: sigmoids, thresholds, mean average precision."""

from __future__ import annotations

import copy
import csv
import json

import numpy as np
import pytest
import torch

import distail
from distail.cli import main
from distail.errors import ConfigError, IncompleteError
from distail.evaluation.average_precision import average_precisions
from distail.export import export as module
from distail.export.calibration import balanced_rows
from distail.export.export import Options, export, raise_if_lost
from distail.export.formats import METADATA_FILE
from distail.export.parity import parity, tail_drop
from distail.export.runtimes import open_onnx, open_torch
from distail.report.export_tables import export_notes, parity_table
from helpers.multi_label_data import NAMES, experiment, multi_label_arrays, save_arrays
from helpers.whole_runs import run

pytestmark = pytest.mark.integration
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
OWN = {name: 0.6 - 0.1 * place for place, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    return run(experiment(folder, save_arrays(folder), "ce"))


@pytest.fixture(scope="module")
def exported(finished):
    options = Options(("onnx", "torch"), int8=True, max_tail_loss=100.0, seconds=0.05, threshold=OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "measure", lambda task: "not timed here")
        return export(finished.folder, options)


@pytest.mark.parametrize(("file", "opened"), [("student.onnx", open_onnx), ("student.pt2", open_torch)])
def test_float_files_answer_as_the_student(finished, exported, file, opened):
    student, (rows, _) = distail.load_student(finished.folder), multi_label_arrays(20, seed=5)
    with torch.no_grad():
        expected = student(rows).numpy()
    np.testing.assert_allclose(opened(exported[0] / file, 1)(rows), expected, atol=1e-4)


def test_a_file_alone_decides_as_predict_does(finished, exported):
    """What its metadata say is enough: sigmoids, and a threshold a class."""
    session = onnxruntime.InferenceSession(exported[0] / "student.onnx")
    told, (rows, _) = session.get_modelmeta().custom_metadata_map, multi_label_arrays(60, seed=5)
    logits, probabilities = session.run(None, {"inputs": rows})
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits)), rtol=1e-4)
    names, thresholds = (json.loads(told[key]) for key in ("class_names", "thresholds"))
    own = [tuple(n for n, p, t in zip(names, each, thresholds, strict=True) if p >= t) for each in probabilities]
    answers = distail.load_student(finished.folder).with_thresholds(OWN).predict(rows)
    assert own == [answer.classes for answer in answers]
    assert len({len(classes) for classes in own}) > 2
    assert "sigmoid" in told["outputs"]
    assert told["targets"] == "multi_label"
    extra = {METADATA_FILE: ""}
    torch.export.load(exported[0] / "student.pt2", extra_files=extra)
    assert json.loads(extra[METADATA_FILE])["thresholds"] == told["thresholds"]


def test_every_file_is_judged_by_mean_average_precision(finished, exported):
    content = exported[1]
    first, onnx, int8, pt2 = content["files"]
    assert first["test"] == finished.student
    for each in (onnx, pt2):
        assert each["parity"]["equal_answers"] == 100
        assert each["parity"]["differences"]["mean_average_precision"]["difference"] == 0
    assert int8["float_layers"] == []
    assert int8["parity"]["largest_logit_difference"] > 0
    raise_if_lost(content)
    lost = copy.deepcopy(content)
    lost["files"][2]["parity"]["differences"]["groups.thirds.tail"]["difference"] = -100.5
    with pytest.raises(IncompleteError, match=r"student-int8.onnx: the tail third loses 100.50 points, mAP [+-]"):
        raise_if_lost(lost)
    table = parity_table(content)
    assert table.columns[1] == "mAP"
    assert "Top-1" not in table.columns
    assert any("sigmoid" in note and "0.1 to 0.6" in note for note in export_notes(content))
    assert json.loads((exported[0] / "export.json").read_text())["thresholds"] == pytest.approx(list(OWN.values()))


def test_parity_is_what_plain_loops_find():
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(60, 3, generator=generator)
    target = torch.rand(60, 3, generator=generator) < torch.tensor([0.5, 0.3, 0.2])
    file = student + 0.8 * torch.randn(60, 3, generator=generator)
    thresholds = [0.5, 0.4, 0.7]
    found = parity(file, student, target, [50, 20, 5], thresholds, resamples=50)
    own, base = average_precisions(file, target), average_precisions(student, target)
    assert found["differences"]["groups.thirds.tail"]["difference"] == pytest.approx(own[2] - base[2])
    assert found["differences"]["mean_average_precision"]["interval"] is not None
    decided = [
        [[float(logit.sigmoid()) >= t for logit, t in zip(row, thresholds, strict=True)] for row in each]
        for each in (file, student)
    ]
    same = sum(mine == theirs for mine, theirs in zip(*decided, strict=True))
    assert found["equal_answers"] == pytest.approx(100 * same / 60)
    falls = [max(0.0, base[c] - own[c]) for c in (1, 2)]
    assert tail_drop(file, student, target, [1, 2]) == pytest.approx(sum(falls) / 2)


def test_calibration_has_as_many_of_each_class_and_of_none():
    labels = torch.zeros(100, 2, dtype=torch.bool)
    labels[:20, 0], labels[95:, 1] = True, True
    chosen = labels[balanced_rows(labels, 2, images=30)]
    assert [int(chosen[:, 0].sum()), int(chosen[:, 1].sum()), int((~chosen.any(1)).sum())] == [10, 10, 10]


def test_predict_says_which_classes_an_example_has(finished, tmp_path, capsys):
    with (finished.folder / "predictions.csv").open(newline="") as file:
        answered = {int("".join(filter(str.isdigit, row["path"]))): row["answer"] for row in csv.DictReader(file)}
    data = finished.folder.parent / "several.npz"
    out = tmp_path / "answers.csv"
    assert main(["predict", str(finished.folder), str(data), "--output", str(out)]) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {place: rows[place]["classes"] for place in answered} == answered
    table = tmp_path / "thresholds.csv"
    table.write_text("class,threshold\n" + "".join(f"{name},{p:.1f}\n" for name, p in OWN.items()))
    for threshold in ("0.05", str(table)):
        asked = ["predict", str(finished.folder), str(data), "--threshold", threshold, "--json", "--top", "6"]
        assert main([*asked, "--output", str(out)]) == 0
        for line in map(json.loads, out.read_text().splitlines()):
            least = dict.fromkeys(NAMES, 0.05) if threshold == "0.05" else OWN
            has = {each["class"] for each in line["top"] if each["probability"] >= least[each["class"]]}
            assert set(line["classes"]) == has


def test_shares_of_classes_are_not_for_examples_of_several(finished, tmp_path, capsys):
    data = str(finished.folder.parent / "several.npz")
    for verb in (["predict", str(finished.folder), data], ["export", str(finished.folder), "--output", str(tmp_path)]):
        assert main([*verb, "--adjust", "1"]) == 2
        assert "--adjust" in capsys.readouterr().err
    assert main(["predict", str(finished.folder), data, "--top", "20"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    with (finished.folder / "predictions.csv").open(newline="") as file:
        for answer in csv.DictReader(file):
            assert rows[int("".join(filter(str.isdigit, answer["path"])))]["classes"] == answer["answer"]


def test_thresholds_that_cannot_be_used_are_told(finished, tmp_path, capsys):
    data, student = str(finished.folder.parent / "several.npz"), distail.load_student(finished.folder)
    for threshold, culprit in (("1.5", "above 0 and below 1"), ("missing.csv", "neither a number nor a file")):
        assert main(["predict", str(finished.folder), data, "--threshold", threshold]) == 2
        assert culprit in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"(?s)'fog'.*'snwo'.*snow"):
        student.with_thresholds({**{name: 0.5 for name in NAMES if name != "fog"}, "snwo": 0.5})
