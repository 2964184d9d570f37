"""What is audited, of a run, of weights, and of a file: whole small runs on digits, made once."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from distail.audit.from_file import AuditInput
from distail.audit.sample_weights import propensity_weights
from distail.audit.target import load_target
from distail.config.schema import Experiment
from distail.data.prepare import prepare_data
from distail.errors import ConfigError, DistailError
from distail.models.weights import read_metadata
from distail.runner.checks import problems_of, teacher_model
from distail.runner.plan import plan_run
from distail.runner.posterior import posterior_notes
from distail.runner.run import run
from distail.runner.stored_network import network_of_weights
from distail.training.progress import Silent

CONFIG: dict[str, Any] = {
    "name": "try",
    "data": {"name": "digits", "imbalance_factor": 20, "validation": 0.1},
    "teacher": {"model": "resnet8", "training": {"epochs": 1}},
    "student": "resnet8",
    "method": {"name": "ipwd"},
    "training": {"epochs": 1, "batch_size": 128, "learning_rate": 0.05},
    "trainer": {"device": "cpu"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of IPWD, whose checkpoint has the second head."""
    path = tmp_path_factory.mktemp("audit") / "run"
    run({**CONFIG, "output": str(path)}, reporter=Silent())
    return path


@pytest.fixture(scope="module")
def config(folder: Path) -> Path:
    return folder / "config.yaml"


def test_a_run_is_audited_on_its_validation_split(folder: Path) -> None:
    found = load_target(folder)
    experiment = Experiment.from_yaml(folder / "config.yaml")
    data = prepare_data(experiment.data, seed=experiment.seed)
    assert data.validation is not None
    assert (found.split, found.class_counts, found.class_names) == ("validation", data.class_counts, data.class_names)
    assert torch.equal(found.target, data.validation.labels)
    assert found.what == f"the teacher of {folder}, a resnet8"
    assert found.cautions == ()  # trained on exactly the other images of this split
    assert f"{len(data.train)} training images" in found.counts_from


def test_an_ipwd_runs_own_heads_are_used(folder: Path) -> None:
    found = load_target(folder, split="train")
    assert found.student is not None
    assert found.student.label_only is not None
    weights = propensity_weights(found.student.distilled, found.student.label_only, found.target)
    entry = found.audit()["sample_weights"]
    assert entry["ipwd"]["heads"] == "own"
    assert entry["ipwd"]["overall"]["mean"] == pytest.approx(float(weights.clamp_max(10).mean()))
    assert entry["wsld"]["overall"] is not None
    # The second head by hand, from the student's stored weights and the features before its classifier.
    checkpoint = load_file(sorted((folder / "checkpoints/student").glob("step-*.safetensors"))[-1])
    exported = load_file(folder / "student.safetensors")
    assert all(torch.equal(checkpoint[f"student.{name}"], value) for name, value in exported.items())


def test_stored_test_predictions_serve_the_test_split(folder: Path) -> None:
    stored = load_file(folder / "predictions.safetensors")
    found = load_target(folder, split="test")
    assert torch.equal(found.logits, stored["teacher_logits"])
    assert "touches the test set once" in " ".join(found.cautions)
    beside = load_target(folder / "predictions.safetensors")
    assert (beside.split, beside.class_counts, beside.class_names) == ("test", found.class_counts, found.class_names)
    computed = load_target(folder, ["data.root=null"], split="test")
    torch.testing.assert_close(computed.logits, stored["teacher_logits"], atol=1e-4, rtol=1e-4)


def test_training_images_come_with_a_caution(folder: Path) -> None:
    assert "These are the images that it was trained on" in " ".join(load_target(folder, split="train").cautions)


