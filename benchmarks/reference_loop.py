"""What people write first: PIL images from a DataLoader, float32, teacher and `.item()` at every step."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

TEMPERATURE, PADDING = 4.0, 4


class PngImages(Dataset[tuple[Tensor, int]]):
    """PNG bytes in memory, decoded, cropped, flipped and normalized one by one."""

    def __init__(self, images: Tensor, labels: Tensor, mean: Sequence[float], std: Sequence[float]) -> None:
        self.files = [_png(image) for image in images]
        self.labels = labels.tolist()
        self.mean, self.std = np.array(mean, np.float32), np.array(std, np.float32)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.open(io.BytesIO(self.files[index])).convert("RGB")
        width, height = image.size
        left, top = random.randint(0, 2 * PADDING), random.randint(0, 2 * PADDING)
        image = ImageOps.expand(image, PADDING).crop((left, top, left + width, top + height))
        if random.random() < 0.5:
            image = ImageOps.mirror(image)
        pixels = (np.asarray(image, np.float32) / 255 - self.mean) / self.std
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy()), self.labels[index]


def make_loader(dataset: PngImages, batch_size: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """Two workers that stay, so that no timing includes their start."""
    return DataLoader(dataset, batch_size, shuffle=True, num_workers=2, persistent_workers=True)


def train(
    student: nn.Module, teacher: nn.Module, loader: DataLoader[tuple[Tensor, Tensor]], device: torch.device
) -> float:
    """One epoch; returns the mean loss."""
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    student.train()
    teacher.eval()
    losses = []
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        with torch.no_grad():
            teacher_logits = teacher(images)
        logits = student(images)
        distillation = F.kl_div(
            F.log_softmax(logits / TEMPERATURE, dim=1),
            F.softmax(teacher_logits / TEMPERATURE, dim=1),
            reduction="batchmean",
        )
        loss = 0.1 * F.cross_entropy(logits, labels) + 0.9 * TEMPERATURE**2 * distillation
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def _png(image: Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "png")
    return buffer.getvalue()
