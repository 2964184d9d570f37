"""What `distail.training.device.configure_malloc` saves: page faults and processor time of one training step.

    python benchmarks/page_faults.py

Processor time (user and system) is that of the process, so that other programs on the machine hardly change it.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import resource
import statistics

import torch

from distail import Outputs, create_method
from distail.models import FeatureTap, create_model
from distail.training.device import configure_malloc, select_device
from distail.training.step import TrainingStep

BATCH, CLASSES, STEPS, WARM_UP = 128, 100, 20, 3


def main() -> None:
    runtime = select_device("cpu", "auto", 32)
    tap = FeatureTap(create_model("resnet20", num_classes=CLASSES), CLASSES).to(memory_format=torch.channels_last)
    step = TrainingStep(tap, create_method("kd", class_counts=[10] * CLASSES), runtime)
    images = torch.randn(BATCH, 3, 32, 32).to(memory_format=torch.channels_last)
    target, teacher = torch.arange(BATCH) % CLASSES, Outputs(torch.randn(BATCH, CLASSES))

    def cost() -> tuple[float, float, int]:
        before = resource.getrusage(resource.RUSAGE_SELF)
        loss, _ = step(images, target, None, teacher)
        loss.backward()
        after = resource.getrusage(resource.RUSAGE_SELF)
        step.zero_grad()
        user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
        return user * 1e3, system * 1e3, after.ru_minflt - before.ru_minflt

    def report(name: str) -> None:
        costs = [cost() for _ in range(WARM_UP + STEPS)][WARM_UP:]
        user, system, faults = (statistics.median(column) for column in zip(*costs, strict=True))
        print(f"{name:<24} user {user:6.0f} ms  system {system:5.0f} ms  page faults {faults:7,.0f}", flush=True)

    print(f"ResNet-20, batch {BATCH}, {runtime.precision}, {torch.get_num_threads()} threads, medians of {STEPS} steps")
    report("as the C library does")
    print("kept" if configure_malloc(32) else "this C library cannot be told to keep memory")
    report("freed memory kept")


if __name__ == "__main__":
    main()