def test_weights_with_a_config(folder: Path, config: Path, tmp_path: Path) -> None:
    from_run, from_file = load_target(folder), load_target(folder / "teacher.safetensors", [str(config)])
    assert torch.equal(from_run.logits, from_file.logits)
    assert from_file.cautions == ()
    # Its metadata say what the network is, whatever the configuration's teacher.
    other = load_target(folder / "teacher.safetensors", [str(config), "teacher.model=resnet20"])
    assert torch.equal(other.logits, from_run.logits)
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(folder / "teacher.safetensors"), bare)
    unknown = load_target(bare, [str(config), "data.validation=0.3"])
    assert "does not say on what" in unknown.cautions[0]
    torch.save(load_file(bare), tmp_path / "bare.pt")
    assert torch.equal(load_target(tmp_path / "bare.pt", [str(config)]).logits, from_run.logits)
    without = load_target(folder / "teacher.safetensors", [str(config), "data.validation=0"])
    assert without.split == "train"
    assert "data.validation is 0" in without.images
    shifted = load_target(folder / "teacher.safetensors", [str(config), "seed=3"])
    assert "on other images than this CONFIG's training split" in shifted.cautions[0]


def test_a_files_metadata_never_import_code(folder: Path, config: Path, tmp_path: Path) -> None:
    path = tmp_path / "strange.safetensors"
    save_file(load_file(folder / "teacher.safetensors"), path, metadata={"model": "antigravity:fly"})
    assert torch.equal(load_target(path, [str(config)]).logits, load_target(folder).logits)


def test_a_run_without_a_teacher_is_audited_as_the_teacher_it_could_be(tmp_path: Path) -> None:
    path = tmp_path / "plain"
    run({**CONFIG, "output": str(path), "teacher": None, "method": "ce"}, reporter=Silent())
    found = load_target(path)
    assert "the student of" in found.what
    assert "had no teacher" in found.what
    assert found.student is None
    plan = plan_run(recommended(found))
    assert plan.experiment.teacher is not None
    assert plan.experiment.teacher.checkpoint == path / "student.safetensors"
    stored = load_target(path, split="test")
    assert "there was no teacher" in stored.what
    assert torch.equal(stored.logits, load_file(path / "predictions.safetensors")["logits"])


def recommended(found: AuditInput) -> Experiment:
    """What the last line of an audit, copied, would run."""
    command = found.audit()["command"]
    assert command is not None
    distail, run, path, *words = shlex.split(command)
    assert (distail, run) == ("distail", "run")
    return Experiment.from_yaml(path, words)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["teacher=null", "method=ce"],
        ["teacher={model: resnet20, classifier: cosine}"],
        ["teacher=previous_epoch"],
        ["teacher={logits: nowhere.npz}"],
        ["teacher=[{model: resnet8, checkpoint: a.safetensors}, {model: resnet8, checkpoint: b.safetensors}]"],
        ["teacher.model.weights=gone.pth"],
    ],
)
def test_the_recommended_run_learns_from_what_was_audited(folder: Path, config: Path, words: list[str]) -> None:
    weights = folder / "teacher.safetensors"
    experiment = recommended(load_target(weights, [str(config), *words]))
    assert problems_of(experiment) == []
    assert network_of_weights(weights, experiment).model == teacher_model(experiment)
    assert experiment.teacher is not None
    assert (experiment.teacher.files, experiment.teacher.classifier) == ((weights,), "linear")
    if not words:
        assert load_target(folder).teacher == {"teacher.checkpoint": str(weights)}


def test_a_balanced_teacher_is_not_debiased_again(folder: Path, config: Path, tmp_path: Path) -> None:
    described = {**read_metadata(folder / "teacher.safetensors"), "posterior": "balanced"}
    save_file(load_file(folder / "teacher.safetensors"), tmp_path / "balanced.safetensors", metadata=described)
    found = load_target(tmp_path / "balanced.safetensors", [str(config)])
    report = found.audit()
    assert report["recommendation"] is not None
    assert report["recommendation"]["reason"] == "balanced_teacher"
    assert posterior_notes(recommended(found)) == []
    assert "trained for balanced classes" in " ".join(report["cautions"])
    adjusted = next(sentence for sentence in report["summary"] if "Adjusting" in sentence)
    assert "twice" in adjusted


def test_a_runs_own_method_that_mixes_posteriors_is_told_as_the_run_tells_it(folder: Path) -> None:
    words = ["method.supervised=balanced_softmax"]
    notes = posterior_notes(Experiment.from_yaml(folder / "config.yaml", words))
    assert notes
    assert load_target(folder, words).cautions == tuple(notes)


def test_a_run_is_audited_with_another_method_than_its_own(folder: Path) -> None:
    found = load_target(folder, ["method=bkd"])
    assert found.student is not None
    assert found.student.label_only is not None
    assert found.method is not None
    assert found.method["name"] == "bkd"


