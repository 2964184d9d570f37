"""Runs whose students are adjusted after training, and what an evaluation says of others."""

import csv
import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from distail.errors import ConfigError
from distail.evaluation.adjustment import TAUS, evaluate_adjusted
from distail.evaluation.metrics import evaluate_predictions
from distail.evaluation.predictions import load_predictions
from distail.models.weights import read_metadata
from distail.report.build import report_view
from distail.report.results_table import table_rows
from distail.runner.checks import problems_of, read_experiment
from distail.runner.evaluate import evaluate_run
from distail.runner.posterior import student_posterior
from distail.runner.run_folder import RunFolder
from helpers.whole_runs import Recorder, experiment, run

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run(experiment(tmp_path_factory.mktemp("plain") / "run", method="kd"))


@pytest.fixture(scope="module")
def adjusted(tmp_path_factory):
    recorder = Recorder()
    folder = tmp_path_factory.mktemp("adjusted") / "run"
    return run(experiment(folder, method={"name": "kd", "adjust": "auto"}), recorder), recorder


def stored(result):
    return load_predictions(result.folder / "predictions.safetensors"), result.figures["class_counts"]


def test_a_result_says_what_adjusting_would_give(plain):
    predictions, counts = stored(plain)
    for stage, logits in (("teacher", predictions.teacher_logits), ("student", predictions.logits)):
        assert plain.figures[stage]["test_adjusted"] == evaluate_adjusted(logits, predictions.target, counts)
        assert plain.figures[stage]["test"] == evaluate_predictions(logits, predictions.target, counts)
        assert plain.figures["posterior"][stage] == "natural"
        assert read_metadata(plain.folder / f"{stage}.safetensors")["posterior"] == "natural"
    assert plain.figures["student"]["adjust"] is None
    rows = [row.name for row in table_rows(report_view([plain.folder]).runs)]
    assert rows[:4] == ["teacher", "teacher, adjusted", "kd", "kd, adjusted"]


