"""The protocol's metrics of any predictions: logits and labels are enough."""

import torch

from distail.evaluation.metrics import evaluate_predictions

logits, target = torch.randn(60, 3), torch.arange(60) % 3
metrics = evaluate_predictions(logits, target, class_counts=[500, 60, 5])  # of the training images
print(metrics["balanced_accuracy"], metrics["groups"]["thirds"], metrics["groups"]["shots"])