def npz(path: Path, logits: Any = None, labels: Any = None) -> Path:
    rng = np.random.default_rng(0)
    np.savez(
        path,
        logits=rng.normal(size=(60, 3)) if logits is None else logits,
        labels=np.arange(60) % 3 if labels is None else labels,
    )
    return path


def test_a_file_of_logits_with_and_without_counts(tmp_path: Path) -> None:
    path = npz(tmp_path / "x.npz")
    given = load_target(path, class_counts="300,40,5")
    assert (given.class_counts, given.split) == ((300, 40, 5), None)
    assert given.cautions == ()
    counted = load_target(path)
    assert (counted.class_counts, counted.counts_from) == ((20, 20, 20), "these labels")
    assert "counted from these labels" in counted.cautions[0]
    (tmp_path / "counts.json").write_text(json.dumps({"class_counts": [9, 5, 2]}))
    assert load_target(path, class_counts=str(tmp_path / "counts.json")).class_counts == (9, 5, 2)


def test_a_file_of_logits_teaches_where_a_run_could_find_its_images_in_it(tmp_path: Path) -> None:
    logits, labels = torch.randn(60, 3), torch.arange(60) % 3
    facts = {"posterior": "balanced", "subset_sha256": "0"}
    save_file({"logits": logits, "target": labels}, tmp_path / "x.safetensors", metadata=facts)
    found = load_target(tmp_path / "x.safetensors", class_counts="300,40,5")
    assert (found.posterior, found.teacher) == ("balanced", {"teacher": {"logits": str(tmp_path / "x.safetensors")}})
    assert "balanced_softmax" in str(found.audit()["command"])
    beside = {"teacher_logits": logits, "logits": logits + 1, "target": labels}  # a run would take the student's
    save_file(beside, tmp_path / "y.safetensors", metadata=facts)
    for name in (tmp_path / "y.safetensors", npz(tmp_path / "z.npz")):
        assert load_target(name).teacher == {}


def test_all_problems_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    logits = np.zeros((4, 3))
    logits[2, 1] = np.nan
    path = npz(tmp_path / "x.npz", logits, np.array([0, 1, 2, 9]))
    with pytest.raises(ConfigError) as caught:
        load_target(path, class_counts="5,0")
    text = str(caught.value)
    assert all(said in text for said in ("row 2", "9 in row 3", "class 1: 0"))
    with pytest.raises(ConfigError) as caught:
        load_target(tmp_path / "missing.npz", class_counts="nowhere.txt")
    assert all(said in str(caught.value) for said in ("missing.npz", "nowhere.txt"))
    with pytest.raises(ConfigError, match=r"3 classes.*2"):
        load_target(npz(tmp_path / "y.npz"), class_counts="5,1")
    with pytest.raises(ConfigError) as caught:
        load_target(npz(tmp_path / "z.npz", logits, np.array([0, 0, 0, 0])))
    assert all(said in str(caught.value) for said in ("2 of 3 classes", "--class-counts", "row 2"))
    with pytest.raises(ConfigError, match="expected \\(samples, classes\\)"):
        load_target(npz(tmp_path / "w.npz", np.zeros(4), np.zeros(4, dtype=int)))


