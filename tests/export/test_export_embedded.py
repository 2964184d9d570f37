"""A student that embeds the categories of a table: from its run, stopped and resumed, to predict and an exported file.

Shapes: B rows.
"""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
import torch

import distail
from distail.cli import main
from distail.data.columns import TableEncoding
from distail.errors import DataError, ModelError
from distail.evaluation.predictions import load_predictions
from distail.export import export as module
from distail.export.runtimes import open_onnx, open_student, open_torch
from distail.models import read_metadata
from distail.runner.teach import teach
from distail.training.progress import Silent
from distail.training.signals import Interrupted
from helpers.tables import table_run, write_table
from helpers.whole_runs import Killed

pytestmark = pytest.mark.integration
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

FEATURES = ["age", "weight", "kind", "code", "smoker"]
NEW = "age,weight,kind,code,smoker\n30,70,a,007,true\n41,,zebra,x,false\n,65,,7,true\n"


def data_section(table):
    return {"name": "csv-table", "root": str(table), "label": "sort", "features": FEATURES, "categories": "embedded"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a run, trained from the command line, that was stopped once."""
    place = tmp_path_factory.mktemp("embedded")
    table = write_table(place / "table.csv")
    changes = {
        "data": {**data_section(table), "validation": 0.1},
        "teacher": {"model": {"name": "mlp", "hidden": 32}},
        "method": "kd",
        "training": {"epochs": 3, "batch_size": 16, "learning_rate": 0.05},
        "trainer": {"device": "cpu", "trackers": [], "checkpoint_every_steps": 4},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("helpers.tables.run", lambda config: distail.run(config, reporter=Killed("student", 6)))
        with pytest.raises(Interrupted):
            table_run(place / "run", **changes)
    assert main(["run", str(place / "run" / "config.yaml")]) == 0
    return place / "run"


def test_new_rows_are_answered_as_the_run_answered_them(folder, tmp_path, capsys):
    table = folder.parent / "table.csv"
    capsys.readouterr()
    assert main(["predict", str(folder), str(table)]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    with (folder / "predictions.csv").open(newline="") as file:
        expected = [(int(row["path"].removeprefix("row ")), row["answer"]) for row in csv.DictReader(file)]
    assert [(place, rows[place]["class"]) for place, _ in expected] == expected
    (tmp_path / "new.csv").write_text(NEW)
    assert main(["predict", str(folder / "student.safetensors"), str(tmp_path / "new.csv")]) == 0
    assert "'zebra'" in capsys.readouterr().err


def test_an_exported_file_answers_alike(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "measure", lambda task: "not timed here")
    assert main(["export", str(folder), "--format", "onnx,torch"]) == 0
    student, draw = distail.load_student(folder), np.random.default_rng(0)
    rows = draw.normal(40, 9, (9, 6)).astype(np.float32)
    rows[:, 1], rows[:, 3], rows[:, 4] = draw.integers(0, 2, 9), draw.integers(0, 4, 9), draw.integers(0, 4, 9)
    rows[::3, 0] = np.nan
    with torch.no_grad():
        expected = student(rows).numpy()
    for file, opened in (("student.onnx", open_onnx), ("student.pt2", open_torch)):
        answer = opened(folder / "export" / file, 1)
        np.testing.assert_allclose(answer(rows), expected, atol=1e-4)
        unknown, no_code = rows.copy(), rows.copy()
        unknown[:, 3], no_code[:, 3] = 0, 77
        np.testing.assert_allclose(answer(no_code), answer(unknown), atol=1e-6)
    files = json.loads((folder / "export" / "export.json").read_text())["files"]
    assert [each["parity"]["equal_answers"] for each in files if each["format"] in ("onnx", "torch")] == [100, 100]


def test_the_words_of_the_file_are_enough_to_feed_it(folder):
    metadata = read_metadata(folder / "student.safetensors")
    columns = {column["name"]: column for column in json.loads(metadata["columns"])}
    assert columns["kind"] == {
        "name": "kind",
        "levels": ["a", "b", "c"],
        "missing": False,
        "other": False,
        "embedded": True,
    }
    encoding = TableEncoding.from_json(metadata["columns"])
    assert encoding.entries == ("age", "age=(missing)", "weight", "kind=(code)", "code=(code)", "smoker")
    student = distail.load_student(folder)
    given = {"age": [30.0], "weight": [70.0], "kind": ["c"], "code": ["7"], "smoker": [True]}
    with torch.no_grad():
        torch.testing.assert_close(student(given), student(torch.tensor([[30.0, 0, 70, 3, 2, 1]])))
    for odd in (4.0, -1.0, 0.5, float("nan")):
        with pytest.raises(DataError, match=r"kind=\(code\)"):
            student(torch.tensor([[30.0, 0, 70, odd, 2, 1]]))


def test_its_answers_are_stored_and_a_table_of_other_levels_is_refused(folder, tmp_path):
    teach(folder, [], output=tmp_path / "answers.safetensors", reporter=Silent())
    stored = load_predictions(folder / "predictions.safetensors")
    assert stored.logits.shape[1] == 3
    table = write_table(tmp_path / "table.csv")
    table.write_text(table.read_text().replace(",a,", ",d,"))
    config = {
        "name": "other",
        "output": str(tmp_path / "run"),
        "data": data_section(table),
        "teacher": {"model": {"name": "mlp", "hidden": 32}, "checkpoint": str(folder / "teacher.safetensors")},
        "student": "mlp",
        "method": "kd",
        "training": {"epochs": 1},
    }
    with pytest.raises(ModelError, match="levels"):
        distail.run(config, reporter=Silent())
    config["data"] = {**data_section(folder.parent / "table.csv"), "categories": "one_hot"}
    with pytest.raises(ModelError, match=r"data\.categories"):
        distail.run({**config, "output": str(tmp_path / "one-hot")}, reporter=Silent())


def test_the_student_itself_can_be_timed(folder):
    numbers = np.random.default_rng(0).random((3, 6), dtype=np.float32)  # which are no codes
    assert np.isfinite(open_student(folder, 1)(numbers)).all()
