"""The sentences of made results: over how many seeds a difference is, and what became of runs that failed."""

import re

import pytest

from distail.compare.content import difference_content, metric_content
from distail.compare.metrics import main_metrics, metrics_of
from distail.compare.summary import statements
from distail.compare.tables import csv_table, difference_table, to_markdown
from distail.evaluation.significance import corrected, over_seeds, summarize

METRICS = metrics_of(multi_label=False)

MAIN_METRICS = main_metrics(multi_label=False)


def made(baseline="kd", grid=None, runs=(), **values):
    """The content of a comparison in which every figure of a method has these values by seed."""
    differences = [
        over_seeds(method, name, own, values[baseline])
        for method, own in values.items()
        for name in METRICS
        if method != baseline
    ]
    found = [one for one in differences if one is not None]
    return {
        "name": "made",
        "seeds": [0, 1, 2],
        "methods": list(values),
        "baseline": baseline,
        "teachers": "shared",
        "teacher_runs": [],
        "runs": list(runs),
        "figures": {label: {name: metric_content(summarize(own)) for name in METRICS} for label, own in values.items()},
        "taus": {},
        "beyond_adjusting": [],
        "differences": [difference_content(one) for one in corrected(found, MAIN_METRICS)],
        "grid": grid,
    }


WHOLE = {0: 40.0, 1: 41.0, 2: 43.0}


def test_the_seeds_asked_for_are_named_where_every_difference_is_over_all_of_them():
    sentences = statements(made(kd=WHOLE, bkd={0: 42.0, 1: 44.0, 2: 44.0}))
    assert "kd, over 3 seeds" in " ".join(sentences)
    assert not any(" of 3 seeds" in sentence for sentence in sentences)


@pytest.mark.parametrize(
    ("values", "pairs"),
    [
        ({"kd": WHOLE, "bkd": {0: 42.0, 2: 44.0}}, 2),
        ({"kd": {0: 40.0, 2: 43.0}, "bkd": WHOLE}, 2),
        ({"kd": {0: 40.0, 1: 41.0}, "bkd": {1: 42.0, 2: 44.0}}, 1),
    ],
)
def test_a_difference_over_fewer_seeds_says_over_how_many(values, pairs):
    content = made(**values, drkd=values["kd"])
    sentences = statements(content)
    assert "those of the 3 seeds" in " ".join(sentences)
    assert "over 3 seeds" not in " ".join(sentences)
    (sentence,) = [one for one in sentences if one.startswith("bkd against kd, Top-1")]
    assert f"points over {pairs} of 3 seeds" in sentence
    (row,) = [row for row in difference_table(content, ["top1"]).rows if row[0] == "bkd"]
    assert row[:3] == ["bkd", "Top-1", str(pairs)]
    (line,) = [line for line in csv_table(content).to_csv().splitlines() if line.startswith("bkd,top1,")]
    assert line.split(",")[7] == str(pairs)


def test_without_a_seed_in_common_there_is_no_difference_to_speak_of():
    sentences = statements(made(kd={}, bkd=WHOLE))
    assert len(sentences) == 1
    assert "No difference from kd" in " ".join(sentences)


def failures(sentences):
    """The label and seed of each run that is said to have failed, in order."""
    matches = (re.match(r"(.*), seed (\d+), is failed: diverged", sentence) for sentence in sentences)
    return [match.groups() for match in matches if match]


def run_of(label, seed, state="finished"):
    return {"folder": f"runs/{label}-{seed}", "seed": seed, "state": state, "problem": "diverged", "seconds": None}


def point_of(label, validation, chosen=False):
    return {
        "method": "kd",
        "label": label,
        "settings": {"training.learning_rate": label},
        "validation": validation,
        "mean": sum(validation.values()) / len(validation) if validation else None,
        "chosen": chosen,
        "runs": [run_of(label, seed, "finished" if str(seed) in validation else "failed") for seed in (0, 1, 2)],
    }


def with_grid(points, runs):
    grid = {"axes": {}, "rule": "balanced accuracy", "points": points}
    return made(kd=WHOLE, grid=grid, runs=[{"method": "kd", **run} for run in runs])


