"""`DistillationTrainer` with the real library: the plain loop's losses, checkpoints, metrics, and what it refuses."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset

import distail
from distail.errors import CheckpointError, DataError, MethodError
from distail.evaluation.metrics import evaluate_predictions
from helpers.other_loops import (
    BATCH,
    COUNTS,
    ITEMS,
    METHODS,
    ONE_STAGE,
    RATE,
    batch_of,
    logits_of,
    plain_losses,
    reader,
    sentences,
)
from helpers.transformers_loop import bert, logged, trainer_of

pytestmark = pytest.mark.integration

METHOD_FILE = "distail_method.safetensors"


@pytest.fixture(autouse=True, scope="module")
def _library():
    pytest.importorskip("transformers")  # here and not above: it takes seconds, wherever tests are collected


def losses_of(trainer):
    trainer.train()
    return [row["loss"] for row in logged(trainer)]


@pytest.mark.parametrize("name", METHODS)
def test_the_losses_of_the_plain_loop(name, tmp_path):
    trainer = trainer_of(tmp_path, METHODS[name])
    assert trainer.method.setup.class_counts == COUNTS
    expected = plain_losses(trainer.model, bert(24, seed=2), trainer.method, ITEMS)
    trainer.train()
    assert len(logged(trainer)) == len(expected) == 20
    for row, terms in zip(logged(trainer), expected, strict=True):
        for term, value in terms.items():
            assert row[term] == pytest.approx(value, abs=1e-6), term
    assert abs(expected[0]["loss"] - expected[15]["loss"]) > 0.01  # the same sentences, three epochs later


@pytest.mark.parametrize("name", ["krdistill", "dive"])
def test_gradients_that_accumulate(name, tmp_path):
    trainer = trainer_of(
        tmp_path, name, arguments_={"per_device_train_batch_size": BATCH // 4, "gradient_accumulation_steps": 4}
    )
    expected = plain_losses(trainer.model, bert(24, seed=2), trainer.method, ITEMS)
    assert losses_of(trainer) == pytest.approx([terms["loss"] for terms in expected], abs=1e-5)


@pytest.mark.parametrize("kind", ["tensor", "array", "column"])
def test_stored_logits_in_place_of_the_network(kind, tmp_path):
    logits = logits_of(bert(24, seed=2).eval(), ITEMS)
    given = {"teacher_logits": logits.numpy() if kind == "array" else logits}
    if kind == "column":
        items = [{**item, "said": row.tolist()} for item, row in zip(ITEMS, logits, strict=True)]
        given = {"teacher_logits": "said", "train_dataset": items}
    trainer = trainer_of(tmp_path, "bkd", arguments_={"train_sampling_strategy": "random"}, **given)
    with_network = trainer_of(tmp_path, "bkd", arguments_={"train_sampling_strategy": "random"})
    assert losses_of(trainer) == pytest.approx(losses_of(with_network), abs=1e-5)


@pytest.mark.parametrize("method", ["krdistill", ONE_STAGE, "ipwd"], ids=["krdistill", "one-stage", "ipwd"])
def test_a_training_that_was_stopped_goes_on_as_if_it_was_not(method, tmp_path):
    saved = {"save_strategy": "steps", "save_steps": 8, "train_sampling_strategy": "random"}
    saved["optim_args"] = "momentum=0.9"
    whole = trainer_of(tmp_path, method, arguments_=saved)
    losses = losses_of(whole)
    again = trainer_of(tmp_path, method, student=bert(seed=9), arguments_=saved)
    for parameter in again.method.parameters():
        nn.init.ones_(parameter)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    assert [row["loss"] for row in logged(again)] == losses
    for name, value in whole.method.state_dict().items():
        assert torch.equal(again.method.state_dict()[name], value), name


def test_what_is_saved_is_the_student_alone(tmp_path):
    trainer = trainer_of(tmp_path, "krdistill", arguments_={"save_strategy": "epoch", "num_train_epochs": 1})
    before = copy.deepcopy(trainer.method.state_dict())
    trainer.train()
    trainer.save_model(str(tmp_path / "student"))
    assert (tmp_path / "checkpoint-5" / METHOD_FILE).is_file()
    assert not (tmp_path / "student" / METHOD_FILE).exists()
    read = type(trainer.model).from_pretrained(tmp_path / "student").eval()
    assert torch.equal(logits_of(read, ITEMS), logits_of(trainer.model.eval(), ITEMS))
    moved = [name for name, value in trainer.method.state_dict().items() if not torch.equal(value, before[name])]
    assert {"representation.projector.weight", "representation.projector.bias"} <= {*moved}


def test_an_evaluation_reports_groups(tmp_path):
    def fraction(predicted):
        return {"own": float((predicted.predictions.argmax(1) == predicted.label_ids).mean())}

    trainer = trainer_of(tmp_path, compute_metrics=fraction, arguments_={"num_train_epochs": 1})
    trainer.train()
    found, held_out = trainer.evaluate(), sentences(3, 15)
    logits, labels = logits_of(trainer.model.eval(), held_out), batch_of(held_out)[1]
    expected = evaluate_predictions(logits, labels, COUNTS)
    assert found["eval_top1"] == pytest.approx(expected["top1"])
    assert found["eval_balanced_accuracy"] == pytest.approx(expected["balanced_accuracy"])
    thirds = {name: found[f"eval_{name}"] for name in ("head", "medium", "tail")}
    assert thirds == pytest.approx(expected["groups"]["thirds"])
    assert found["eval_own"] == pytest.approx(expected["top1"] / 100)
    assert found["eval_loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), abs=1e-5)


class Wide(nn.Module):
    """Reads another column than the student."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, features):
        return self.head(features)


