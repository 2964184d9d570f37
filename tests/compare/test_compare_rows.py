"""The lines of a comparison of which seeds have their classes in other groups."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distail.compare.draws import Draw
from distail.compare.result import ComparedMethod, other_thirds
from distail.compare.rows import Row, resample
from distail.evaluation.metrics import evaluate_predictions, metric_at
from distail.evaluation.predictions import save_predictions

COUNTS = {0: [300, 60, 10], 1: [300, 60, 11], 2: [10, 60, 300]}


@pytest.fixture
def rows(tmp_path):
    """Two methods over three seeds, in the last of which head and tail are exchanged: 60 images, right more or less."""
    random = np.random.default_rng(0)
    target = torch.arange(60) % 3
    found = {}
    for label, signal in (("weak", 0.5), ("strong", 1.5)):
        runs = {}
        for seed, counts in COUNTS.items():
            logits = torch.from_numpy(random.normal(size=(60, 3))).float()
            logits[torch.arange(60), target] += signal * (1 + target)  # class 2 is known best
            path = tmp_path / f"{label}-{seed}.safetensors"
            save_predictions(path, logits, target)
            job = SimpleNamespace(name=path.stem, folder=SimpleNamespace(predictions=path))
            test = evaluate_predictions(logits, target, counts)
            runs[Draw(seed)] = (job, {"class_counts": counts, "student": {"test": test, "adjust": None}})
        found[label] = Row(label, "student", runs, [Draw(seed) for seed in COUNTS])
    return found


@pytest.mark.parametrize("path", ["groups.thirds.head", "groups.thirds.tail", "groups.shots.many", "top1"])
def test_each_seed_is_resampled_by_its_own_groups(rows, path):
    resampled = resample(list(rows.values()), [])[path]
    for label, row in rows.items():
        assert resampled[label].keys() == COUNTS.keys()
        for seed, (_, result) in enumerate(row.runs.values()):
            values = resampled[label][seed]
            observed = metric_at(result["student"]["test"], path)
            assert abs(values.mean() - observed) < 1.0, "of the metric that is shown"
    whole = resample(list(rows.values()), [])["top1"]
    alone = resample([rows["weak"]], [])["top1"]
    assert all(np.array_equal(whole["weak"][seed], alone["weak"][seed]) for seed in COUNTS), "drawn alike: paired"


def test_a_group_that_some_folds_alone_have_is_told_from_one_without_test_images(rows):
    runs = {Draw(0, fold): run for fold, run in enumerate(rows["weak"].runs.values())}
    counts = [[300, 60, 10], [300, 60, 25], [300, 60, 10]]
    for (_, result), own in zip(runs.values(), counts, strict=True):
        result["class_counts"] = own
        result["student"]["test"]["groups"]["shots"]["few"] = None if own[2] > 20 else 50.0
    row = Row("weak", "student", runs, list(runs))
    assert row.values("groups.shots.few") == {}
    assert row.lacks_folds("groups.shots.few")
    assert not row.lacks_folds("top1")
    under_way = Row("weak", "student", dict([*runs.items()][:2]), list(runs))
    assert not under_way.lacks_folds("top1"), "a fold that is not finished lacks nothing"
    assert not under_way.lacks_folds("groups.shots.few")


def test_that_a_class_is_in_another_third_is_told():
    def method(*counts):
        results = {Draw(i): {"class_names": ["a", "b", "c"], "class_counts": own} for i, own in enumerate(counts)}
        return ComparedMethod("kd", {}, False, results)

    assert other_thirds([method([300, 60, 10], [310, 55, 9])]) == []
    (told,) = other_thirds([method([300, 60, 10]), method([300, 10, 60])])
    assert "same classes" in told
    assert "b, c" in told
