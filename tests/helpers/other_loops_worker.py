"""What each of two processes trains, by transformers and by Lightning; `losses-RANK.json` gets what came of it.

torchrun --nproc-per-node 2 other_loops_worker.py FOLDER METHODS
"""

import json
import os
import sys
from pathlib import Path

import torch

from helpers.lightning_loop import group_metrics, keeping, loader_of, module_of
from helpers.lightning_loop import trainer_of as lightning_trainer
from helpers.other_loops import BATCH, SIZE, sentences
from helpers.transformers_loop import logged, trainer_of


def by_transformers(method, folder):
    trainer = trainer_of(folder, method, arguments_={"per_device_train_batch_size": BATCH // 2})
    trainer.train()
    return {
        "losses": [row["loss"] for row in logged(trainer)],
        "tail": trainer.evaluate()["eval_tail"],
        "parameters": [parameter.tolist() for parameter in trainer.method.parameters()],
    }


def by_lightning(method):
    torch.manual_seed(7)
    module, rows = module_of(method), []
    multi_label = {"devices": 2, "strategy": "ddp", "use_distributed_sampler": False}  # which Lightning's would shuffle
    trainer = lightning_trainer(keeping(rows), group_metrics(), **multi_label)
    of_rank = slice(int(os.environ["RANK"]), None, 2)
    training = loader_of(batch=BATCH // 2, sampler=range(SIZE)[of_rank])
    trainer.fit(module, training, loader_of(sentences(3, 15)[of_rank], 4))
    return {
        "losses": [row["loss"] for row in rows],
        "tail": trainer.callback_metrics["val_tail"].item(),
        "parameters": [parameter.tolist() for parameter in module.method.parameters()],
    }


if __name__ == "__main__":
    folder, methods = Path(sys.argv[1]), json.loads(sys.argv[2])
    found = {
        "transformers": {name: by_transformers(method, folder) for name, method in methods.items()},
        "lightning": {name: by_lightning(method) for name, method in methods.items()},
    }
    (folder / f"losses-{os.environ['RANK']}.json").write_text(json.dumps(found))