def test_networks_of_ones_own_with_different_inputs(tmp_path):
    torch.manual_seed(0)
    teacher, values = Wide(), torch.randn(len(ITEMS), 4)
    items = [{**item, "features": row} for item, row in zip(ITEMS, values, strict=True)]
    trainer = trainer_of(tmp_path, "bkd", reader(8, 1), train_dataset=items, teacher=teacher)
    stored = trainer_of(tmp_path, "bkd", reader(8, 1), teacher_logits=teacher(values).detach())
    assert losses_of(trainer) == pytest.approx(losses_of(stored), abs=1e-6)
    assert {"eval_tail", "eval_loss"} <= trainer.evaluate().keys()


def test_a_method_made_outside(tmp_path):
    method = distail.create_method("bkd", class_counts=COUNTS, beta=0.9)
    trainer = trainer_of(tmp_path, method)
    assert trainer.method is method
    with pytest.raises(MethodError, match=r"\(20, 12, 8\)"):
        trainer_of(tmp_path, method, class_counts=[1, 2, 3])


def test_an_optimizer_without_the_methods_parameters(tmp_path):
    student = bert()
    optimizer = torch.optim.SGD(student.parameters(), lr=RATE)
    with pytest.raises(MethodError, match="trainable_parameters"):
        trainer_of(tmp_path, "krdistill", student, optimizers=(optimizer, None)).train()


REFUSED = {
    "a misspelt name": ({"method": "bdk"}, MethodError, ["'bkd'"]),
    "no teacher": ({"teacher": None}, MethodError, ["teacher_logits="]),
    "features that are not stored": (
        {"method": "krdistill", "teacher_logits": torch.zeros(40, 3)},
        MethodError,
        ["features"],
    ),
    "samples of several classes": ({"samples": 40}, MethodError, ["samples", "single-label"]),
    "two teachers": ({"teacher": nn.Identity(), "teacher_logits": torch.zeros(40, 3)}, MethodError, ["one of them"]),
    "too few rows": ({"teacher_logits": np.zeros((39, 3))}, DataError, ["39", "40"]),
    "other classes": ({"teacher_logits": np.zeros((40, 4))}, DataError, ["4", "3"]),
    "no such column": ({"teacher_logits": "label"}, DataError, ["'labels'"]),
    "no data": ({"train_dataset": None}, DataError, ["class_counts="]),
    "a class without samples": ({"train_dataset": ITEMS[:2]}, DataError, ["no sample of class"]),
    "options without a place": (
        {"compute_loss_func": len, "arguments_": {"label_smoothing_factor": 0.1}},
        MethodError,
        ["compute_loss_func", "label_smoothing_factor"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_told_before_training(case, tmp_path):
    options, error, said = REFUSED[case]
    with pytest.raises(error) as told:
        trainer_of(tmp_path, **options)
    for part in said:
        assert part in str(told.value)


def test_a_row_that_is_not_finite(tmp_path):
    logits = torch.zeros(40, 3)
    logits[30, 1] = torch.nan
    with pytest.raises(DataError, match="30"):
        trainer_of(tmp_path, teacher_logits=logits).train()


def test_checkpoints_of_others_are_told(tmp_path):
    steps = {"save_strategy": "steps", "save_steps": 5, "num_train_epochs": 1}
    trainer_of(tmp_path, "ipwd", arguments_=steps).train()
    with pytest.raises(CheckpointError, match="krdistill"):
        trainer_of(tmp_path, "krdistill", arguments_=steps).train(resume_from_checkpoint=True)
    (tmp_path / "checkpoint-5" / METHOD_FILE).unlink()
    with pytest.raises(CheckpointError, match=METHOD_FILE):
        trainer_of(tmp_path, "ipwd", arguments_=steps).train(resume_from_checkpoint=True)


class Stream(IterableDataset):
    """A data set without a length."""

    def __iter__(self):
        yield from ITEMS


@pytest.mark.parametrize("steps", [8, 250])
def test_a_ramp_rises_by_steps_where_nobody_knows_the_epochs(steps, tmp_path):
    trainer = trainer_of(
        tmp_path, "dkd", reader(8, 1), train_dataset=Stream(), arguments_={"max_steps": steps}, class_counts=COUNTS
    )
    losses_of(trainer)
    told = [row["distillation"] > 0 for row in logged(trainer)]
    assert told == [step * 100 // steps > 0 for step in range(steps)]


def test_unlabeled_items_are_predicted_though_the_teacher_reads_other_columns(tmp_path):
    items = [{**item, "features": torch.ones(4), "index": f"{row}.txt"} for row, item in enumerate(ITEMS)]
    trainer = trainer_of(tmp_path, "bkd", reader(8, 1), train_dataset=items, teacher=Wide())
    losses_of(trainer)  # a column of the user's own that is called index is no index of ours
    unlabeled = [{name: value for name, value in item.items() if name not in ("labels", "index")} for item in items]
    labeled = [{**item, "labels": given["labels"]} for item, given in zip(unlabeled, ITEMS, strict=True)]
    found, expected = (trainer.predict(data).predictions for data in (unlabeled, labeled))
    assert np.array_equal(found, expected)


def test_ldam_on_a_linear_classifier_warns(tmp_path):
    with pytest.warns(UserWarning, match="cosine"):
        trainer_of(tmp_path, {"supervised": "ldam"}, reader(8, 1))
