"""One identity: settings, data and teacher of a run; whatever does not match is refused by name, or told."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import distail
from distail.errors import CheckpointError, ConfigError, TrainingError
from distail.evaluation.predictions import load_predictions
from distail.models.weights import check_weights
from distail.training.progress import Silent
from distail.training.signals import Interrupted
from helpers.whole_runs import Killed, Recorder, experiment, run


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def write_images(root, seed=0):
    """Two classes of noise, 8 training and 4 test images each."""
    generator = np.random.default_rng(seed)
    for split, count in (("train", 8), ("test", 4)):
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture
def images(tmp_path, monkeypatch):
    """An experiment on class folders, and their root."""
    monkeypatch.setenv("DISTAIL_CACHE", str(tmp_path / "cache"))
    write_images(tmp_path / "photos")
    config = experiment(tmp_path / "run", "ce")
    config |= {"data": {"name": "folder", "root": str(tmp_path / "photos"), "validation": 0}}
    del config["teacher"]
    config["training"] = {"epochs": 3, "batch_size": 8, "learning_rate": 0.05}
    config["trainer"]["checkpoint_every_steps"] = 1
    return config, tmp_path / "photos"


def test_settings_edited_in_the_runs_own_configuration_are_refused(tmp_path):
    config = {**experiment(tmp_path, "ce"), "output": str(tmp_path)}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(Interrupted):
        run(path, Killed("student", 7))
    faster = {**config, "training": {**config["training"], "learning_rate": 0.5}}
    path.write_text(yaml.safe_dump(faster))
    with pytest.raises(ConfigError, match=r"training\.learning_rate: 0\.05 there, 0\.5 asked for"):
        run(path)
    path.write_text(yaml.safe_dump(config))
    finished = run(path)
    path.write_text(yaml.safe_dump({**config, "method": {"name": "ce", "supervised": "focal"}}))
    with pytest.raises(ConfigError, match=r"method\.supervised"):
        run(path)
    path.write_text(yaml.safe_dump(config))
    assert run(path).figures == finished.figures


def test_checkpoints_of_another_experiment_are_refused(tmp_path):
    for name, rate in (("one", 0.05), ("other", 0.01)):
        config = experiment(tmp_path / name, "ce")
        config["training"]["learning_rate"] = rate
        with pytest.raises(Interrupted):
            run(config, Killed("student", 7))
    shutil.rmtree(tmp_path / "one" / "checkpoints")
    shutil.copytree(tmp_path / "other" / "checkpoints", tmp_path / "one" / "checkpoints")
    with pytest.raises(ConfigError, match=r"learning_rate: 0\.01 there, 0\.05 asked for"):
        run(experiment(tmp_path / "one", "ce"))


class RemovesTheFolder(Silent):
    def __init__(self, folder, after):
        self.folder, self.left = folder, after

    def step(self):
        self.left -= 1
        if self.left == 0:
            shutil.rmtree(self.folder)


@pytest.mark.parametrize("begun_anew", [False, True])
def test_a_run_whose_folder_was_removed_writes_nothing_more_there(tmp_path, begun_anew):
    folder = tmp_path / "run"

    class Removes(RemovesTheFolder):
        def step(self):
            super().step()
            if self.left == 0 and begun_anew:
                folder.mkdir()
                (folder / ".lock").touch()

    with pytest.raises(TrainingError, match="was removed or recreated"):
        run(experiment(folder, "ce"), Removes(folder, 4))
    left = {path.name for path in folder.rglob("*")} if folder.exists() else set()
    assert left == ({".lock"} if begun_anew else set())


def test_a_test_set_exchanged_between_stop_and_resume_is_refused(images):
    config, root = images
    with pytest.raises(Interrupted):
        run(config, Killed("student", 3))
    shutil.rmtree(root / "test")
    write_images(root.parent / "others", seed=1)
    shutil.copytree(root.parent / "others" / "test", root / "test")
    with pytest.raises(CheckpointError, match="other test images or labels"):
        run(config)


def test_a_stopped_run_goes_on_where_its_data_were_moved_to(images, tmp_path):
    config, root = images
    whole = run({**config, "output": str(tmp_path / "whole")})
    with pytest.raises(Interrupted):
        run(config, Killed("student", 3))
    root.rename(tmp_path / "elsewhere")
    moved = {**config, "data": {**config["data"], "root": str(tmp_path / "elsewhere")}}
    assert run(moved).student == whole.student
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"]["root"] == moved["data"]["root"]
    recorder = Recorder()
    assert run(moved, recorder).student == whole.student
    assert recorder.messages == []
    assert run(config, recorder).student == whole.student  # finished, and its data are not where they were
    assert len(recorder.messages) == 1
    assert "nothing was read" in recorder.messages[0]


def test_other_data_elsewhere_are_refused(images, tmp_path):
    config, _ = images
    with pytest.raises(Interrupted):
        run(config, Killed("student", 3))
    begun = (tmp_path / "run" / "config.yaml").read_text()
    write_images(tmp_path / "others", seed=1)
    with pytest.raises(CheckpointError, match="other training images or labels"):
        run({**config, "data": {**config["data"], "root": str(tmp_path / "others")}})
    assert (tmp_path / "run" / "config.yaml").read_text() == begun


def test_a_finished_run_says_that_its_data_is_another_now(images):
    config, root = images
    finished = run(config)
    recorder = Recorder()
    assert run(config, recorder).figures == finished.figures
    assert recorder.messages == []
    for path in root.rglob("*.png"):  # copied, and not changed
        path.touch()
    assert run(config, recorder).figures == finished.figures
    assert recorder.messages == []
    shutil.copy(root / "test" / "dog" / "1.png", root / "test" / "cat" / "9.png")
    assert run(config, recorder).figures == finished.figures
    assert len(recorder.messages) == 1
    assert "other test images" in recorder.messages[0]
    shutil.rmtree(root)  # gone altogether is no fault
    recorder = Recorder()
    assert run(config, recorder).figures == finished.figures
    assert recorder.messages == []


def test_one_flipped_bit_in_what_a_run_wrote_is_noticed(tmp_path):
    teacher = run(experiment(tmp_path / "teacher", "ce"))
    weights = teacher.folder / "student.safetensors"
    config = experiment(tmp_path / "run", "kd", teacher={"model": "resnet8", "checkpoint": str(weights)})
    whole = run(config)
    student = (whole.folder / "student.safetensors").read_bytes()
    recorder = Recorder()
    flip_a_bit(whole.folder / "teacher.safetensors")
    assert run(config, recorder).student == whole.student
    assert any("teacher.safetensors" in text and "hash" in text for text in recorder.messages)
    assert (whole.folder / "student.safetensors").read_bytes() == student
    check_weights(whole.folder / "teacher.safetensors")
    flip_a_bit(whole.folder / "predictions.safetensors")
    with pytest.raises(CheckpointError, match="hash"):
        load_predictions(whole.folder / "predictions.safetensors")


def test_another_teacher_than_the_run_began_with_is_refused(tmp_path):
    teachers = [run(experiment(tmp_path / f"teacher{seed}", "ce", seed=seed)) for seed in (0, 1)]
    given = tmp_path / "teacher.safetensors"
    shutil.copy(teachers[0].folder / "student.safetensors", given)
    config = experiment(tmp_path / "run", "kd", teacher={"model": "resnet8", "checkpoint": str(given)})
    with pytest.raises(Interrupted):
        run(config, Killed("student", 5))
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    (tmp_path / "run" / "teacher.safetensors").unlink()
    shutil.copy(teachers[1].folder / "student.safetensors", given)
    goes_on = run({**config, "output": str(tmp_path / "copy")})  # with the run's own copy of its teacher
    assert goes_on.teacher == teachers[0].student
    assert any(f"{given} holds another teacher" in note for note in goes_on.figures["notes"])
    with pytest.raises(CheckpointError, match="not the teacher"):
        run(config)
    shutil.copy(teachers[0].folder / "student.safetensors", given)
    assert run(config).student["top1"] >= 0
    said = {}
    for number, teacher in enumerate(teachers):  # and of the finished run it is told
        shutil.copy(teacher.folder / "student.safetensors", given)
        run(config, recorder := Recorder())
        said[number] = recorder.messages
    assert said[0] == []
    assert len(said[1]) == 1
    assert "another teacher" in said[1][0]
    given.write_bytes(b"damaged")  # which the next run to load it will say
    run(config, recorder := Recorder())
    assert recorder.messages == []


def test_a_teacher_of_its_own_run_is_the_one_that_its_students_run_would_train(tmp_path):
    own = run(experiment(tmp_path / "own", "kd"))
    alone = {**experiment(tmp_path / "alone", "ce"), "role": "teacher"}
    del alone["teacher"]
    run(alone)
    load = distail.models.load_weights
    first, second = (distail.models.create_model("resnet8", num_classes=10, in_channels=1) for _ in range(2))
    load(first, own.folder / "teacher.safetensors")
    load(second, tmp_path / "alone" / "student.safetensors")
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_student_of_the_teachers_architecture_is_not_the_teacher_again(tmp_path):
    whole = run(experiment(tmp_path / "run", "ce"))
    alone = {**experiment(tmp_path / "teacher", "ce"), "role": "teacher"}
    assert run(alone).student != whole.student


def test_another_number_of_threads_is_told(tmp_path):
    config = experiment(tmp_path / "run", "ce")
    threads = torch.get_num_threads()
    with pytest.raises(Interrupted):
        run(config, Killed("student", 5))
    recorder = Recorder()
    run({**config, "trainer": {**config["trainer"], "threads": threads + 1}}, recorder)
    assert any(f"threads {threads} (now {threads + 1})" in text for text in recorder.messages)
    versions = json.loads((tmp_path / "run" / "result.json").read_text())["versions"]
    assert versions["threads"] == str(threads + 1)
    assert versions["instruction set"]
