"""Whole runs on data that nobody would wish for: classes of one image, files that are none, teachers of other data."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from distail.errors import CheckpointError, DataError
from distail.report.build import report_view
from distail.report.results_table import results_table
from helpers.whole_runs import Recorder, experiment, run

pytestmark = pytest.mark.integration


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Class folders of 8 and 5 images, one of a single image, and files that are no images in the first."""
    monkeypatch.setenv("DISTAIL_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    for name, count in (("cat", 8), ("dog", 5), ("only one", 1)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    (tmp_path / "data" / "cat" / os.fsdecode(b"na\xefve.png")).write_bytes(b"")
    (tmp_path / "data" / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "data" / "dog" / "phone.heic").write_bytes(b"")
    return tmp_path / "data"


def on(root: Path, **changes: object) -> dict[str, object]:
    return {"name": "folder", "root": str(root), "validation": 0.2, **changes}


def test_a_class_of_one_image_and_files_that_are_none(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 of 16 images cannot be read"):
        run(experiment(tmp_path / "refused", "ce", data=on(tree)))
    recorder = Recorder()
    result = run(experiment(tmp_path / "run", "bkd", data=on(tree, skip_unreadable=True)), recorder)
    assert result.figures["class_counts"][2] == 1
    assert result.student["per_class_recall"][2] is None
    view = report_view([result.folder])
    for odd in ("1 of 3 classes has no test image", ".heic"):
        assert [odd in note for note in result.figures["notes"]].count(True) == 1
        assert [odd in note for note in view.notes].count(True) == 1
        assert [odd in message for message in recorder.messages].count(True) == 1
    table = results_table(view.runs, ["tail", "medium_shot"]).to_markdown()
    assert table.count("| no test image | no such class |") == 4  # teacher, student, it adjusted, its best epoch
    lines = (tmp_path / "run" / "skipped_images.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2
    assert lines[1] == r"cat/na\udcefve.png: the file is empty"
    assert any("skipped 2 unreadable images" in message for message in recorder.messages)


def test_a_single_class_is_refused_before_any_image_is_read(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label\nx.png,cat\ny.png,cat\n")
    for name in "xy":
        (tmp_path / f"{name}.png").write_bytes(b"no image")
    data = {"name": "csv", "root": str(tmp_path / "list.csv")}
    with pytest.raises(DataError, match="has a single class, 'cat'"):
        run(experiment(tmp_path / "run", "ce", data=data))


@pytest.mark.parametrize("stored", ["", "{", "[1, 2]", '"abc"', "null", "[" * 100_000, "{}", '["a", ["b"]]'])
def test_a_teacher_whose_class_names_are_garbage(tmp_path: Path, stored: str) -> None:
    teacher = {"model": "same", "training": {"epochs": 1}}
    made = run(experiment(tmp_path / "made", "kd", teacher=teacher, training={"epochs": 1})).folder
    path = tmp_path / "teacher.safetensors"
    save_file(load_file(made / "teacher.safetensors"), path, {"class_names": stored})
    with pytest.raises(CheckpointError, match=r"class_names: (missing|.*; expected (JSON|a JSON list|texts))"):
        run(experiment(tmp_path / "run", "kd", teacher={"model": "same", "checkpoint": str(path)}))
    assert json.loads((made / "result.json").read_text())["schema_version"]