def test_a_grid_point_that_lost_seeds_is_told_with_every_run_that_failed():
    whole, broken = (
        point_of("kd lr=0.1", {"0": 30.0, "1": 31.0, "2": 32.0}, chosen=True),
        point_of("kd lr=1", {"1": 90}),
    )
    content = with_grid([whole, broken], whole["runs"])
    sentences = statements(content)
    assert any(re.match(r"kd lr=0\.1 .* 2 points by balanced accuracy: 31\.0\.", sentence) for sentence in sentences)
    assert any(sentence.startswith("kd lr=1 lost seeds") for sentence in sentences)
    assert failures(sentences) == [("kd lr=1", "0"), ("kd lr=1", "2")]
    table = to_markdown({**content, "statements": sentences})
    assert "| kd lr=0.1 | 3 | 31.0 | yes |" in table
    assert "| kd lr=1 | 1 of 3 | 90.0 |  |" in table


def test_a_choice_over_fewer_seeds_says_so_and_each_failed_run_is_told_once():
    first, second = point_of("kd lr=1", {"1": 90.0, "2": 80.0}, chosen=True), point_of("kd lr=10", {})
    content = with_grid([first, second], first["runs"])
    sentences = statements(content)
    assert any(re.match(r"kd lr=1 .*85\.0 \(2 of 3 seeds\)", sentence) for sentence in sentences)
    assert failures(sentences) == [("kd lr=1", "0"), *(("kd lr=10", seed) for seed in "012")]
    assert "| kd lr=10 | 0 of 3 | failed |  |" in to_markdown({**content, "statements": sentences})


def test_what_the_seeds_can_tell_at_most_is_said_and_the_test_images_answer_comes_first():
    """As in a report: 49 points fewer, beyond any doubt over test images, and two seeds that can tell nothing."""
    values = {"kd": {0: 80.0, 1: 82.0}, **{f"m{i}": {0: 30.0 + i, 1: 34.0 - i} for i in range(5)}}
    content = {**made(**values), "seeds": [0, 1]}
    images = [
        {**one, "over": "test images", "interval": [-53.7, -44.5], "p": 0.001, "p_corrected": 0.015}
        for one in content["differences"]
    ]
    for one in images:
        tested = one["figure"] in MAIN_METRICS
        one |= {"inside_noise": not tested, "p_corrected": 0.015 if tested else None}
        one["verdict"] = "more than the noise" if tested else "not tested"
    content["differences"] = [*content["differences"], *images]
    sentences = statements(content)
    (most,) = [one for one in sentences if "unless the clearest exceeds" in one]
    assert "2 seeds" in most
    assert "135.0 times" in most
    assert "with 4 seeds" in most
    (top1,) = [one for one in sentences if one.startswith("m0 against kd, Top-1")]
    assert "2 seeds are too few to tell; over test images it is -49.0 (-53.7 to -44.5), more than their noise" in top1
    assert "over seeds" not in top1, "an interval as wide as the scale"
    assert difference_table(content, ["top1"]).rows[0][-1].endswith("2 seeds are too few to tell")
    assert not any("within the noise" in one for one in sentences)
    rows = {row[1]: row for row in difference_table(content, [*METRICS]).rows if row[0] == "m0"}
    assert rows["ECE"][-1] == "not tested"
    assert rows["ECE"][5] == rows["ECE"][7] == ""
    assert any("15 differences" in one for one in sentences)


def test_an_interval_without_zero_beside_the_verdict_noise_is_explained():
    content = {**made(kd={0: 80.0, 1: 82.0}, ce={0: 70.0, 1: 71.0}), "seeds": [0, 1]}
    (one,) = [one for one in content["differences"] if one["figure"] == "top1"]
    noise = {"over": "test images", "p": 0.04, "p_corrected": 0.3, "inside_noise": True, "verdict": "within the noise"}
    for interval, said in (([-23.9, -0.2], True), ([-23.9, 0.2], False)):
        content["differences"] = [one, {**one, **noise, "interval": interval}]
        (top1,) = [sentence for sentence in statements(content) if sentence.startswith("ce against kd, Top-1")]
        assert ("once corrected" in top1) is said


@pytest.mark.parametrize("folds", [None, 5])
def test_a_strength_that_is_a_mean_over_folds_says_so(folds):
    content = {**made(kd=WHOLE), "taus": {"kd": {0: 0.625}}, "folds": folds, "out_of_fold": {}}
    (sentence,) = [one for one in statements(content) if "tau 0.625" in one]
    assert ("mean over the folds" in sentence) == (folds is not None)
