"""`DistillationModule` and `GroupMetrics` with the real library."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from distail.errors import CheckpointError, DataError, MethodError
from distail.evaluation.metrics import evaluate_predictions
from distail.integrations.data import IndexedDataset, count_classes
from helpers.lightning_loop import group_metrics, keeping, loader_of, module_of, trainer_of
from helpers.other_loops import (
    BATCH,
    COUNTS,
    ITEMS,
    METHODS,
    ONE_STAGE,
    batch_of,
    logits_of,
    plain_losses,
    reader,
    sentences,
)

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True, scope="module")
def _library():
    pytest.importorskip("lightning")  # here and not above: it takes seconds, wherever tests are collected


def rows_of(module, loader=None, **options):
    rows = []
    trainer_of(keeping(rows), **options).fit(module, loader or loader_of())
    return rows


@pytest.mark.parametrize("name", METHODS)
def test_the_losses_of_the_plain_loop(name):
    torch.manual_seed(7)
    module = module_of(METHODS[name], class_counts=count_classes(ITEMS))
    expected = plain_losses(module.student, module.teacher or reader(12, 2), module.method, ITEMS)
    rows = rows_of(module)
    assert len(rows) == len(expected) == 20
    for row, terms in zip(rows, expected, strict=True):
        for term, value in terms.items():
            assert row[term] == pytest.approx(value, abs=1e-6), term
    assert abs(expected[0]["loss"] - expected[15]["loss"]) > 0.001  # the same sentences, three epochs later


def test_two_posteriors_are_told_once():
    with pytest.warns(UserWarning, match="equal class priors"):
        module_of("bkd")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module_of("distail")


def test_gradients_that_accumulate():
    module = module_of("dive")
    expected = [terms["loss"] for terms in plain_losses(module.student, module.teacher, module.method, ITEMS)]
    rows = rows_of(module, loader_of(batch=BATCH // 2), accumulate_grad_batches=2)
    halves = [row["loss"] for row in rows]
    assert [(a + b) / 2 for a, b in zip(halves[::2], halves[1::2], strict=True)] == pytest.approx(expected, abs=1e-5)


def test_stored_logits_in_place_of_the_network():
    expected = [row["loss"] for row in rows_of(module_of())]
    images = [((item["input_ids"], item["attention_mask"]), item["labels"]) for item in ITEMS]

    class OfPairs(nn.Module):
        def __init__(self):
            super().__init__()
            self.reader = reader(8, 1)

        def forward(self, pair):
            return self.reader(*pair)["logits"]

    stored = IndexedDataset(images, logits_of(reader(12, 2), ITEMS))
    module = module_of(teacher=None)
    module.student = module.distillation.student.model = OfPairs()
    assert [row["loss"] for row in rows_of(module, DataLoader(stored, BATCH))] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("method", ["krdistill", ONE_STAGE], ids=["krdistill", "one-stage"])
def test_a_training_that_was_stopped_goes_on_as_if_it_was_not(method, tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    kept = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    torch.manual_seed(7)
    whole, rows = module_of(method), []
    trainer_of(keeping(rows), kept, enable_checkpointing=True).fit(whole, loader_of())
    again, later = module_of(method), []
    for parameter in [*again.student.parameters(), *again.method.parameters()]:
        nn.init.ones_(parameter)
    trainer_of(keeping(later)).fit(again, loader_of(), ckpt_path=tmp_path / "epoch=1.ckpt")
    assert [row["loss"] for row in later] == [row["loss"] for row in rows[10:]]
    stored = torch.load(tmp_path / "epoch=1.ckpt", weights_only=True)
    assert not [name for name in stored["state_dict"] if name.startswith("teacher.")]
    if method == ONE_STAGE:
        torch.save({name: stored[name] for name in stored if name != "distail_memory"}, tmp_path / "less.ckpt")
        with pytest.raises(CheckpointError, match="memory"):
            trainer_of().fit(again, loader_of(), ckpt_path=tmp_path / "less.ckpt")


def test_the_teacher_stays_frozen():
    module = module_of("kd")
    module.teacher.add_module("dropout", nn.Dropout())
    before = {name: value.clone() for name, value in module.teacher.state_dict().items()}
    rows_of(module, max_epochs=1)
    assert not module.teacher.training
    assert all(torch.equal(value, before[name]) for name, value in module.teacher.state_dict().items())
    assert not any(parameter.requires_grad for parameter in module.teacher.parameters())


def test_the_callback_reports_by_group():
    module, held_out = module_of(), sentences(3, 15)
    trainer = trainer_of(group_metrics(), max_epochs=1)
    trainer.fit(module, loader_of(), [loader_of(held_out, 4), loader_of(ITEMS, 4)])
    expected = evaluate_predictions(logits_of(module.student, held_out), batch_of(held_out)[1], COUNTS)
    found = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert found["val_balanced_accuracy"] == pytest.approx(expected["balanced_accuracy"], abs=1e-4)
    thirds = {name: found[f"val_{name}"] for name in ("head", "medium", "tail")}
    assert thirds == pytest.approx(expected["groups"]["thirds"], abs=1e-4)
    on_training_data = evaluate_predictions(logits_of(module.student, ITEMS), batch_of(ITEMS)[1], COUNTS)
    assert found["val_top1_1"] == pytest.approx(on_training_data["top1"], abs=1e-4)
    tested = trainer.test(module, loader_of(held_out), verbose=False)[0]
    assert tested["test_tail"] == pytest.approx(found["val_tail"], abs=1e-4)


def test_the_callback_with_a_module_of_ones_own():
    from lightning import LightningModule

    class Own(LightningModule):
        def __init__(self):
            super().__init__()
            self.reader = reader(8, 1)

        def validation_step(self, batch, batch_idx):
            return {"logits": self.reader(batch["input_ids"], batch["attention_mask"])["logits"], **batch}

    trainer = trainer_of(group_metrics(COUNTS))
    trainer.validate(Own(), loader_of(), verbose=False)
    expected = evaluate_predictions(logits_of(reader(8, 1), ITEMS), batch_of(ITEMS)[1], COUNTS)
    assert trainer.callback_metrics["val_tail"].item() == pytest.approx(expected["groups"]["thirds"]["tail"], abs=1e-4)
    with pytest.raises(MethodError, match="class_counts"):
        trainer_of(group_metrics()).validate(Own(), loader_of(), verbose=False)


def test_what_is_told():
    with pytest.raises(MethodError, match="class_counts"):
        module_of(class_counts=None)
    with pytest.raises(MethodError, match="IndexedDataset"):
        rows_of(module_of(teacher=None))
    with pytest.raises(MethodError, match="IndexedDataset"):
        rows_of(module_of(ONE_STAGE), DataLoader(ITEMS, BATCH))
    with pytest.raises(DataError, match="labels"):
        rows_of(module_of(), DataLoader([{"input_ids": item["input_ids"]} for item in ITEMS]))
    with pytest.raises(MethodError, match="max_epochs"):
        rows_of(module_of(), max_epochs=-1)
