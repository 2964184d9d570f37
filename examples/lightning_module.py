"""A LightningModule that distils with DR-KD. The images are made up."""

import lightning
import torch
from torch import Tensor, nn

import distail


class Distillation(lightning.LightningModule):
    def __init__(self, student: nn.Module, teacher: nn.Module, method: distail.Method, epochs: int) -> None:
        super().__init__()
        self.student, self.teacher, self.method = student, teacher.requires_grad_(False), method
        self.epochs = epochs

    def on_train_epoch_start(self) -> None:
        self.teacher.eval()
        self.method.begin_epoch(self.current_epoch, self.epochs)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        images, labels = batch
        with torch.no_grad():
            teacher_outputs = distail.Outputs(self.teacher(images))
        terms: distail.Terms = self.method(distail.Outputs(self.student(images)), teacher_outputs, labels)
        self.log_dict({name: value.detach() for name, value in terms.items()})
        return terms.total

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([*self.student.parameters(), *self.method.trainable_parameters()], lr=0.05)


epochs = 1
module = Distillation(
    distail.models.create_model("resnet8", num_classes=3),
    distail.models.create_model("resnet20", num_classes=3),
    distail.create_method("drkd", class_counts=[40, 20, 4]),
    epochs,
)
data = torch.utils.data.TensorDataset(torch.randn(32, 3, 16, 16), torch.randint(0, 3, (32,)))
trainer = lightning.Trainer(
    max_epochs=epochs,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=16))
