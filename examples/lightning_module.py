"""A LightningModule that distills with DR-KD, and a callback that reports by group. The images are made up."""

import lightning
import torch

from distail.integrations.data import count_classes
from distail.integrations.lightning import DistillationModule, GroupMetrics
from distail.models import create_model

images, labels = torch.randn(48, 3, 16, 16), torch.tensor([0] * 24 + [1] * 16 + [2] * 8)
data = torch.utils.data.TensorDataset(images, labels)
module = DistillationModule(
    create_model("resnet8", num_classes=3),
    method="drkd",
    class_counts=count_classes(data),
    teacher=create_model("resnet20", num_classes=3),
    optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
)
trainer = lightning.Trainer(
    max_epochs=1,
    callbacks=[GroupMetrics()],
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(
    module,
    torch.utils.data.DataLoader(data, batch_size=16, shuffle=True),
    torch.utils.data.DataLoader(data, batch_size=16),
)
print(trainer.callback_metrics["val_balanced_accuracy"], trainer.callback_metrics["val_tail"])
