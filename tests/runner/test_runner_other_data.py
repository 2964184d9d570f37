"""Whole runs on data that is not images: arrays, tables and data sets of the user's own."""

import csv
import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import csv as arrow_csv
from pyarrow import parquet
from safetensors.torch import load_file
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

import distail
from distail.audit.from_network import load_run
from distail.config.schema import Experiment
from distail.errors import CheckpointError, ConfigError, DistailError
from distail.evaluation.predictions import load_predictions
from distail.models import FeatureTap, create_model, load_weights, read_metadata
from distail.runner.plan import plan_run
from distail.runner.run_folder import RunFolder
from distail.runner.teach import teach
from distail.training.progress import Silent
from distail.training.signals import Interrupted
from helpers.killing import assert_same_run
from helpers.whole_runs import Killed, run

pytestmark = pytest.mark.integration

OWN = """
import random

import torch
from torch import nn

import distail


class Words(torch.utils.data.Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, place):
        row = self.rows[place]
        label = row % 3 if row % 9 else 0
        ids = torch.tensor([label * 4 + random.randrange(4) for _ in range(6)])
        return {"input_ids": ids, "attention_mask": torch.ones(6), "label": label}


def load():
    return distail.Datasets(Words(range(240)), None, Words(range(240, 330)), ["ham", "spam", "other"])


class Output(dict):
    def __getattr__(self, name):
        return self[name]


class Classifier(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.embedding = nn.Embedding(12, 8)
        self.drop = nn.Dropout(0.1)
        self.score = nn.Linear(8, num_classes)

    def forward(self, input_ids=None, attention_mask=None):
        hidden = self.embedding(input_ids) * attention_mask[..., None]
        return Output(loss=None, logits=self.score(self.drop(hidden.mean(1))))
"""


def experiment(folder, data, **changes):
    return {
        "name": "try",
        "output": str(folder),
        "data": data,
        "teacher": {"model": {"name": "mlp", "hidden": 32}, "training": {"epochs": 4}},
        "student": {"model": {"name": "mlp", "hidden": 16, "depth": 1, "dropout": 0.1}},
        "method": "bkd",
        "training": {"epochs": 4, "batch_size": 16, "learning_rate": 0.05},
        "trainer": {"device": "cpu", "checkpoint_every_steps": 3},
        **changes,
    }


def digits(path):
    data = load_digits()
    np.savez(path / "digits.npz", X=data.data, y=data.target)
    return {"name": "arrays", "root": str(path / "digits.npz"), "imbalance_factor": 20}


def table(path, made, suffix, name):
    """A table of scikit-learn's, made imbalanced: a fifth of the rows of every class but the first."""
    rows = [row for row in range(len(made.target)) if made.target[row] == 0 or row % 5 < 2]
    columns = {key: made.data[rows, place] for place, key in enumerate(made.feature_names)}
    columns["kind"] = [str(made.target_names[label]) for label in made.target[rows]]
    columns["maker"] = [f"m{row % 4}" for row in rows]
    content = pa.table(columns)
    file = path / f"table{suffix}"
    arrow_csv.write_csv(content, file) if suffix == ".csv" else parquet.write_table(content, file)
    return {"name": name, "root": str(file), "label": "kind"}


def answers_again(folder, inputs):
    """The student of a run's file, on raw inputs that are standardized as the file says."""
    told = read_metadata(folder / "student.safetensors")
    mean, std = (torch.tensor(json.loads(told[key])) for key in ("mean", "std"))
    shape = json.loads(told["input_shapes"])[""]
    options = {key: json.loads(told[key]) for key in ("hidden", "depth", "dropout")}
    classes = json.loads(told["class_names"])
    network = create_model(told["model"], num_classes=len(classes), example=torch.zeros(1, *shape), **options)
    load_weights(network, folder / "student.safetensors")
    with torch.no_grad():
        return FeatureTap(network.eval(), len(classes))((inputs - mean) / std).logits.argmax(1), classes


