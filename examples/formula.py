"""Only the formulas: BKD's distillation loss from three pure functions."""

import torch

from distail import functional

student_logits, teacher_logits = torch.randn(8, 3), torch.randn(8, 3)
weights = functional.effective_number_weights([500, 60, 5])
targets = functional.reweigh_targets(teacher_logits, weights, temperature=2.0)
loss = functional.kl_divergence(student_logits, targets, temperature=2.0).mean()  # T^2 is in it
print(loss)
