"""`DistillationModule` on small networks; the libraries are imported where they are needed."""

import torch
from torch.utils.data import DataLoader

from distail.integrations.data import IndexedDataset
from helpers.other_loops import BATCH, COUNTS, EPOCHS, ITEMS, RATE, reader


def keeping(rows):
    """A callback that keeps what is logged at each step."""
    from lightning.pytorch.callbacks import LambdaCallback

    def keep(trainer, *_):
        rows.append({name: value.item() for name, value in trainer.callback_metrics.items()})

    return LambdaCallback(on_train_batch_end=keep)


def group_metrics(class_counts=None):
    from distail.integrations.lightning import GroupMetrics

    return GroupMetrics(class_counts)


def module_of(method="bkd", **options):
    from distail.integrations.lightning import DistillationModule

    given = {"class_counts": COUNTS, "teacher": reader(12, 2), **options}
    return DistillationModule(
        reader(8, 1), method=method, optimizer=lambda parameters: torch.optim.SGD(parameters, RATE), **given
    )


def trainer_of(*callbacks, **options):
    from lightning import Trainer

    return Trainer(
        **{
            "accelerator": "cpu",
            "max_epochs": EPOCHS,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [*callbacks],
            **options,
        }
    )


def loader_of(items=ITEMS, batch=BATCH, **options):
    return DataLoader(IndexedDataset(items), batch_size=batch, **options)
