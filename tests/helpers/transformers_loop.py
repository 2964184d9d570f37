"""`DistillationTrainer` on a small BERT with random weights; the libraries are imported where they are needed."""

import torch

from helpers.other_loops import BATCH, EPOCHS, ITEMS, RATE, sentences


def bert(width=16, seed=1):
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    sizes = {"hidden_size": width, "intermediate_size": width, "num_hidden_layers": 1, "num_attention_heads": 2}
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.3}
    config = BertConfig(vocab_size=30, num_labels=3, **sizes, **still)
    return BertForSequenceClassification(config)


def arguments(folder, **changes):
    from transformers import TrainingArguments

    return TrainingArguments(
        str(folder),
        **{
            "per_device_train_batch_size": BATCH,
            "num_train_epochs": EPOCHS,
            "learning_rate": RATE,
            "lr_scheduler_type": "constant",
            "optim": "sgd",
            "max_grad_norm": 0.0,
            "train_sampling_strategy": "sequential",
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            **changes,
        },
    )


def trainer_of(folder, method="bkd", student=None, arguments_=None, **options):
    from distail.integrations.transformers import DistillationTrainer

    given = {"teacher": None} if "teacher_logits" in options else {"teacher": bert(24, seed=2)}
    given |= {"train_dataset": ITEMS, "eval_dataset": sentences(3, 15), **options}
    return DistillationTrainer(student or bert(), arguments(folder, **(arguments_ or {})), method=method, **given)


def logged(trainer):
    return [row for row in trainer.state.log_history if "loss" in row]
