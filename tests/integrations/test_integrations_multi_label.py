"""The loops of others on samples of several classes: the plain loop's losses, counts, and mean average precision."""

import numpy as np
import pytest
import torch

import distail
from distail.errors import DataError, MethodError
from distail.evaluation.metrics import evaluate_predictions
from distail.functional import binary_cross_entropy
from distail.integrations.answers import StoredAnswers
from distail.integrations.data import count_classes
from distail.integrations.distillation import Distillation
from helpers import lightning_loop, transformers_loop
from helpers.other_loops import SIZE, batch_of, logits_of, plain_losses, sentences

pytestmark = pytest.mark.integration
ONE_POSTERIOR = {"supervised": {"name": "bce", "tau": 1}, "targets": ["debias"], "temperature": 2.0}
METHODS = {"kd": "kd", "bkd": "bkd", "one posterior": ONE_POSTERIOR}
SHARES = torch.tensor([0.6, 0.4, 0.2])


def several(seed=0, size=SIZE):
    draw = torch.Generator().manual_seed(seed)
    labels = (torch.rand(size, 3, generator=draw) < SHARES).float()
    return [{**item, "labels": row} for item, row in zip(sentences(seed, size), labels, strict=True)]


ITEMS, HELD_OUT = several(), several(3, 15)
COUNTS = tuple(torch.stack([item["labels"] for item in ITEMS]).sum(0).int().tolist())


def check_losses(rows, expected):
    assert len(rows) == len(expected) == 20
    for row, terms in zip(rows, expected, strict=True):
        for term, value in terms.items():
            assert row[term] == pytest.approx(value, abs=1e-6), term
    assert abs(expected[0]["loss"] - expected[15]["loss"]) > 0.001  # the same sentences, three epochs later


def check_evaluation(found, prefix, network):
    logits, labels = logits_of(network, HELD_OUT), batch_of(HELD_OUT)[1]
    expected = evaluate_predictions(logits, labels.bool(), COUNTS)
    assert found[f"{prefix}mean_average_precision"] == pytest.approx(expected["mean_average_precision"], abs=1e-4)
    thirds = {name: found[f"{prefix}{name}"] for name in ("head", "medium", "tail")}
    assert thirds == pytest.approx(expected["groups"]["thirds"], abs=1e-4)
    assert found[f"{prefix}loss"] == pytest.approx(binary_cross_entropy(logits, labels).mean().item(), abs=1e-5)
    assert f"{prefix}top1" not in found


@pytest.mark.parametrize("name", METHODS)
def test_the_trainer_of_transformers(name, tmp_path):
    pytest.importorskip("transformers")
    trainer = transformers_loop.trainer_of(tmp_path, METHODS[name], train_dataset=ITEMS, eval_dataset=HELD_OUT)
    assert (trainer.method.setup.class_counts, trainer.method.setup.samples) == (COUNTS, SIZE)
    expected = plain_losses(trainer.model, transformers_loop.bert(24, seed=2), trainer.method, ITEMS)
    trainer.train()
    check_losses(transformers_loop.logged(trainer), expected)
    check_evaluation(trainer.evaluate(), "eval_", trainer.model.eval())


@pytest.mark.parametrize("name", METHODS)
def test_the_module_of_lightning(name):
    pytest.importorskip("lightning")
    module = lightning_loop.module_of(METHODS[name], class_counts=count_classes(ITEMS), samples=len(ITEMS))
    expected, rows = plain_losses(module.student, module.teacher, module.method, ITEMS), []
    trainer = lightning_loop.trainer_of(lightning_loop.keeping(rows), lightning_loop.group_metrics())
    trainer.fit(module, lightning_loop.loader_of(ITEMS), lightning_loop.loader_of(HELD_OUT, 4))
    check_losses(rows, expected)
    check_evaluation({name: value.item() for name, value in trainer.callback_metrics.items()}, "val_", module.student)


def test_positives_are_counted_whatever_rows_come_as():
    assert count_classes(ITEMS) == COUNTS
    assert count_classes([(0, item["labels"].tolist()) for item in ITEMS]) == COUNTS
    assert count_classes([(0, item["labels"].bool().numpy()) for item in ITEMS], 3) == COUNTS


@pytest.mark.parametrize(
    ("labels", "culprit"),
    [([[1.0, 0.0], [1.0]], "1, 2"), ([[2.0, 0.0], [1.0, 1.0]], "to 2"), ([[1, 0], [1, 0]], "class 1")],
    ids=str,
)
def test_labels_that_cannot_be_counted_are_told(labels, culprit):
    with pytest.raises(DataError, match=culprit):
        count_classes([(0, row) for row in labels])


def test_what_does_not_fit_is_told():
    student, teacher = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    with pytest.raises(MethodError, match="swap"):
        Distillation("drkd", student, teacher, [3, 2, 1], samples=5)
    method = distail.create_method("kd", class_counts=[3, 2, 1], samples=5)
    with pytest.raises(MethodError, match=r"samples is 6.*5"):
        Distillation(method, student, teacher, None, samples=6)
    assert Distillation(method, student, teacher, None).method is method


def test_a_file_of_probabilities_is_of_one_class(tmp_path):
    pytest.importorskip("transformers")
    shares = torch.rand(SIZE, 3, generator=torch.Generator().manual_seed(0)) * 4
    given = {"train_dataset": ITEMS, "eval_dataset": HELD_OUT}
    np.savez(tmp_path / "shares.npz", probabilities=shares.softmax(1).numpy())
    with pytest.raises(DataError, match="log odds"):
        transformers_loop.trainer_of(tmp_path, "kd", teacher_logits=StoredAnswers(tmp_path / "shares.npz"), **given)
    np.savez(tmp_path / "logits.npz", logits=shares.numpy() - 2)
    trainer = transformers_loop.trainer_of(
        tmp_path, "kd", teacher_logits=StoredAnswers(tmp_path / "logits.npz"), **given
    )
    assert torch.equal(trainer.train_dataset[5]["teacher_logits"], shares[5] - 2)
