"""A comparison by folds: each training example is judged once, by students that did not see it."""

from __future__ import annotations

import json
from statistics import fmean

import numpy as np
import pytest
import torch
import yaml

from distail.compare.compare import compare
from distail.compare.engines import ENGINES
from distail.compare.tables import metric_table
from distail.config.schema import Experiment
from distail.data.dataset import image_names
from distail.data.prepare import prepare_data
from distail.errors import ConfigError, DataError, DistailError
from distail.evaluation.metrics import evaluate_predictions, metric_at
from distail.evaluation.predictions import load_predictions
from distail.report.read_comparison import comparison_view_from_folder
from helpers.comparison_cases import InProcess, Quiet
from helpers.whole_runs import run

pytestmark = pytest.mark.integration
FOLDS = 2


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folds")
    label = np.repeat([0, 1, 2], [60, 15, 6])
    draw = np.random.default_rng(0)
    patients = np.array([f"p{row // 2}" for row in range(len(label))])
    np.savez(folder / "rows.npz", X=draw.normal(size=(81, 4)) + label[:, None], y=label, group=patients)
    config = {
        "name": "folded",
        "data": {"name": "arrays", "root": str(folder / "rows.npz"), "validation": {"folds": FOLDS}},
        "teacher": {"model": {"name": "mlp", "hidden": 16}},
        "student": {"model": {"name": "mlp", "hidden": 8, "depth": 1}},
        "method": "ce",
        "training": {"epochs": 2, "batch_size": 16, "learning_rate": 0.05},
        "trainer": {"device": "cpu", "trackers": []},
    }
    (folder / "folded.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(ENGINES, "local", InProcess)
        yield folder


def compared(**options):
    reporter = Quiet()
    return compare("folded.yaml", (), reporter=reporter, methods="ce,kd", seeds="0,1", **options), reporter


@pytest.fixture(scope="module")
def finished(workplace):
    return compared(grid=["method.temperature=1,4"])[0]


def runs_of(finished, method, seed):
    runs = [run for run in finished.content["runs"] if (run["method"], run["seed"]) == (method, seed)]
    assert [run["fold"] for run in runs] == list(range(FOLDS))
    return [finished.folder / run["folder"] for run in runs]


def chosen(finished):
    return finished.content["methods"]


def test_each_training_example_is_judged_once_and_groups_stay_whole(workplace):
    raw = yaml.safe_load((workplace / "folded.yaml").read_text())
    judged, whole = [], set()
    for fold in range(FOLDS):
        raw["data"]["validation"]["fold"] = fold
        data = prepare_data(Experiment.from_mapping(raw).data, seed=0)
        names = {part: image_names(getattr(data, part), part) for part in ("train", "validation")}
        judged += names["validation"]
        whole |= {*names["train"], *names["validation"]}
        patients = {part: {int(name[2:-1]) // 2 for name in own} for part, own in names.items()}
        assert not patients["train"] & patients["validation"]
        assert set(data.train.labels.tolist()) == {0, 1, 2}
    assert len(judged) == len(set(judged)) == len(whole)


def test_the_figures_are_means_over_folds_and_the_training_data_is_judged_out_of_fold(finished):
    content = finished.content
    assert (content["folds"], content["seeds"]) == (FOLDS, [0, 1])
    for method in chosen(finished):
        for seed in (0, 1):
            folders = runs_of(finished, method, seed)
            tests = [json.loads((folder / "result.json").read_text())["student"]["test"] for folder in folders]
            stored = [load_predictions(folder / "predictions.safetensors").validation for folder in folders]
            counts = json.loads((folders[0] / "result.json").read_text())["class_counts"]
            logits, target = (torch.cat([getattr(one, name) for one in stored]) for name in ("logits", "target"))
            together = evaluate_predictions(logits, target, counts)
            for path in ("top1", "balanced_accuracy", "groups.thirds.tail"):
                value = content["figures"][method][path]["values"][seed]
                assert value == pytest.approx(fmean(metric_at(test, path) for test in tests))
                assert content["out_of_fold"][method][path]["values"][seed] == metric_at(together, path)
    said = " ".join(content["statements"])
    assert f"means over {FOLDS} folds" in said
    rows = metric_table(content, ["top1"]).rows
    assert {row[1] for row in rows if row[0] in content["methods"]} == {"2"}, "seeds, not runs"
    view = comparison_view_from_folder(finished.folder)
    assert view.problems == []
    for one in view.runs:
        assert one.seeds == (0, 1)
        expected = content["figures"][one.name]["balanced_accuracy"]["mean"]
        assert metric_at(one.metrics, "balanced_accuracy") == pytest.approx(expected)


def test_teachers_do_not_see_what_their_students_are_judged_on(finished):
    teachers = finished.content["teacher_runs"]
    assert [(run["seed"], run["fold"]) for run in teachers] == [
        (seed, fold) for seed in (0, 1) for fold in range(FOLDS)
    ]
    hashes = {}
    for one in teachers:
        result = json.loads((finished.folder / one["folder"] / "result.json").read_text())
        hashes[one["seed"], one["fold"]] = result["subset_sha256"]
    for method in chosen(finished):
        for seed in (0, 1):
            for fold, folder in enumerate(runs_of(finished, method, seed)):
                result = json.loads((folder / "result.json").read_text())
                assert result["subset_sha256"] == hashes[seed, fold]
    assert len(set(hashes.values())) == len(hashes)


def test_a_grid_chooses_by_what_is_judged_out_of_fold(finished):
    grid = finished.content["grid"]
    points = [point for point in grid["points"] if point["method"] == "kd"]
    best = max(points, key=lambda point: point["mean"])
    assert [point["chosen"] for point in points].count(True) == 1
    assert best["chosen"]
    own = finished.content["out_of_fold"][best["label"]]["balanced_accuracy"]["values"]
    assert best["validation"] == {str(seed): value for seed, value in own.items()}
    assert "fold" in grid["rule"]


def test_what_is_finished_is_not_trained_again(finished):
    lost = runs_of(finished, "ce", 1)[1]
    (lost / "result.json").unlink()
    again, reporter = compared(grid=["method.temperature=1,4"])
    assert reporter.started_runs == ["ce-seed1-fold1"]
    assert again.content == finished.content


def test_one_run_takes_one_fold_and_says_so(workplace):
    raw = yaml.safe_load((workplace / "folded.yaml").read_text())
    with pytest.raises(ConfigError, match=r"data\.validation\.fold=0"):
        run({**raw, "output": str(workplace / "alone")})
    with pytest.raises(DataError, match=r"data\.validation\.fold=0"):
        prepare_data(Experiment.from_mapping(raw).data)
    for wrong, words in (
        ({"folds": 1}, "folds"),
        ({"folds": 3, "fold": 3}, "0 to 2"),
        ({"fold": 1}, "folds"),
        ({"folds": 3, "flod": 1}, "'fold'"),
        (1.0, "1.0"),
        (True, "true"),
        ([3], "[3]"),
    ):
        with pytest.raises(DistailError) as caught:
            Experiment.from_mapping({**raw, "data": {**raw["data"], "validation": wrong}})
        assert "data.validation" in str(caught.value)
        assert words in str(caught.value)