def test_an_adjusted_student_has_the_metrics_of_adjusted_logits_by_the_tau_that_validation_chose(adjusted, plain):
    result, recorder = adjusted
    predictions, counts = stored(result)
    own = result.figures["student"]
    tau = own["adjust"]["tau"]
    assert own["adjust"]["chosen_on"] == "validation"

    def balanced(tau):
        held_out = predictions.validation
        return evaluate_adjusted(held_out.logits, held_out.target, counts, tau)["balanced_accuracy"]

    assert tau == max(TAUS, key=balanced)
    assert own["test"] == evaluate_adjusted(predictions.logits, predictions.target, counts, tau)
    assert own["test_adjusted"] == evaluate_adjusted(predictions.logits, predictions.target, counts)
    lines = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["validation"]["balanced_accuracy"] == pytest.approx(balanced(tau))
    assert own["best_on_validation"]["adjust"]["chosen_on"] == "validation"
    # The loss is that of the plain run: only what comes after training differs.
    for name in ("teacher", "student"):
        assert load_file(result.folder / f"{name}.safetensors").keys()
        assert all(
            tensor.equal(load_file(plain.folder / f"{name}.safetensors")[key])
            for key, tensor in load_file(result.folder / f"{name}.safetensors").items()
        )
    assert any(f"tau {tau:g}" in message and "--adjust" in message for message in recorder.messages)
    with (result.folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        right = [row["label"] == row["answer"] for row in csv.DictReader(file)]
    assert 100 * sum(right) / len(right) == pytest.approx(own["test"]["top1"])


def test_the_tables_say_which_tau_a_student_has_and_do_not_adjust_it_twice(adjusted):
    result, _ = adjusted
    tau = result.figures["student"]["adjust"]["tau"]
    view = report_view([result.folder])
    names = [row.name for row in table_rows(view.runs)]
    assert names[2] == ("kd, adjusted" if tau == 1 else f"kd, adjusted (tau {tau:g})")
    assert sum("adjusted" in name and "best" not in name for name in names) == 2  # the teacher's and this
    assert view.problems == []
    assert any("on the validation split" in note for note in view.notes)
    right = sum(a == b for a, b in zip(view.runs[1].predicted, view.test_labels, strict=True))
    assert 100 * right / len(view.test_labels) == pytest.approx(result.student["top1"])


def test_another_adjustment_is_another_run(adjusted):
    result, _ = adjusted
    with pytest.raises(ConfigError, match=r"method\.adjust: 'auto' there, 1\.0 asked for"):
        run(experiment(result.folder, method={"name": "kd", "adjust": 1}))


def test_auto_needs_a_validation_split_and_a_tau_is_checked_before_images_are_read(tmp_path):
    data = {"name": "digits", "validation": 0}
    asked = experiment(tmp_path / "run", method={"name": "kd", "adjust": "auto"}, data=data)
    (problem,) = problems_of(read_experiment(asked))
    assert problem.startswith("method.adjust: auto")
    assert "data.validation" in problem
    with pytest.raises(ConfigError, match="'much' is not a valid tau"):
        read_experiment({**asked, "method": {"name": "kd", "adjust": "much"}})


def test_evaluating_again_finds_the_same_and_adjusts_from_the_networks_own_logits(adjusted, plain):
    result, _ = adjusted
    found = evaluate_run(RunFolder(result.folder), 0.0)
    assert found.metrics["student"] == result.student
    assert found.adjusted["student"]["test"] == plain.student
    assert found.adjusted["teacher"]["test"] == plain.teacher
    one = evaluate_run(RunFolder(plain.folder))
    assert one.adjusted["student"]["test"] == plain.figures["student"]["test_adjusted"]


def test_the_test_set_has_no_part_in_the_choice_of_tau(plain, tmp_path):
    """Other labels of the test images, in another order: the same tau."""
    folder = tmp_path / "run"
    shutil.copytree(plain.folder, folder)
    before = evaluate_run(RunFolder(folder), "auto").adjusted
    tensors = load_file(folder / "predictions.safetensors")
    tensors["target"] = tensors["target"].flip(0)
    save_file(tensors, folder / "predictions.safetensors")
    after = evaluate_run(RunFolder(folder), "auto").adjusted
    for stage in ("teacher", "student"):
        assert after[stage]["tau"] == before[stage]["tau"]
        assert after[stage]["chosen_on"] == "validation"
        assert after[stage]["test"] != before[stage]["test"]


def test_a_teacher_of_no_stored_validation_is_left_as_it_is_and_its_student_adjusted(plain, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(plain.folder, folder)
    tensors = load_file(folder / "predictions.safetensors")
    own = {key: value for key, value in tensors.items() if not ("validation" in key and "teacher" in key)}
    assert len(own) == len(tensors) - 1
    save_file(own, folder / "predictions.safetensors")
    found, whole = evaluate_run(RunFolder(folder), "auto"), evaluate_run(RunFolder(plain.folder), "auto")
    assert found.adjusted == {"teacher": None, "student": whole.adjusted["student"]}
    assert [note for note in found.notes if "teacher" in note and "not adjusted" in note]


def test_a_result_of_before_is_read_and_auto_says_what_is_missing(plain, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(plain.folder, folder)
    result = json.loads((folder / "result.json").read_text())
    del result["posterior"], result["student"]["adjust"]
    for stage in ("teacher", "student"):
        del result[stage]["test_adjusted"]
    (folder / "result.json").write_text(json.dumps(result))
    tensors = load_file(folder / "predictions.safetensors")
    save_file({k: v for k, v in tensors.items() if "validation" not in k}, folder / "predictions.safetensors")
    assert evaluate_run(RunFolder(folder)).adjusted["student"]["test"] == plain.figures["student"]["test_adjusted"]
    view = report_view([folder])
    assert view.problems == []
    assert [run.adjusted for run in view.runs] == [None, None]
    with pytest.raises(ConfigError, match="earlier version"):
        evaluate_run(RunFolder(folder), "auto")
    result["config"]["data"]["validation"] = 0
    (folder / "result.json").write_text(json.dumps(result))
    with pytest.raises(ConfigError, match=r"data\.validation is 0"):
        evaluate_run(RunFolder(folder), "auto")


@pytest.mark.parametrize(
    ("method", "changes", "expected"),
    [
        ("kd", {}, "natural"),
        ({"supervised": "balanced_softmax", "targets": ["debias"]}, {}, "balanced"),
        ("kd", {"teacher": {"model": "same", "supervised": "balanced_softmax"}}, "mixed"),
        ("ce", {"data": {"name": "digits", "sampler": "class_balanced"}}, "balanced"),
        ("ce", {"data": {"name": "digits", "sampler": "square_root"}}, "mixed"),
        ({"name": "ce", "supervised": "ldam"}, {}, None),
    ],
)
def test_the_posterior_follows_from_terms_teacher_and_sampler(tmp_path, method, changes, expected):
    assert student_posterior(read_experiment(experiment(tmp_path / "run", method=method, **changes))) == expected


def test_where_training_removed_the_prior_no_row_is_shown_and_a_note_says_that_it_would_be_twice(plain, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(plain.folder, folder)
    result = json.loads((folder / "result.json").read_text())
    result["posterior"]["student"] = "balanced"
    (folder / "result.json").write_text(json.dumps(result))
    teacher, student = report_view([folder]).runs
    assert teacher.adjusted is not None
    assert student.adjusted is None
    notes = evaluate_run(RunFolder(folder), 1.0).notes
    assert [note for note in notes if "twice" in note] == [notes[-1]]
    assert "student" in notes[-1]
    assert not any("twice" in note for note in evaluate_run(RunFolder(folder), 0.0).notes)
