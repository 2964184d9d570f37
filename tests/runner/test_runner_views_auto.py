"""`teacher.views: auto`: from epochs, memory and augmentation, decided once."""

import pytest
import yaml

import distail
from distail.errors import ConfigError
from distail.runner.plan import plan_run
from distail.training.progress import Silent

pytestmark = pytest.mark.integration


def experiment(folder, *, views="auto", epochs=100, augment=("crop",), **changes):
    return {
        "name": "auto",
        "output": str(folder),
        "data": {"name": "digits", "imbalance_factor": 20, "augment": list(augment), "validation": 0},
        "teacher": {"model": "resnet8", "views": views, "training": {"epochs": 1}},
        "student": "resnet8",
        "method": "bkd",
        "training": {"epochs": epochs, "batch_size": 256, "learning_rate": 0.05},
        "trainer": {"device": "cpu"},
        **changes,
    }


def chosen(tmp_path, **changes):
    return plan_run(experiment(tmp_path / "run", **changes)).experiment.teacher.views


@pytest.mark.parametrize(("epochs", "views"), [(200, 40), (100, 20), (50, 10), (49, 0)])
def test_each_view_is_shown_five_times_or_the_teacher_is_live(tmp_path, epochs, views):
    assert chosen(tmp_path, epochs=epochs) == views


@pytest.mark.parametrize(("epochs", "late", "views"), [(52, 2, 10), (51, 2, 0)])
def test_the_epochs_of_a_classifier_stage_do_not_count(tmp_path, epochs, late, views):
    training = {"epochs": epochs, "batch_size": 256, "classifier_stage": {"epochs": late}}
    assert chosen(tmp_path, training=training) == views


def test_memory_bounds_the_views(tmp_path):
    plan = plan_run(experiment(tmp_path / "run"))
    rows = len(plan.data.train) * 10 * 2  # bytes of one view in bf16; twice that in float32
    limit = 1
    for precision, size in (("bf16", rows), ("fp32", 2 * rows)):
        trainer = {"device": "cpu", "precision": precision, "cache_limit_mb": limit}
        assert chosen(tmp_path, epochs=2000, trainer=trainer) == min(400, limit * 2**20 // size)
    assert chosen(tmp_path, trainer={"device": "cpu", "cache_limit_mb": 0}) == 0


def test_features_take_memory_too(tmp_path):
    trainer = {"device": "cpu", "precision": "fp32", "cache_limit_mb": 4}
    logits, with_features = (
        chosen(tmp_path, epochs=2000, trainer=trainer, method=name) for name in ("bkd", "krdistill")
    )
    assert 0 < with_features < logits


def test_live_where_mixed_images_must_be_seen(tmp_path):
    training = {"epochs": 100, "batch_size": 256, "mix": {"name": "cutmix", "share": 0.5}}
    assert chosen(tmp_path, training=training) == 0


def test_a_run_keeps_its_number(tmp_path):
    given = experiment(tmp_path / "run", epochs=2, augment=())
    first = distail.run(given, reporter=Silent())
    assert yaml.safe_load((first.folder / "config.yaml").read_text())["teacher"]["views"] == 1
    student = (first.folder / "student.safetensors").read_bytes()
    for again in ("auto", 1):
        (first.folder / "result.json").unlink(missing_ok=True)
        distail.run({**given, "teacher": {**given["teacher"], "views": again}}, reporter=Silent())
        assert (first.folder / "student.safetensors").read_bytes() == student
    with pytest.raises(ConfigError, match=r"teacher\.views"):
        distail.run({**given, "teacher": {**given["teacher"], "views": 2}}, reporter=Silent())


def test_without_augmentation_one_view_is_the_live_teacher(tmp_path):
    students = {
        views: distail.run(experiment(tmp_path / str(views), epochs=2, augment=(), views=views), reporter=Silent())
        for views in (0, "auto")
    }
    live, stored = (run.student["top1"] for run in students.values())
    assert live == pytest.approx(stored, abs=2)
