"""A transformers Trainer that distills with BKD. The sentences are made up, and so are the weights."""

import torch
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments

from distail.integrations.transformers import DistillationTrainer


def network(width: int) -> BertForSequenceClassification:
    sizes = {"hidden_size": width, "intermediate_size": width, "num_hidden_layers": 1, "num_attention_heads": 2}
    return BertForSequenceClassification(BertConfig(vocab_size=50, num_labels=3, **sizes))


def sentences(counts: list[int]) -> list[dict[str, object]]:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return [{"input_ids": torch.randint(0, 50, (12,)), "labels": label} for label in labels]


trainer = DistillationTrainer(
    network(16),
    TrainingArguments(
        "bert-bkd", num_train_epochs=1, eval_strategy="epoch", save_strategy="epoch", report_to="none", use_cpu=True
    ),
    train_dataset=sentences([40, 20, 4]),
    eval_dataset=sentences([5, 5, 5]),
    method="bkd",
    teacher=network(32),  # or teacher_logits=: an array (N, C) in the order of the training set, or a column's name
)
trainer.train()
metrics = trainer.evaluate()
print(metrics["eval_balanced_accuracy"], metrics["eval_head"], metrics["eval_medium"], metrics["eval_tail"])
trainer.save_model("bert-bkd/student")  # as any other: BertForSequenceClassification.from_pretrained reads it
