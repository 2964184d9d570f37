"""Comparisons of a given teacher and a function's data: what changed between two calls, and what one teacher counts."""

import csv
import sys
from itertools import takewhile
from pathlib import Path

import pytest
import torch
import yaml

from distail.compare import compare as module
from distail.compare.compare import compare, refuse_other_data
from distail.compare.engines import ENGINES
from distail.compare.plan import ComparisonConfig, make_plan
from distail.compare.rows import Row
from distail.config.schema import Experiment
from distail.errors import ConfigError
from distail.models import create_model, save_weights
from helpers.comparison_cases import CONFIG, InProcess, Quiet

pytestmark = pytest.mark.integration

FUNCTION = """
import distail, torch

def load():
    items = [(torch.tensor([float(row % 3 == 0), row / 90]), int(row % 3 == 0)) for row in range(60)]
    return distail.Datasets(items[:40], items[40:50], items[{first}:], ["a", "b"])
"""


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Of two files of one size, written in one second, Python would take the first one's compiled code for the second.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(ENGINES, "local", InProcess)
    teacher = {"model": "mlp", "checkpoint": "teacher.safetensors"}
    config = {**CONFIG, "data": {"name": "given_data:load", "validation": 0}, "teacher": teacher, "student": "mlp"}
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(config))
    write_data(50)
    write_teacher(0)


def write_data(first):
    Path("given_data.py").write_text(FUNCTION.format(first=first))
    sys.modules.pop("given_data", None)


def write_teacher(seed):
    torch.manual_seed(seed)
    save_weights(create_model("mlp", num_classes=2, example=torch.zeros(2, 2)), "teacher.safetensors", {})


def compared(methods, seeds="0"):
    reporter = Quiet()
    return compare("quick.yaml", methods=methods, seeds=seeds, reporter=reporter), reporter


def told_mixed(comparison):
    """The sentences, of the first ones, that tell of it."""
    return list(takewhile(lambda sentence: "partly due" in sentence, comparison.content["statements"]))


def test_another_teacher_under_the_same_name_is_refused_by_name(monkeypatch):
    compared("ce,kd")
    write_teacher(1)
    with pytest.raises(ConfigError, match=r"runs/kd-seed0: another teacher \(") as refused:
        compared("ce,kd,bkd")
    assert len(refused.value.problems) == 1, "nothing of ce, which has no teacher"
    assert not Path("comparisons/quick/runs/bkd-seed0").exists()
    write_teacher(0)
    comparison, reporter = compared("ce,kd,bkd")
    assert reporter.started_runs == ["bkd-seed0"]
    assert told_mixed(comparison) == []
    # As an earlier version let pass, or while others trained.
    monkeypatch.setattr(module, "refuse_other_data", lambda plan: None)
    write_teacher(1)
    comparison, reporter = compared("ce,kd,dkd")
    (told,) = told_mixed(comparison)
    assert told.startswith("dkd, seed 0, had another teacher than kd")
    (message,) = [event[1] for event in reporter.events if event[0] == "message"]
    assert "runs/bkd-seed0;" in message, "finished, and not named this time"


def test_a_given_teacher_is_one_and_what_is_held_against_it_has_all_seeds(monkeypatch):
    exact = Row.values

    def rounded(row, path):
        """As by data that other seeds normalize by others of their examples."""
        return {seed: value + seed * 1e-7 for seed, value in exact(row, path).items()}

    monkeypatch.setattr(Row, "values", rounded)
    content = compared("kd", seeds="0,1")[0].content
    for label in ("teacher", "teacher, adjusted"):
        assert list(content["figures"][label]["top1"]["values"]) == [0]
    assert all(metric["deviation"] is None for metric in content["figures"]["teacher"].values())
    assert {one["seeds"] for one in content["beyond_adjusting"]} == {2}
    rows = csv.DictReader(Path("comparisons/quick/tables/beyond-adjusting.csv").read_text().splitlines())
    assert {row["paired_seeds"] for row in rows} == {"2"}
    assert not any("of 2 seeds" in sentence or "1 seeds" in sentence for sentence in content["statements"])


def test_data_of_a_function_are_looked_at_again_before_more_is_trained(monkeypatch):
    compared("ce")
    write_data(48)
    assert compared("ce")[1].started_runs == []
    plan, _ = make_plan(ComparisonConfig(Experiment.from_yaml("quick.yaml"), {"ce": {"name": "ce"}}, (0,)))
    with pytest.raises(ConfigError, match="runs/ce-seed0"):
        refuse_other_data(plan, more_to_come=True)  # as a search says of its first trial
    with pytest.raises(ConfigError, match="runs/ce-seed0: other test images or labels"):
        compared("ce,kd")
    monkeypatch.setattr(module, "refuse_other_data", lambda plan: None)
    (told,) = told_mixed(compared("ce,kd")[0])
    assert told.startswith("kd, seed 0, had other test images or labels than ce")
