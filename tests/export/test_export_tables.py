"""The exported file of a student for a table answers as the student, and needs only its own words to be fed."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import distail
from distail.export import export as module
from distail.export.export import Options, export
from distail.export.formats import METADATA_FILE, written
from distail.export.graph import Signature
from distail.export.runtimes import open_onnx, open_torch
from distail.inference.student import Student
from distail.models import create_model
from distail.models.array_description import ArrayDescription
from distail.report.export_tables import parity_table
from helpers.tables import table_run

pytestmark = pytest.mark.integration
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

ALONE = '''
import csv, json, math, sys

import numpy as np
import torch

run, table = sys.argv[1:]
about = {"distail.json": ""}
network = torch.export.load(run + "/export/student.pt2", extra_files=about).module()
told = json.loads(about["distail.json"])


def numbers(row):
    """As `encoding` says it."""
    for column in json.loads(told["columns"]):
        text = row[column["name"]]
        if column["levels"] is None:
            yield {"": math.nan, "true": 1.0, "false": 0.0}.get(text) if text in ("", "true", "false") else float(text)
        else:
            yield from (float(text == level) for level in column["levels"])
            if column["other"]:
                yield float(text != "" and text not in column["levels"])
        if column["missing"]:
            yield float(text == "")


with open(table, newline="") as file:
    rows = [list(numbers(row)) for row in csv.DictReader(file)]
assert len(rows[0]) == len(json.loads(told["entries"]))
logits, probabilities = network(torch.tensor(rows, dtype=torch.float32))
np.save(run + "/answers.npy", logits.detach().numpy())
print(json.dumps([json.loads(told["class_names"])[answer] for answer in probabilities.argmax(1).tolist()]))
assert not any(name.split(".")[0] == "distail" for name in sys.modules)
'''


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return table_run(tmp_path_factory.mktemp("tables") / "run")


@pytest.fixture(scope="module")
def exported(finished):
    """Only what opens without torch is timed: the images' tests time the rest."""
    real = module.measure
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "measure", lambda task: real(task) if task.runtime == "onnx" else "not timed here")
        return export(finished.folder, Options(("onnx", "torch"), int8=True, max_tail_loss=100.0, seconds=0.05))


def some_rows(count):
    """Raw numbers of rows, some missing."""
    draw = np.random.default_rng(1)
    rows = draw.normal(30, 9, (count, 10)).astype(np.float32)
    rows[:, 1:2], rows[:, 3:] = 0, draw.integers(0, 2, (count, 7))
    rows[::3, 0] = np.nan
    return rows


@pytest.mark.parametrize(("file", "opened"), [("student.onnx", open_onnx), ("student.pt2", open_torch)])
@pytest.mark.parametrize("count", [1, 5, 40])
def test_float_files_answer_as_the_student_for_any_batch(finished, exported, file, opened, count):
    student, rows = distail.load_student(finished.folder), some_rows(count)
    with torch.no_grad():
        expected = student(rows).numpy()
    np.testing.assert_allclose(opened(exported[0] / file, 1)(rows), expected, atol=1e-4)


def test_every_file_is_judged_by_groups_of_classes_on_the_test_rows(finished, exported):
    first, onnx, int8, pt2 = exported[1]["files"]
    assert first["test"]["per_class_recall"] == finished.student["per_class_recall"]
    for each in (onnx, pt2):
        assert each["parity"]["largest_logit_difference"] < 1e-4
        assert each["parity"]["equal_answers"] == 100
        assert each["parity"]["differences"]["groups.thirds.tail"]["difference"] == 0
    assert int8["parity"]["largest_logit_difference"] > 0
    assert int8["float_layers"] == []
    assert all(each["failed"] is None and each["latency"] for each in (onnx, int8))
    assert "32 examples" in parity_table(exported[1]).caption
    session = onnxruntime.InferenceSession(exported[0] / "student.onnx")
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("inputs", "tensor(float)", ["batch", 10])


def test_the_files_own_words_are_enough_to_use_it(finished, exported):
    """Nothing but torch and numpy: the metadata say how columns become numbers, and the file does the rest."""
    table = finished.folder.parent / "table.csv"
    command = [sys.executable, "-c", ALONE, str(finished.folder), str(table)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with (finished.folder / "predictions.csv").open(newline="") as file:
        expected = [(int(row["path"].removeprefix("row ")), row["answer"]) for row in csv.DictReader(file)]
    answers = json.loads(done.stdout)
    assert [(place, answers[place]) for place, _ in expected] == expected
    extra = {METADATA_FILE: ""}
    torch.export.load(exported[0] / "student.pt2", extra_files=extra)
    told = json.loads(extra[METADATA_FILE])
    session = onnxruntime.InferenceSession(exported[0] / "student.onnx")
    assert {key: session.get_modelmeta().custom_metadata_map[key] for key in told} == told


def test_signals_are_exported_with_other_shares_of_classes(tmp_path):
    told = ArrayDescription(
        "mlp", "linear", ("a", "b"), (2, 9), "float32", (1.0, 2.0), (3.0, 0.5), (9, 3), options={"hidden": 8}
    )
    student = Student(create_model("mlp", num_classes=2, example=told.example(2), hidden=8), told).adjusted(1.0)
    deployed = written("torch", student, Signature("array", 3, False), tmp_path / "a.pt2")
    assert not deployed.adds
    given = np.random.default_rng(0).normal(size=(3, 2, 9)).astype(np.float32)
    given[1, 0, 4] = np.nan
    with torch.no_grad():
        expected = student(given).numpy()
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(open_torch(tmp_path / "a.pt2", 1)(given), expected, atol=1e-5)
