"""Runs on examples of several classes: trained, resumed, evaluated, reported, and what is refused before.

Shapes: N examples, C classes.
"""

from __future__ import annotations

import json
import shlex

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import csv as arrow_csv

from distail.cli import main
from distail.errors import ConfigError, DistailError, ModelError
from distail.evaluation.headline import by_class
from distail.evaluation.predictions import load_predictions
from distail.files import read_tensors
from distail.report.build import report_view
from distail.runner.checks import check, read_experiment
from distail.runner.evaluate import evaluate_run
from distail.runner.plan import plan_run
from distail.runner.run_folder import RunFolder
from distail.runner.teach import teach
from distail.training.progress import Silent
from distail.training.signals import Interrupted
from helpers.multi_label_data import NAMES, experiment, multi_label_arrays, save_arrays
from helpers.whole_runs import Killed, run

pytestmark = pytest.mark.integration
ONE_POSTERIOR = {"supervised": {"name": "bce", "tau": 1}, "targets": ["debias"], "temperature": 2.0}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return save_arrays(tmp_path_factory.mktemp("several"))


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, run(experiment(folder, root, ONE_POSTERIOR))


def test_a_student_learns_from_a_teacher(finished):
    _, result = finished
    test, taught_by = result.student, result.teacher
    chance = 100 * np.mean([0.65, 0.5, 0.33, 0.2, 0.1, 0.05])
    assert test["mean_average_precision"] > chance + 10
    assert taught_by["mean_average_precision"] > chance + 10
    assert not {"top1", "ece"} & test.keys()
    assert "test_adjusted" not in result.figures["student"]
    assert result.figures["class_names"] == list(NAMES)
    assert result.figures["posterior"] == {"teacher": "natural", "student": "balanced"}
    assert "mAP" in repr(result)


def test_everything_beside_the_result_speaks_of_several_classes(finished):
    folder, result = finished
    found = evaluate_run(RunFolder(folder / "run"))
    assert found.metrics["student"] == result.student
    assert found.adjusted == {"teacher": None, "student": None}
    stored = load_predictions(folder / "run" / "predictions.safetensors")
    assert stored.target.shape == stored.logits.shape
    page = (folder / "run" / "report.html").read_text()
    for there, not_there in (("Average precision against class size", "Recall against"), ("mAP", "Top-1")):
        assert there in page
        assert not_there not in page
    assert not report_view([folder / "run"]).problems
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all("mean_average_precision" in row["validation"] for row in rows)
    best = result.figures["student"]["best_on_validation"]
    own = [row["validation"]["mean_average_precision"] for row in rows if row["stage"] == "student"]
    assert best["epoch"] == own.index(max(own))
    assert read_tensors(folder / "run" / "student.safetensors")[1]["targets"] == "multi_label"


def test_a_run_that_was_stopped_ends_with_the_same_bits(root, tmp_path, finished):
    for stage, step in (("teacher", 5), ("student", 4)):
        with pytest.raises(Interrupted):
            run(experiment(tmp_path, root, ONE_POSTERIOR), Killed(stage, step))
    result = run(experiment(tmp_path, root, ONE_POSTERIOR))
    assert result.student == finished[1].student
    whole, resumed = (read_tensors(folder / "run" / "student.safetensors")[0] for folder in (finished[0], tmp_path))
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


@pytest.mark.parametrize(
    "method",
    [
        {"name": "ce", "supervised": "asymmetric"},
        {"name": "ce", "supervised": "distribution_balanced"},
        "bkd",
        "dive",
        "distail",
    ],
    ids=str,
)
def test_every_entry_trains(root, tmp_path, method):
    result = run(experiment(tmp_path, root, method, training={"epochs": 1, "batch_size": 64, "learning_rate": 0.02}))
    assert result.student["mean_average_precision"] > 0


def test_answers_that_were_stored_teach_the_same(root, tmp_path, finished):
    file = tmp_path / "answers.safetensors"
    teach(finished[0] / "run", [], output=file, reporter=Silent())
    stored = run({**experiment(tmp_path, root, ONE_POSTERIOR), "teacher": {"logits": str(file)}})
    for own, other in ((stored.student, finished[1].student), (stored.teacher, finished[1].teacher)):
        assert by_class(own) == pytest.approx(by_class(other))


