"""`distail audit` as a user meets it: a process, what it prints and its exit code."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from distail.cli.app import main
from helpers import commands

pytestmark = pytest.mark.integration

CONFIG = {
    "name": "quick",
    "data": {"name": "digits", "imbalance_factor": 20, "validation": 0.1},
    "teacher": None,
    "student": "resnet8",
    "method": "ce",
    "training": {"epochs": 1, "batch_size": 128, "learning_rate": 0.05},
    "trainer": {"device": "cpu"},
}
COUNTS = [500, 299, 179, 107, 64, 38, 23, 13, 8, 5]


distail = partial(commands.distail, COLUMNS="80")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Digit-like logits of a biased teacher, in each kind of file."""
    folder = tmp_path_factory.mktemp("audit")
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 10
    logits = (rng.normal(size=(600, 10)) + 3 * np.eye(10)[labels] + np.log(COUNTS)).astype(np.float32)
    np.savez(folder / "x.npz", logits=logits, labels=labels)
    save_file({"logits": logits, "target": labels}, folder / "x.safetensors")
    with (folder / "x.csv").open("w") as file:
        file.write("label," + ",".join(f"logit_{c}" for c in range(10)) + "\n")
        for label, row in zip(labels, logits, strict=True):
            file.write(f"{label}," + ",".join(repr(float(v)) for v in row) + "\n")
    (folder / "counts.txt").write_text("\n".join(map(str, COUNTS)))
    (folder / "quick.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder


def test_a_file_of_logits_ends_with_a_summary_in_words(place):
    done = distail("audit", "x.npz", "--class-counts", "counts.txt", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "…" not in done.stdout, "a pipe gets whole tables"
    text = " ".join(done.stdout.split())
    assert "How biased the teacher is" in text
    tail = text[text.rindex("Summary") :]
    assert "The teacher is wrong on" in tail
    assert "DR-KD would swap the targets of" in tail
    assert "Adjusting its logits after training" in tail
    assert "clipped at 10." in tail
    assert done.stdout.splitlines()[-1].startswith("distail run CONFIG "), "the command that tries what is recommended"


def test_each_kind_of_file_gives_the_same_numbers(place, capsys):
    found = {}
    for kind in ("npz", "safetensors", "csv"):
        assert main(["audit", str(place / f"x.{kind}"), "--class-counts", ",".join(map(str, COUNTS)), "--json"]) == 0
        found[kind] = json.loads(capsys.readouterr().out)
        found[kind]["audited"].pop("what")
    assert found["npz"] == found["safetensors"] == found["csv"]
    assert found["npz"]["schema_version"] == 1
    assert found["npz"]["groups"]["thirds"]["tail"]["training_images"] == 26


def test_a_run_and_its_weights_give_the_same(place):
    assert distail("run", "quick.yaml", cwd=place).returncode == 0
    run = distail("audit", "runs/quick-seed0", "--json", cwd=place)
    assert run.returncode == 0, run.stderr
    weights = distail(
        "audit", "runs/quick-seed0/student.safetensors", "quick.yaml", "--output", "audit.json", cwd=place
    )
    assert weights.returncode == 0, weights.stderr
    assert "validation images of digits" in weights.stdout
    from_run, from_weights = json.loads(run.stdout), json.loads((place / "audit.json").read_text())
    assert from_run["audited"].pop("what") != from_weights["audited"].pop("what")
    commands = from_run.pop("command"), from_weights.pop("command")
    assert [command.split()[2] for command in commands] == ["runs/quick-seed0/config.yaml", "quick.yaml"]
    assert from_run == from_weights
    assert from_run["audited"]["split"] == "validation"


def test_output_as_markdown_and_a_temperature_for_all(place, capsys):
    counts = ["--class-counts", str(place / "counts.txt")]
    page = place / "audit.md"
    assert (
        main(["audit", str(place / "x.npz"), *counts, "--temperature", "3", "--output", str(page), "--all-classes"])
        == 0
    )
    assert "| bkd: reweigh | 3 |" in page.read_text()
    assert "Every class" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x.npz", "--output", "audit.html"], "Valid: .json, .md"),
        (["x.npz", "--temperature", "0"], "temperature is 0.0"),
        (["x.npz", "--class-counts", "5,4"], "the logits have 10 classes, but class_counts names 2"),
        (["x.npz", "--split", "tset"], "Did you mean 'test'"),
        (["nothing.npz"], "there is no file"),
        (["x.npz", "quick.yaml"], "a file of logits has no CONFIG"),
    ],
)
def test_bad_input_is_told_without_a_traceback(place, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(place)
    assert main(["audit", *arguments]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert "Traceback" not in errors
