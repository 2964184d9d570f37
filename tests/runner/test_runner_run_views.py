"""Whole runs whose teacher is asked once about each stored view: same results however they are stored or stopped."""

import json
import math
import os
import signal

import pytest
from safetensors.torch import load_file, save_file

import distail
from distail.errors import ConfigError
from distail.models import read_metadata
from distail.training.progress import Silent
from distail.training.signals import Interrupted
from distail.training.teacher_cache import STAGE

pytestmark = pytest.mark.integration


def experiment(folder, method="bkd", *, checkpoint=None, views=2, trainer=None, epochs=3):
    return {
        "name": "views",
        "output": str(folder),
        "data": {"name": "digits", "imbalance_factor": 20, "augment": ["crop"], "validation": 0},
        "teacher": {
            "model": "resnet8",
            "views": views,
            "checkpoint": checkpoint and str(checkpoint),
            "training": {"epochs": 1},
        },
        "student": "resnet8",
        "method": method,
        "training": {"epochs": epochs, "batch_size": 256, "learning_rate": 0.05},
        "trainer": {"device": "cpu", "checkpoint_every_steps": 2, **(trainer or {})},
    }


def run(config, reporter=None):
    return distail.run(config, reporter=reporter or Silent())


class StopAfter(Silent):
    """Sends this process Ctrl-C after some steps of one stage; keeps the names of the stages."""

    def __init__(self, stage, steps):
        self.wanted, self.left, self.stages = stage, steps, []

    def start(self, stage, epochs, steps_per_epoch, done_steps):
        self.stages.append(stage)

    def step(self):
        if self.stages[-1] == self.wanted:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(experiment(tmp_path_factory.mktemp("views") / "run")).folder


@pytest.fixture(scope="module")
def teacher(whole):
    return whole / "teacher.safetensors"


def student(folder):
    return (folder / "student.safetensors").read_bytes()


@pytest.mark.parametrize("limit_mb", [2048, 0], ids=["in memory", "memory-mapped"])
def test_the_same_run_however_its_views_are_stored(whole, tmp_path, limit_mb):
    again = run(experiment(tmp_path / "run", trainer={"cache_limit_mb": limit_mb}))
    assert student(again.folder) == student(whole)
    assert not [path for path in again.folder.iterdir() if "views" in path.name]


def test_the_number_of_views_matters(whole, teacher, tmp_path):
    students = {
        views: student(run(experiment(tmp_path / str(views), checkpoint=teacher, views=views)).folder)
        for views in (0, 1)
    }
    assert len({student(whole), *students.values()}) == 3


def test_stopped_while_filling_and_while_training_it_ends_with_the_same_bytes(whole, tmp_path):
    for stage, steps in ((STAGE, 2), ("student", 1), ("student", 3), (STAGE, 1)):
        watching = StopAfter(stage, steps)
        with pytest.raises(Interrupted):
            run(experiment(tmp_path / "run"), watching)
        assert watching.stages[-1] == stage
    resumed = StopAfter(None, 1)
    assert student(run(experiment(tmp_path / "run"), resumed).folder) == student(whole)
    assert resumed.stages == ["teacher", STAGE, "student"]


def test_a_student_that_is_done_asks_the_teacher_nothing(whole, tmp_path):
    folder, images = tmp_path / "run", sum(json.loads((whole / "result.json").read_text())["class_counts"])
    with pytest.raises(Interrupted):
        run(experiment(folder), StopAfter("student", 3 * math.ceil(images / 256)))
    watching = StopAfter(None, 1)
    assert student(run(experiment(folder), watching).folder) == student(whole)
    assert watching.stages == ["teacher", "student"]


@pytest.mark.parametrize("method", sorted(name for name in distail.list_methods() if name not in ("ce", "bkd")))
def test_every_method_that_listens_to_a_teacher_runs_with_views(teacher, tmp_path, method):
    config = experiment(tmp_path / "whole", method, checkpoint=teacher, views=1, epochs=2)
    first = run(config)
    assert 0 <= first.student["top1"] <= 100
    config["output"] = str(tmp_path / "parts")
    with pytest.raises(Interrupted):
        run(config, StopAfter("student", 2))
    assert student(run(config).folder) == student(first.folder)


def test_a_stage_of_no_more_epochs_than_views_asks_at_every_step_and_resumes(teacher, tmp_path):
    def config(folder):
        given = experiment(folder, checkpoint=teacher, views=2, epochs=5)
        return {**given, "training": {**given["training"], "classifier_stage": {"epochs": 2}}}

    watching, told = StopAfter(None, 1), []
    watching.message = told.append
    first = run(config(tmp_path / "whole"), watching)
    assert watching.stages == [STAGE, "student", "student-classifier"]
    assert sum("training.classifier_stage: 2 epochs" in each for each in told) == 1
    with pytest.raises(Interrupted):
        run(config(tmp_path / "parts"), StopAfter("student-classifier", 2))
    assert student(run(config(tmp_path / "parts")).folder) == student(first.folder)

    live = run(experiment(tmp_path / "live", checkpoint=teacher, views=0, epochs=2))
    same = run(experiment(tmp_path / "same", checkpoint=teacher, views=2, epochs=2))
    assert student(live.folder) == student(same.folder)