def test_stored_probabilities_of_one_class_are_refused(root, tmp_path):
    shares = torch.full((400, 6), 1 / 6)
    np.savez(tmp_path / "answers.npz", probabilities=shares.numpy())
    config = {**experiment(tmp_path, root), "teacher": {"logits": str(tmp_path / "answers.npz")}}
    with pytest.raises(DistailError, match=r"several.*logits"):
        run(config)


def test_a_teacher_of_one_class_is_refused(root, tmp_path, finished):
    x = np.random.default_rng(0).normal(size=(90, 8)).astype(np.float32)
    one = tmp_path / "one.npz"
    np.savez(one, X=x, y=np.arange(90) % 6, class_names=np.array(NAMES))
    teacher = {
        "model": {"name": "mlp", "hidden": 8, "depth": 1},
        "checkpoint": str(finished[0] / "run" / "student.safetensors"),
    }
    config = {**experiment(tmp_path, one), "data": {"name": "arrays", "root": str(one)}, "teacher": teacher}
    with pytest.raises(ModelError, match=r"multi_label.*single_label"):
        run(config)


def test_a_table_whose_classes_are_columns_of_0_and_1(tmp_path, capsys):
    x, y = multi_label_arrays(200)
    given = {f"x{column}": x[:, column] for column in range(x.shape[1])}
    flags = {name: y[:, column].astype(int) for column, name in enumerate(NAMES[:3])}
    arrow_csv.write_csv(pa.table({**given, **flags}), tmp_path / "table.csv")
    arrow_csv.write_csv(pa.table(given), tmp_path / "new.csv")
    label = {"name": "csv-table", "targets": "multi_label", "label": list(flags), "validation": 0.2}
    config = experiment(tmp_path, tmp_path / "table.csv", "ce", teacher=None)
    result = run({**config, "data": {**label, "root": str(tmp_path / "table.csv")}})
    assert result.figures["class_names"] == list(flags)
    capsys.readouterr()
    answers = []
    for table in ("table.csv", "new.csv"):
        assert main(["predict", str(tmp_path / "run"), str(tmp_path / table)]) == 0
        answers.append([line.partition(",")[2] for line in capsys.readouterr().out.splitlines()])
    assert answers[0] == answers[1]
    assert len(answers[0]) == 201


def test_a_plan_says_how_long_it_takes(root, tmp_path):
    assert plan_run(experiment(tmp_path, root)).class_counts["training"]


def test_what_is_wrong_is_told_before_images_are_read_all_at_once(tmp_path):
    config = experiment(tmp_path, tmp_path / "missing.npz", {"name": "drkd", "adjust": 1})
    config["data"] |= {"sampler": "class_balanced"}
    config["teacher"]["supervised"] = "focal"
    with pytest.raises(ConfigError) as raised:
        check(read_experiment(config))
    said = str(raised.value)
    for culprit in ("swap", "method.adjust", "data.sampler", "'focal'", "asymmetric, bce", "does not exist"):
        assert culprit in said


def test_the_teacher_is_audited(finished, tmp_path, capsys):
    folder = finished[0] / "run"
    assert main(["audit", str(folder), "--json", "--output", str(tmp_path / "audit.md")]) == 0
    found = json.loads(capsys.readouterr().out)
    last = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    validated = [row["validation"] for row in last if row["stage"] == "teacher"][-1]
    assert found["audited"]["split"] == "validation"
    assert found["overall"]["average_precision"] == pytest.approx(validated["mean_average_precision"])
    assert [one["name"] for one in found["classes"]] == list(NAMES)
    page = (tmp_path / "audit.md").read_text()
    assert "debias 0.5" in page
    assert all(one["name"] in page for one in found["classes"])
    method = json.loads(shlex.split(found["command"])[-1].removeprefix("method="))
    words = [f"{key}={json.dumps(value)}" for key, value in {"method": method, "output": str(tmp_path / "new")}.items()]
    check(read_experiment(folder / "config.yaml", words))
    assert main(["audit", str(folder), "--split", "test"]) == 0
    assert "Recommended" not in capsys.readouterr().out
    assert main(["audit", str(folder / "predictions.safetensors")]) == 2
    assert "number of training examples" in capsys.readouterr().err
