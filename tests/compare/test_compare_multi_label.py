"""A comparison on examples of several classes: by mean average precision, without rows that adjusting would make."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.metrics import average_precision_score

from distail.compare.arguments import folder_name
from distail.compare.compare import compare
from distail.compare.engines import ENGINES
from distail.compare.metrics import main_metrics, metrics_of
from distail.evaluation.groups import classes_by_group
from distail.evaluation.predictions import load_predictions
from helpers.comparison_cases import InProcess, Quiet
from helpers.multi_label_data import experiment, save_arrays

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workplace")
    config = {**experiment(folder, save_arrays(folder, rows=1200)), "output": None}
    (folder / "several.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(ENGINES, "local", InProcess)
        yield compare(
            "several.yaml",
            ["training.epochs=2"],
            methods="ce,kd,distail",
            seeds="0,1",
            reporter=Quiet(),
        )


def test_it_is_by_mean_average_precision(finished):
    content = finished.content
    assert list(content["figures"]) == ["teacher", "ce", "kd", "distail"]
    assert all(set(own) == set(metrics_of(multi_label=True)) for own in content["figures"].values())
    tested = {one["figure"] for one in content["differences"] if one["p_corrected"] is not None}
    assert tested == set(main_metrics(multi_label=True))
    over_images = [one for one in content["differences"] if one["over"] == "test images"]
    assert any(one["interval"] is not None for one in over_images if one["figure"] == "mean_average_precision")
    assert not content["beyond_adjusting"]
    assert "Tested metrics: mAP and Tail third" in " ".join(content["statements"])


def test_tables_and_page_speak_of_it(finished):
    table = (finished.folder / "tables" / "comparison.md").read_text()
    page = (finished.folder / "report.html").read_text()
    for text in (table, page):
        assert "mAP" in text
        assert "Top-1" not in text
    assert "Average precision against class size" in page


def test_folds_judge_each_training_example_once(finished):
    overrides = ["training.epochs=1", "data.validation={folds: 2}"]
    grid = ["method.temperature=1,4"]
    folded = compare(
        "several.yaml", overrides, methods="kd", seeds="0", grid=grid, output=Path("folded"), reporter=Quiet()
    )
    content, together = folded.content, {}
    for point in content["grid"]["points"]:
        folders = [folded.folder / "runs" / f"{folder_name(point['label'])}-seed0-fold{fold}" for fold in (0, 1)]
        stored = [load_predictions(folder / "predictions.safetensors").validation for folder in folders]
        # Each fold is a ranking of its own; a class counts in it by its positives.
        by_class = []
        for c in range(stored[0].target.shape[1]):
            own = [(one.target[:, c].numpy(), one.logits[:, c].numpy()) for one in stored if one.target[:, c].any()]
            precisions = [100 * average_precision_score(has, scores) for has, scores in own]
            by_class.append(np.average(precisions, weights=[has.sum() for has, _ in own]))
        counts = json.loads((folders[0] / "result.json").read_text())["class_counts"]
        tail = classes_by_group(counts)["groups.thirds.tail"]
        together[point["label"]] = (np.mean(by_class), np.mean([by_class[c] for c in tail]))
        assert point["mean"] == pytest.approx(together[point["label"]][0])
    best = max(together, key=lambda label: together[label][0])
    assert [point["label"] for point in content["grid"]["points"] if point["chosen"]] == [best]
    assert content["out_of_fold"][best]["groups.thirds.tail"]["mean"] == pytest.approx(together[best][1])
    assert "mAP of the training data" in content["grid"]["rule"]
