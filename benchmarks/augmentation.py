"""What augmentations and mixing cost: processor time an image, on one thread, beside a training step of ResNet-20.

    python benchmarks/augmentation.py            # two minutes
    python benchmarks/augmentation.py --quick    # says whether it runs

Processor time is that of the process, so that other programs on the machine hardly change it. Each row is the batches
of `crop` and `flip` and one thing more, images in memory; the first two rows are the step, and these alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from distail import create_method
from distail.config.augment import Augment, ColorJitter
from distail.config.training import Mix
from distail.data.batches import TrainingBatches
from distail.data.dataset import LabeledImages
from distail.models import FeatureTap, create_model
from distail.training.device import configure_malloc, select_device
from distail.training.step import TrainingStep

BATCH, CLASSES = 128, 100
BASE: tuple[Augment, ...] = ("crop", "flip")
EXTRAS: dict[str, tuple[tuple[Augment, ...], Mix | None]] = {
    "trivial_augment": ((*BASE, "trivial_augment"), None),
    "auto_augment": ((*BASE, "auto_augment"), None),
    "rand_augment": ((*BASE, "rand_augment"), None),
    "color_jitter": ((*BASE, "color_jitter"), None),
    "color_jitter with hue": ((*BASE, ColorJitter(hue=0.1)), None),
    "random_resized_crop for crop": (("random_resized_crop", "flip"), None),
    "cutout": ((*BASE, "cutout"), None),
    "random_erasing": ((*BASE, "random_erasing"), None),
    "cutmix of half": (BASE, Mix(name="cutmix")),
    "mixup of half": (BASE, Mix(name="mixup")),
}


def microseconds(work: Callable[[], int], repeats: int) -> float:
    """Of processor time an image: the median; `work` says how many images it was."""
    work()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        images = work()
        found.append((time.process_time() - start) / images * 1e6)
    return statistics.median(found)


def batches(side: int, augment: tuple[Augment, ...], mix: Mix | None) -> Callable[[], int]:
    images = torch.randint(0, 256, (2 * BATCH, 3, side, side), dtype=torch.uint8)
    data = LabeledImages(images, torch.arange(2 * BATCH) % CLASSES)
    made = TrainingBatches(
        data,
        batch_size=BATCH,
        mean=[0.5] * 3,
        std=[0.25] * 3,
        augment=augment,
        num_classes=CLASSES,
        seed=0,
        mix=mix,
        channels_last=True,
    )
    return lambda: sum(len(batch.labels) for batch in made.epoch(0))


def step_of_resnet20() -> Callable[[], int]:
    tap = FeatureTap(create_model("resnet20", num_classes=CLASSES), CLASSES).to(memory_format=torch.channels_last)
    step = TrainingStep(tap, create_method("ce", class_counts=[10] * CLASSES), select_device("cpu", "auto", 32))
    images = torch.randn(BATCH, 3, 32, 32).to(memory_format=torch.channels_last)
    target = torch.arange(BATCH) % CLASSES

    def work() -> int:
        loss, _ = step(images, target, target, None)
        loss.backward()
        return BATCH

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one repeat")
    repeats = 1 if parser.parse_args().quick else 7
    torch.set_num_threads(1)
    sides = (32, 224)
    cost: dict[str, dict[int, float]] = {"crop, flip": {}, **{name: {} for name in EXTRAS}}
    for side in sides:
        configure_malloc(side)
        cost["crop, flip"][side] = microseconds(batches(side, BASE, None), repeats)
        for name, (augment, mix) in EXTRAS.items():
            cost[name][side] = microseconds(batches(side, augment, mix), repeats) - cost["crop, flip"][side]
    configure_malloc(32)
    step = microseconds(step_of_resnet20(), repeats)
    print(f"Microseconds of processor time an image, one thread, batches of {BATCH}, torch {torch.__version__}\n")
    print("| | 32 pixels | of a ResNet-20 step | 224 pixels |\n|---|---:|---:|---:|")
    print(f"| ResNet-20, forward and backward | {step:,.0f} | | |")
    for name, by_side in cost.items():
        small, large = (by_side[side] for side in sides)
        more = "" if name == "crop, flip" else "+"
        print(f"| {name} | {more}{small:,.0f} | {100 * small / step:.1f} % | {more}{large:,.0f} |")


if __name__ == "__main__":
    main()
