"""Made batches whose crops and flips can be stored views."""

import torch

from distail.data.batches import TrainingBatches
from distail.data.dataset import LabeledImages
from distail.training.device import RuntimeDevice

CLASSES, IMAGES, VIEWS = 5, 700, 3  # more rows than one fill batch, and no multiple of it


def runtime(precision="fp32"):
    return RuntimeDevice(torch.device("cpu"), precision)


def batches(*, views=VIEWS, images=IMAGES, on=None, **options):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, 8, 8), generator=generator, dtype=torch.uint8)
    data = LabeledImages(pixels, torch.arange(images) % CLASSES)
    on = on or runtime()
    settings = {
        "batch_size": 64,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "augment": ["crop", "flip"],
        "num_classes": CLASSES,
        **options,
    }
    return TrainingBatches(
        data, **settings, seed=3, views=views, channels_last=True, rank=on.processes.rank, world_size=on.processes.size
    )
