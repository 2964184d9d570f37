"""The whole way of a user: run, export, and the same answers where there is nothing but onnxruntime and numpy."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import venv

import numpy as np
import pytest
import yaml
from PIL import Image

from distail.cli import main
from helpers.class_folders import write_folders

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.integration, pytest.mark.slow]

PROGRAM = """
import json, sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
images = np.load(sys.argv[2])
answers = [session.run(["probabilities"], {"image": images[path][None]})[0][0] for path in images.files]
print(json.dumps({path: [names[p.argmax()], float(p.max())] for path, p in zip(images.files, answers)}))
"""


@pytest.mark.timeout(900)
def test_another_environment_gives_the_same_answers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTAIL_CACHE", str(tmp_path / "cache"))
    write_folders(tmp_path / "photos")
    config = {
        "name": "mine",
        "data": {"name": "folder", "root": "photos", "image_size": 16},
        "student": "resnet8",
        "method": "ce",
        "training": {"epochs": 4, "batch_size": 32, "learning_rate": 0.05, "schedule": "one-cycle"},
        "trainer": {"device": "cpu"},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    assert main(["run", "mine.yaml"]) == 0
    assert main(["export", "runs/mine-seed0", "--output", "files"]) == 0
    assert main(["predict", "runs/mine-seed0", "photos/test", "--output", "answers.csv"]) == 0
    with open("answers.csv", newline="") as file:
        expected = {row["path"]: (row["class"], float(row["probability"])) for row in csv.DictReader(file)}
    # As a camera would give them, at their own size; only decoded, which numpy cannot do.
    np.savez("images.npz", **{path: np.asarray(Image.open(path).convert("RGB")) for path in expected})

    venv.create(tmp_path / "elsewhere", with_pip=True)
    python = tmp_path / "elsewhere" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "onnxruntime", "numpy"], check=True, timeout=600)
    done = subprocess.run(
        [python, "-c", PROGRAM, "files/student.onnx", "images.npz"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {path: name for path, (name, _) in found.items()} == {path: name for path, (name, _) in expected.items()}
    # Resized by Pillow here and in the file there, levels differ by one at most.
    assert all(abs(found[path][1] - probability) < 0.02 for path, (_, probability) in expected.items())
