"""The whole way of a user: run, export, and the same answers where there is nothing but onnxruntime and numpy."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
import venv

import numpy as np
import pytest
import yaml
from PIL import Image

import distail
from distail.cli import main
from distail.data.sources.fashion_mnist import DEBIAN_FOLDER, parse_idx
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


FASHION = ("top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
TEST = 40


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """The Python of an environment with onnxruntime and numpy, and nothing else."""
    folder = tmp_path_factory.mktemp("elsewhere") / "environment"
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "onnxruntime", "numpy"], check=True, timeout=600)
    listed = subprocess.run(
        [python, "-m", "pip", "list"], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    assert not {"torch", "pillow", "distail"} & set(listed.lower().split())
    return python


def write_fashion(root):
    """Class folders of Fashion-MNIST, 600 images of the first class to 30 of the last."""
    if not (DEBIAN_FOLDER / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip("Fashion-MNIST is not here: apt-get install dataset-fashion-mnist")
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = read_idx(DEBIAN_FOLDER / f"{prefix}-images-idx3-ubyte.gz", 3)
        labels = read_idx(DEBIAN_FOLDER / f"{prefix}-labels-idx1-ubyte.gz", 1)
        for label, name in enumerate(FASHION):
            folder = root / split / name
            folder.mkdir(parents=True)
            count = TEST if split == "test" else round(600 * 20 ** (-label / 9))
            for row in np.flatnonzero(labels == label)[:count]:
                Image.fromarray(images[row]).save(folder / f"{row}.png")


def read_idx(path, dimensions):
    return parse_idx(gzip.decompress(path.read_bytes()), path.name, dimensions)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("write", "size"), [(write_folders, 16), (write_fashion, 28)], ids=["digits", "fashion-mnist"])
def test_another_environment_gives_the_same_answers(tmp_path, monkeypatch, elsewhere, write, size):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTAIL_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "photos")
    config = {
        "name": "mine",
        "data": {"name": "folder", "root": "photos", "image_size": size},
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
    channels = distail.load_student("runs/mine-seed0").description.in_channels
    images = {path: np.asarray(Image.open(path).convert("L" if channels == 1 else "RGB")) for path in expected}
    np.savez("images.npz", **{path: levels.reshape(*levels.shape[:2], channels) for path, levels in images.items()})
    done = subprocess.run(
        [elsewhere, "-c", PROGRAM, "files/student.onnx", "images.npz"], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == len(list((tmp_path / "photos" / "test").rglob("*.png")))
    assert len({name for name, _ in found.values()}) > 1
    assert {path: name for path, (name, _) in found.items()} == {path: name for path, (name, _) in expected.items()}
    # Resized by Pillow here and in the file there, levels differ by one at most; at their own size by nothing.
    most = 0.02 if write is write_folders else 1e-4
    assert all(abs(found[path][1] - probability) < most for path, (_, probability) in expected.items())