@pytest.mark.parametrize(
    ("name", "words", "options", "said"),
    [
        ("run", ["x.yaml"], {}, ["CONFIG 'x.yaml'"]),
        ("run", [], {"class_counts": "1,2", "split": "vali"}, ["--class-counts", "vali ", "'validation'"]),
        ("run", ["trainig.epochs=1"], {}, ["trainig", "'training'"]),
        ("run", ["data.validation=0"], {"split": "validation"}, ["data.validation", "--split train"]),
        ("run/teacher.safetensors", [], {}, ["CONFIG", "distail audit run"]),
        (
            "run/teacher.safetensors",
            ["no.yaml"],
            {"class_counts": "1"},
            ["'no.yaml'", "--class-counts"],
        ),
        ("gone.safetensors", ["no.yaml"], {}, ["no such file", "'no.yaml'"]),
        ("noise.safetensors", ["run/config.yaml"], {}, ["noise.safetensors"]),
        ("x.npz", ["x.yaml"], {"split": "test"}, ["'x.yaml'", "--split"]),
        ("empty", [], {}, ["config.yaml", "distail run"]),
        ("x.pkl", [], {}, ["'.pkl'"]),
        ("other.safetensors", ["run/config.yaml"], {}, ["7 classes", "10"]),
    ],
)
def test_what_does_not_fit_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: Any, options: Any, said: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, "run", ignore=shutil.ignore_patterns("checkpoints"))
    npz(Path("x.npz"))
    Path("empty").mkdir()
    Path("x.pkl").write_bytes(b"")
    Path("noise.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00noise...")
    weights = load_file("run/teacher.safetensors")
    save_file(
        {name: value[:7] if name.startswith("classifier") else value for name, value in weights.items()},
        "other.safetensors",
    )
    with pytest.raises(DistailError) as caught:
        load_target(Path(name), words, **options)
    for text in said:
        assert text in str(caught.value)


def test_weights_are_known_by_their_content(folder: Path, tmp_path: Path, config: Path) -> None:
    for name in ("a.pth.tar", "a.ckpt", "A.PTH", "a"):
        torch.save({"state_dict": load_file(folder / "teacher.safetensors")}, tmp_path / name)
        assert torch.equal(load_target(tmp_path / name, [str(config)]).logits, load_target(folder).logits)


def test_what_weights_learned_the_configuration_says_where_their_file_does_not(
    folder: Path, tmp_path: Path, config: Path
) -> None:
    torch.save(load_file(folder / "teacher.safetensors"), tmp_path / "a.pth")
    found = load_target(tmp_path / "a.pth", [str(config), "teacher.supervised=balanced_softmax"])
    assert found.posterior == "balanced"


def odd(logits: torch.Tensor, target: torch.Tensor, folder: Path) -> list[str]:
    save_file({"logits": logits.contiguous(), "target": target.contiguous()}, folder / "odd.safetensors")
    counts = ",".join(["10"] * logits.shape[1])
    return load_target(folder / "odd.safetensors", class_counts=counts).audit()["cautions"]


def test_what_looks_like_bias_and_is_none(tmp_path: Path) -> None:
    target = torch.arange(200) % 12
    logits = 5 * torch.nn.functional.one_hot(target, 12).float() - 1
    usual = len(odd(logits, target, tmp_path))
    by_text = torch.tensor(sorted(range(12), key=str))
    for changed, labels, said in (
        (logits[:, by_text], target, "sorted as text ('class 0', 'class 1', 'class 10', 'class 11'"),
        (logits[target < 11], target[target < 11] + 1, "subtract 1 from each label"),
        (logits.sigmoid(), target, "remove its last sigmoid"),
    ):
        cautions = odd(changed, labels, tmp_path)
        assert len(cautions) == usual + 1
        assert any(said in caution for caution in cautions)


def test_labels_from_one_that_are_out_of_range(tmp_path: Path) -> None:
    target = torch.arange(200) % 12
    with pytest.raises(DistailError, match=r"They run from 1 to 12: subtract 1"):
        odd(torch.randn(200, 12), target + 1, tmp_path)


def test_an_unfinished_run_says_what_is_missing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text((folder / "config.yaml").read_text())
    with pytest.raises(ConfigError, match=r"teacher\.safetensors.*student\.safetensors"):
        load_target(tmp_path)


def test_a_configuration_alone_is_told_where_it_belongs(tmp_path):
    with pytest.raises(ConfigError, match=r"mine\.yaml.*distail audit teacher\.safetensors"):
        load_target(tmp_path / "mine.yaml")


def test_by_the_test_rows_of_a_file_nothing_is_recommended(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    labels = np.arange(300) % 3
    rows = (draw.normal(size=(300, 3)) + 2 * np.eye(3)[labels]).astype(np.float32)
    for split, chooses in (("validation", True), ("test", False)):
        np.savez(tmp_path / f"{split}.npz", logits=rows, target=labels, split=np.array([split] * 300))
        found = load_target(tmp_path / f"{split}.npz", class_counts="500,60,5").audit()
        assert (found["recommendation"] is not None) == chooses
        assert any("These are test images" in caution for caution in found["cautions"]) != chooses
