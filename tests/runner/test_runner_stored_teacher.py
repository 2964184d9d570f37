"""Runs that a file of answers teaches: the student that the network itself would have taught, and every refusal."""

from __future__ import annotations

import json
import re
import shlex

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from distail.audit.target import load_target
from distail.compare.compare import compare
from distail.config.schema import Experiment
from distail.data.prepare import prepare_data
from distail.errors import CheckpointError, ConfigError, DataError
from distail.evaluation.predictions import load_predictions
from distail.runner.checks import problems_of
from distail.runner.plan import plan_run
from distail.runner.stored_teacher import open_stored_teacher
from distail.runner.teach import teach
from distail.training.progress import Silent
from distail.training.signals import Interrupted
from helpers.search_cases import space_for
from helpers.whole_runs import Killed, Recorder, experiment, run

pytestmark = pytest.mark.integration


def plain(folder, method="kd", **changes):
    """An experiment without augmentation."""
    config = experiment(folder, method, **changes)
    config["data"]["augment"] = []
    return config


def losses(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [[row["loss"], *row["terms"].values()] for row in rows if row["stage"] == "student"]


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A run whose teacher is a network."""
    return run(plain(tmp_path_factory.mktemp("live") / "run")).folder


@pytest.fixture(scope="module")
def answers(live):
    return teach(live, output=live.parent / "answers.safetensors", reporter=Silent()).path


def without_test(answers, path):
    """The same file without the rows of test images."""
    tensors = load_file(answers)
    kept = tensors["split"][:, 1] != ord("e")
    with safe_open(answers, framework="pt") as file:
        save_file({name: tensor[kept] for name, tensor in tensors.items()}, path, metadata=file.metadata())
    return path


def test_the_student_is_the_one_that_the_network_teaches(live, answers, tmp_path):
    result = run(plain(tmp_path / "run", teacher={"logits": str(answers)}))
    np.testing.assert_allclose(losses(result.folder), losses(live), rtol=1e-6, atol=1e-6)
    stored, before = result.figures["teacher"], json.loads((live / "result.json").read_text())
    assert stored["test"]["top1"] == before["teacher"]["test"]["top1"]
    assert stored["stored"]["file"] == str(answers)
    assert stored["stored"]["sha256"] == result.figures["identity"]["teacher"]
    assert result.figures["posterior"] == before["posterior"]
    assert (result.figures["parameters"]["teacher"], result.figures["timing"]["teacher"]) == (None, None)
    own, theirs = (load_predictions(folder / "predictions.safetensors") for folder in (result.folder, live))
    torch.testing.assert_close(own.teacher_logits, theirs.teacher_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(own.validation.teacher_logits, theirs.validation.teacher_logits, rtol=1e-4, atol=1e-4)
    assert not (result.folder / "teacher.safetensors").exists()


def test_stored_views_are_those_that_the_network_would_have_been_asked_about(live, tmp_path):
    asked = experiment(tmp_path / "asked", "bkd")
    asked["teacher"] = {"model": "same", "checkpoint": str(live / "teacher.safetensors"), "views": 2}
    asked["training"]["epochs"] = 3  # with as few as views the network would be asked at every step
    run(asked)
    path = tmp_path / "views.safetensors"
    teach(live, ["data.augment=[crop]"], output=path, views=2, reporter=Silent())
    watching = Recorder()
    stored = run({**asked, "output": str(tmp_path / "stored"), "teacher": {"logits": str(path)}}, watching)
    np.testing.assert_allclose(losses(stored.folder), losses(tmp_path / "asked"), rtol=1e-6, atol=1e-6)
    assert not any("ignore augmentation" in message for message in watching.messages)
    with pytest.raises(DataError, match=r"drawn with augment .*crop.*, this run's is \[\]"):
        run(plain(tmp_path / "other", teacher={"logits": str(path)}))
    other_seed = experiment(tmp_path / "seed", seed=1, teacher={"logits": str(path)})
    with pytest.raises(DataError, match="other training images"):
        run(other_seed)


def test_one_file_of_a_whole_data_set_teaches_any_seed_and_any_tail(live, tmp_path):
    path = tmp_path / "all.safetensors"
    teach(live, ["data.imbalance_factor=1", "data.validation=0"], output=path, top_k=4, reporter=Silent())
    for seed, factor in ((1, 20), (0, 5)):
        config = plain(tmp_path / f"{seed}", seed=seed, teacher={"logits": str(path), "rest": "class_shares"})
        config["data"]["imbalance_factor"] = factor
        config["training"]["epochs"] = 1
        result = run(config)
        assert result.figures["teacher"]["stored"]["top_k"] == 4
        assert any("rows of" in note and "not used" in note for note in result.figures["notes"])
    for rest, told in (("uniform", True), ("class_shares", False)):
        config = plain(tmp_path / rest, method="distail", teacher={"logits": str(path), "rest": rest})
        config["training"]["epochs"] = 1
        notes = run(config).figures["notes"]
        assert any("expected teacher.rest: class_shares" in note for note in notes) == told


def test_a_stopped_run_goes_on_and_refuses_another_file(answers, tmp_path):
    path = tmp_path / "answers.safetensors"
    path.write_bytes(answers.read_bytes())
    whole = run(plain(tmp_path / "whole", "drkd", teacher={"logits": str(path)}))
    config = plain(tmp_path / "parts", "drkd", teacher={"logits": str(path)})
    with pytest.raises(Interrupted):
        run(config, Killed("student", 3))
    tensors = load_file(answers)
    tensors["logits"] += 1
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="other predictions than this run started with"):
        run(config)
    path.write_bytes(answers.read_bytes())
    assert (run(config).folder / "student.safetensors").read_bytes() == (
        whole.folder / "student.safetensors"
    ).read_bytes()
    path.unlink()
    assert run(config).student["top1"] == whole.student["top1"]  # finished: nothing is read again


def test_without_answers_for_the_validation_split_that_is_told(answers, tmp_path):
    tensors = load_file(answers)
    kept = tensors["split"][:, 0] != ord("v")
    with safe_open(answers, framework="pt") as file:
        path = tmp_path / "rest.safetensors"
        save_file({name: tensor[kept] for name, tensor in tensors.items()}, path, metadata=file.metadata())
    config = plain(tmp_path / "run", teacher={"logits": str(path)})
    config["training"]["epochs"] = 1
    assert any("no predictions for the validation images" in note for note in run(config).figures["notes"])


def test_without_answers_for_the_test_there_are_no_figures_of_the_teacher(answers, tmp_path):
    path = without_test(answers, tmp_path / "train.safetensors")
    config = plain(tmp_path / "run", teacher={"logits": str(path)})
    config["training"]["epochs"] = 1
    result = run(config)
    assert result.teacher is None
    assert result.figures["teacher"]["test"] is None
    assert any("the teacher has no test metrics" in note for note in result.figures["notes"])
    assert run(config).teacher is None  # read again
    page = (result.folder / "report.html").read_text()
    assert "no test metrics" in page
    audited = load_target(result.folder)
    assert (audited.split, audited.student is not None) == ("validation", True)
    with pytest.raises(ConfigError, match="no predictions for the unaugmented test images"):
        load_target(result.folder, ["data.workers=1"], split="test")


def test_a_plan_an_audit_and_a_comparison_take_the_file(answers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = plain(tmp_path / "run", teacher={"logits": str(answers)})
    config["training"]["epochs"] = 1
    plan = plan_run(config)
    assert [stage.name for stage in plan.stages] == ["student"]
    (tmp_path / "mine.yaml").write_text(json.dumps(config))
    found = compare("mine.yaml", methods="ce,kd", seeds="0", parallel=1).content
    assert found["teacher_runs"] == []
    assert found["figures"]["teacher"]["top1"]["mean"] is not None
    audited = load_target(answers)
    assert (len(audited.target), audited.class_counts) == (49, tuple(found["class_counts"]))
    words = shlex.split(audited.audit()["command"])
    recommended = Experiment.from_yaml("mine.yaml", ["teacher=resnet8", *words[3:]])
    assert problems_of(recommended) == []
    assert recommended.teacher.logits == answers


def test_a_search_leaves_out_mixed_images_of_which_nothing_is_stored(answers, tmp_path):
    given = plain(tmp_path / "run", teacher={"logits": str(answers)})
    given["training"] = {**given["training"], "epochs": 100}  # enough to average weights
    base = Experiment.from_mapping(given)
    assert problems_of(base) == []
    assert {*space_for(base).switches} == {"augment", "ema_decay", "batch_size", "learning_rate"}


def refused(config, kind=ConfigError):
    with pytest.raises(kind) as error:
        run(config)
    return str(error.value)


def test_everything_that_is_known_before_images_are_read_is_told_at_once(answers, tmp_path):
    config = plain(tmp_path / "run", "krdistill", teacher={"logits": str(answers), "views": 2, "model": "resnet8"})
    config["training"]["mix"] = "cutmix"
    message = refused(config)
    for said in ("model of a network", "teacher.views: 2", "balanced_prototypes of method 'krdistill'", "training.mix"):
        assert said in message
    missing = plain(tmp_path / "run", teacher={"logits": str(tmp_path / "none.npz")})
    assert "teacher.logits: there is no file" in refused(missing)
    np.savez(tmp_path / "x.npz", scores=np.zeros((3, 3)))
    assert "expected logits or probabilities" in refused(
        plain(tmp_path / "run", teacher={"logits": str(tmp_path / "x.npz")})
    )


def test_the_part_of_krdistill_that_reads_logits_works(answers, tmp_path):
    config = plain(tmp_path / "run", {"name": "krdistill", "representation": None}, teacher={"logits": str(answers)})
    config["training"]["epochs"] = 1
    assert run(config).student["top1"] >= 0


def test_what_the_data_shows_to_be_wrong_is_told_at_once(answers, tmp_path):
    tensors = load_file(answers)
    tensors["logits"][3, 2] = float("nan")
    tensors["target"] = (tensors["target"] + 1) % 10
    save_file(tensors, tmp_path / "bad.safetensors")
    message = refused(plain(tmp_path / "run", teacher={"logits": str(tmp_path / "bad.safetensors")}), DataError)
    assert "not finite in 1 row, first in row 3" in message
    assert "its target differs from the labels of 440 of 440 training images" in message
    assert not (tmp_path / "run" / "checkpoints").exists()


def opened(answers, tmp_path, **arrays):
    """A file of answers with other arrays, matched to the images of a run."""
    np.savez(tmp_path / "changed.npz", **load_file(answers) | arrays)
    config = Experiment.from_mapping(plain(tmp_path / "run", teacher={"logits": str(tmp_path / "changed.npz")}))
    return open_stored_teacher(config, prepare_data(config.data, seed=config.seed))


def test_labels_may_be_numbers_or_names_and_must_be_those_of_the_data(answers, tmp_path):
    target = load_file(answers)["target"].numpy()
    opened(answers, tmp_path, target=target.astype(str))
    for odd, said in (
        (target[::-1].astype(str), "training images, first in row"),
        (np.array(["gnu"] * len(target)), "'gnu', where the data has"),
        (np.concatenate([target, target]), "expected ("),
        (np.eye(10)[target], "expected ("),
    ):
        with pytest.raises(DataError, match=re.escape(said)):
            opened(answers, tmp_path, target=odd)


def test_classes_in_another_order_are_matched_by_name_or_told(answers, tmp_path):
    tensors, order = load_file(answers), torch.randperm(10, generator=torch.Generator().manual_seed(0))
    with safe_open(answers, framework="pt") as file:
        names = json.loads(file.metadata()["class_names"])
    mixed = {"logits": tensors["logits"][:, order].contiguous(), "id": tensors["id"], "split": tensors["split"]}
    named = tmp_path / "named.safetensors"
    save_file(mixed, named, metadata={"class_names": json.dumps([names[place] for place in order.tolist()])})
    one = run(plain(tmp_path / "named", teacher={"logits": str(named)}))
    other = run(plain(tmp_path / "plain", teacher={"logits": str(answers)}))
    assert losses(one.folder) == losses(other.folder)
    save_file(mixed, named, metadata={"class_names": json.dumps([*names[:-1], "gnu"])})
    assert "only in the file: 'gnu'" in refused(plain(tmp_path / "gnu", teacher={"logits": str(named)}), DataError)


def test_answers_in_another_order_of_rows_are_suspected(answers, tmp_path):
    tensors = load_file(answers)
    draw = torch.randperm(len(tensors["id"]), generator=torch.Generator().manual_seed(0))
    mixed = {"logits": tensors["logits"][draw].contiguous(), "id": tensors["id"], "split": tensors["split"]}
    save_file(mixed, tmp_path / "mixed.safetensors")
    told = plan_run(plain(tmp_path / "run", teacher={"logits": str(tmp_path / "mixed.safetensors")})).warnings
    assert any("guessing recalls 10.0 %: are its rows in the order" in each for each in told)


@pytest.mark.parametrize("labels", ["none", "of the rows", "of the column"])
def test_labels_decide_whether_an_id_is_the_tables_own(tmp_path, labels):
    draw = np.random.default_rng(0)
    ids, y = draw.permutation(60), draw.choice(["a", "b", "c"], 60)
    rows = zip(ids.tolist(), draw.normal(size=60).round(3).tolist(), y.tolist(), strict=True)
    (tmp_path / "t.csv").write_text("\n".join(["id,x,y", *(",".join(map(str, row)) for row in rows)]))
    own = y[np.argsort(ids)]
    target = {"none": {}, "of the rows": {"target": y}, "of the column": {"target": own}}[labels]
    np.savez(tmp_path / "x.npz", logits=draw.normal(size=(60, 3)), id=np.arange(60), **target)
    config = Experiment.from_mapping(
        {
            "name": "ids",
            "data": {"name": "csv-table", "root": str(tmp_path / "t.csv"), "label": "y"},
            "teacher": {"logits": str(tmp_path / "x.npz")},
            "student": "mlp",
            "method": "kd",
        }
    )
    teacher = open_stored_teacher(config, prepare_data(config.data))
    assert teacher.matched.own_id is (labels == "of the column")
    said = [note for note in teacher.notes if "column 'id'" in note]
    assert len(said) == (labels != "of the rows")
    assert ("target" in "".join(said)) == (labels == "none")
