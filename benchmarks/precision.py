"""bf16 beside float32 on a CPU: what `trainer.precision: auto` takes for which networks, and whether it is right.

    python benchmarks/precision.py                             # every network of ours; about half an hour
    python benchmarks/precision.py resnet20 timm:resnet18      # these
    python benchmarks/precision.py --side 64 --quick           # other images; one repeat says whether it runs

Processor time of one thread, so that other programs on the machine hardly change it; the two formats take turns, and a
ratio (bf16 over float32) is that of the medians. A step is forward and backward with cross-entropy, looking is what a
teacher does. The last column is by how much a step in the format of `auto` is slower than in the faster one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional

from distail.models import create_model, list_models
from distail.training.device import RuntimeDevice, configure_malloc
from distail.training.precision import depthwise_share, faster_in_training

CLASSES = 100
FORMATS = ("fp32", "bf16")
CPU = torch.device("cpu")


def work(name: str, batch: int, side: int, precision: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """A training step and a look of one network in one number format."""
    runtime = RuntimeDevice(CPU, precision)
    torch.manual_seed(0)
    network = create_model(name, num_classes=CLASSES, image_size=side).to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, side, side).to(memory_format=torch.channels_last)
    target = torch.arange(batch) % CLASSES

    def step() -> None:
        network.train()
        with runtime.autocast():
            logits = network(images)
        functional.cross_entropy(logits.float(), target).backward()
        network.zero_grad()

    def look() -> None:
        network.eval()
        with torch.inference_mode(), runtime.autocast():
            network(images)

    return step, look


def medians(jobs: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Seconds of processor time of each, which take turns."""
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for repeat in range(repeats + 1):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            if repeat:  # the first round is for warming up
                found[name].append(time.process_time() - start)
    return {name: statistics.median(times) for name, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list_models(), help="by default all of ours")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--quick", action="store_true", help="one repeat")
    given = parser.parse_args()
    repeats = 1 if given.quick else 5
    torch.set_num_threads(1)
    configure_malloc(given.side)
    capability = torch.backends.cpu.get_cpu_capability()
    print(
        f"One thread, {given.batch} images of {given.side} pixels, torch {torch.__version__}, {capability}\n",
        flush=True,
    )
    print("| network | depthwise | step, fp32 (ms) | step, bf16 | looking, fp32 (ms) | looking, bf16 | auto | costs |")
    print("|---|---:|---:|---:|---:|---:|---|---:|", flush=True)
    for name in given.networks:
        step, look = zip(*(work(name, given.batch, given.side, each) for each in FORMATS), strict=True)
        stepped, looked = (medians(dict(zip(FORMATS, jobs, strict=True)), repeats) for jobs in (step, look))
        network = create_model(name, num_classes=CLASSES, image_size=given.side)
        chosen = faster_in_training(network, CPU)
        costs = stepped[chosen] / min(stepped.values()) - 1
        cells = [name, f"{100 * depthwise_share(network):.0f} %"]
        for found in (stepped, looked):
            cells += [f"{1000 * found['fp32']:,.0f}", f"{found['bf16'] / found['fp32']:.2f}"]
        print(f"| {' | '.join([*cells, chosen, f'{100 * costs:.0f} %'])} |", flush=True)


if __name__ == "__main__":
    main()