def table_of(folder):
    with (folder / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_arrays_learn_are_stored_audited_and_planned(tmp_path):
    config = experiment(tmp_path / "run", digits(tmp_path))
    plan = plan_run(config)
    assert [stage.model for stage in plan.stages] == ["mlp", "mlp"]
    assert not (tmp_path / "run").exists()
    result = run(config)
    assert result.student["balanced_accuracy"] > 60
    assert not (tmp_path / "run" / "samples.safetensors").exists()
    page = (tmp_path / "run" / "report.html").read_text()
    assert "data:image/png" not in page
    rows = table_of(tmp_path / "run")
    places = [int(row["path"][2:-1]) for row in rows]
    found, classes = answers_again(tmp_path / "run", torch.from_numpy(load_digits().data[places]).float())
    assert [classes[answer] for answer in found] == [row["answer"] for row in rows]
    stored = Experiment.from_yaml(tmp_path / "run" / "config.yaml")
    given = load_run(RunFolder(tmp_path / "run"), stored, None, Silent())
    predictions = load_predictions(tmp_path / "run" / "predictions.safetensors")
    torch.testing.assert_close(given.logits, predictions.validation.teacher_logits)
    assert given.images.startswith(f"{len(given.target)} validation examples of arrays")
    with torch.no_grad():
        again = distail.load_student(tmp_path / "run")(load_digits().data[places])
    torch.testing.assert_close(again, predictions.logits, atol=1e-5, rtol=1e-5)


def test_weights_count_in_training_and_equal_ones_change_nothing(tmp_path):
    made = load_wine()
    labels, found = made.target, {}
    weights = {"none": None, "equal": np.full(len(labels), 3.0), "rare": np.where(labels == 2, 9.0, 1.0)}
    for name, weight in weights.items():
        extra = {} if weight is None else {"weight": weight}
        np.savez(tmp_path / f"{name}.npz", X=made.data, y=labels, **extra)
        data = {"name": "arrays", "root": str(tmp_path / f"{name}.npz")}
        training = {"epochs": 1, "batch_size": 16, "learning_rate": 0.05}
        run(experiment(tmp_path / name, data, teacher=None, method="ce", training=training))
        found[name] = load_file(tmp_path / name / "student.safetensors")["classifier.weight"]
    assert torch.equal(found["none"], found["equal"])
    assert not torch.equal(found["none"], found["rare"])


@pytest.mark.parametrize(("stage", "step"), [("teacher", 5), ("student", 4), ("student", 20)])
def test_a_stopped_run_on_arrays_ends_with_the_same_bits(tmp_path, whole_arrays, stage, step):
    data, whole = whole_arrays
    config = experiment(tmp_path / "run", data, training=whole_training(), method="drkd")
    with pytest.raises(Interrupted):
        run(config, Killed(stage, step))
    run(config)
    assert_same_run(tmp_path / "run", whole)


def whole_training():
    return {"epochs": 3, "batch_size": 24, "learning_rate": 0.05, "mix": {"name": "mixup", "share": 0.5}}


@pytest.fixture(scope="module")
def whole_arrays(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arrays")
    data = digits(folder)
    run(experiment(folder / "whole", data, training=whole_training(), method="drkd"))
    return data, folder / "whole"


@pytest.mark.parametrize(
    ("made", "suffix", "name"), [(load_wine, ".csv", "csv-table"), (load_breast_cancer, ".parquet", "parquet")]
)
def test_tables_are_learned(tmp_path, made, suffix, name):
    data = {**table(tmp_path, made(), suffix, name), "validation": 0.2}
    training = {"epochs": 12, "batch_size": 16, "learning_rate": 0.05}
    result = run(experiment(tmp_path / "run", data, training=training))
    assert result.student["balanced_accuracy"] > 85
    told = read_metadata(tmp_path / "run" / "student.safetensors")
    assert "maker" in told["columns"]
    names = {row["label"] for row in table_of(tmp_path / "run")}
    assert names <= {str(name) for name in made().target_names}
    assert any("columns of numbers" in note for note in result.figures["notes"])


@pytest.fixture
def own(tmp_path, monkeypatch):
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize("views", [0, 2])
def test_items_with_keywords_and_a_network_with_logits_resume_bit_for_bit(tmp_path, own, views):
    changes = {
        "teacher": {"model": f"{own}:Classifier", "training": {"epochs": 3}, "views": views},
        "student": f"{own}:Classifier",
        "method": {"name": "krdistill"},
        "training": {"epochs": 4, "batch_size": 20, "learning_rate": 0.5},
    }
    data = {"name": f"{own}:load"}
    whole = run(experiment(tmp_path / "whole", data, **changes))
    assert whole.student["balanced_accuracy"] > 80
    with pytest.raises(Interrupted):
        run(experiment(tmp_path / "run", data, **changes), Killed("student", 8))
    run(experiment(tmp_path / "run", data, **changes))
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    assert json.loads(read_metadata(tmp_path / "run" / "student.safetensors")["input_shapes"]) == {
        "input_ids": [6],
        "attention_mask": [6],
    }
    with pytest.raises(CheckpointError, match="'input_ids'"):
        distail.load_student(tmp_path / "run")


def test_views_of_items_that_draw_for_themselves_are_as_many_as_of_augmented_images(tmp_path, own):
    def planned(epochs):
        teacher = {"model": f"{own}:Classifier", "training": {"epochs": 1}, "views": "auto"}
        training = {"epochs": epochs, "batch_size": 80}
        changes = {"teacher": teacher, "student": f"{own}:Classifier", "training": training}
        return plan_run(experiment(tmp_path / "run", {"name": f"{own}:load"}, **changes)).experiment.teacher.views

    assert (planned(4), planned(50)) == (0, 10)
    run(experiment(tmp_path / "run", {"name": f"{own}:load"}, student=f"{own}:Classifier", method="ce", teacher=None))
    taught = teach(tmp_path / "run", output=tmp_path / "views.safetensors", views=2, reporter=Silent())
    stored = load_file(taught.path)
    one, other = (stored["logits"][(stored["view"] == view) & (stored["split"][:, 1] == ord("r"))] for view in (0, 1))
    assert len(one) == len(other) > 0
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"student": "resnet8"}, "resnet8"),
        ({"training": {"epochs": 1, "mix": "cutmix"}}, "cutmix"),
        ({"data": {"augment": ["crop"]}}, "data.augment"),
        ({"data": {"label": "y"}}, "data.label"),
        ({"data": {"name": "aray"}}, "arrays"),
        ({"student": {"model": {"name": "resnet8", "hidden": 3}}}, "hidden"),
    ],
)
def test_what_does_not_fit_is_told_before_training(tmp_path, changes, culprit):
    data = {**digits(tmp_path), **changes.pop("data", {})}
    with pytest.raises(DistailError, match=culprit):
        run(experiment(tmp_path / "run", data, **changes))
    assert not list((tmp_path / "run").glob("**/*.safetensors"))


def test_no_code_refuses_data_of_ones_own(tmp_path, own, monkeypatch):
    monkeypatch.setenv("DISTAIL_NO_CODE", "1")
    with pytest.raises(ConfigError, match="--no-code"):
        run(experiment(tmp_path / "run", {"name": f"{own}:load"}))