def test_all_stores_a_view_for_each_epoch_of_each_stage_and_resumes(teacher, tmp_path):
    def config(folder):
        given = experiment(folder, checkpoint=teacher, views="all", epochs=5)
        return {**given, "training": {**given["training"], "classifier_stage": {"epochs": 2}}}

    class Steps(StopAfter):
        def __init__(self):
            super().__init__(None, 1)
            self.by_stage = []

        def start(self, stage, *counts):
            super().start(stage, *counts)
            self.by_stage.append([stage, 0])

        def step(self):
            self.by_stage[-1][1] += 1

    steps = Steps()
    first = run(config(tmp_path / "whole"), steps)
    images = sum(json.loads((first.folder / "result.json").read_text())["class_counts"])
    assert steps.stages == [STAGE, "student", STAGE, "student-classifier"]
    asked = [count for stage, count in steps.by_stage if stage == STAGE]
    assert asked == [math.ceil(epochs * images / 512) for epochs in (3, 2)]
    with pytest.raises(Interrupted):
        run(config(tmp_path / "parts"), StopAfter("student", 2))
    assert student(run(config(tmp_path / "parts")).folder) == student(first.folder)


def told_by(config):
    watching, told = StopAfter(None, 1), []
    watching.message = told.append
    return run(config, watching), watching.stages, told


def test_runs_share_what_one_of_them_stored(teacher, tmp_path):
    def config(name, method="bkd", *, limit_mb=2048, seed=0, folder=tmp_path / "views", views="all"):
        trainer = {"cache_limit_mb": limit_mb, "views_folder": folder and str(folder)}
        return {**experiment(tmp_path / name, method, checkpoint=teacher, views=views, trainer=trainer), "seed": seed}

    alone = run(config("alone", folder=None))
    first, stages, _ = told_by(config("first"))
    [stored] = (tmp_path / "views").iterdir()
    assert stages == [STAGE, "student"]
    for name, limit_mb in (("again", 2048), ("mapped", 0)):
        again, stages, told = told_by(config(name, limit_mb=limit_mb))
        assert stages == ["student"]
        assert sum("stored by another run" in each for each in told) == 1
        assert student(again.folder) == student(first.folder) == student(alone.folder)
    # Another method asks the same; what needs features, another seed or other views is another file.
    assert told_by(config("kd", "kd"))[1] == ["student"]
    for count, other in enumerate(
        (config("features", "krdistill"), config("seed", seed=1), config("two", views=2)), start=2
    ):
        assert told_by(other)[1] == [STAGE, "student"]
        assert len(list((tmp_path / "views").iterdir())) == count
    content = stored.read_bytes()
    stored.write_bytes(content[:-2] + bytes(2))
    damaged, stages, told = told_by(config("damaged"))
    assert any("cannot be read" in each and stored.name in each for each in told)
    assert (stages, student(damaged.folder)) == ([STAGE, "student"], student(first.folder))
    assert stored.read_bytes() == content


def test_a_teacher_whose_file_names_no_normalization_shares_with_none_that_does(teacher, tmp_path):
    """The same weights, but what is asked about is normalized otherwise."""
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(teacher), bare)
    named = tmp_path / "named.safetensors"
    save_file(load_file(teacher), named, {**read_metadata(teacher), "mean": "[0.9]", "std": "[2.0]"})
    trainer = {"views_folder": str(tmp_path / "views")}
    run(experiment(tmp_path / "first", checkpoint=bare, trainer=trainer))
    shared, alone = (
        run(experiment(tmp_path / name, checkpoint=named, trainer=given)).folder
        for name, given in (("shared", trainer), ("alone", None))
    )
    assert student(shared) == student(alone) != student(tmp_path / "first")


def test_a_folder_that_cannot_be_written_costs_no_run(teacher, tmp_path):
    (tmp_path / "file").write_text("")
    trainer = {"views_folder": str(tmp_path / "file" / "views")}
    finished, _, told = told_by(experiment(tmp_path / "run", checkpoint=teacher, views=1, trainer=trainer))
    assert student(finished.folder)
    assert sum("other runs store the teacher's outputs again" in each for each in told) == 1


def test_a_method_without_a_teacher_stores_nothing(tmp_path):
    watching = StopAfter(None, 1)
    run(experiment(tmp_path / "run", "ce", epochs=1), watching)
    assert watching.stages == ["student"]


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"model": "previous_epoch", "views": 4}, r"teacher\.views: 4, but teacher: previous_epoch has no network"),
        ({"model": None, "views": 4}, r"teacher\.model: "),
        ({"model": "same", "views": -1}, r"teacher\.views: .*expected a whole number from 0 on"),
    ],
)
def test_views_without_a_network_to_store_are_refused(tmp_path, teacher, message):
    with pytest.raises(ConfigError, match=message):
        run({**experiment(tmp_path / "run", "ipwd"), "teacher": teacher})
