"""How fast distilling is: ratios from one run, against a plain loop and against training the student alone.

    make bench                                   # about 9 minutes on two quiet cores
    python benchmarks/speed.py --quick           # says whether it runs, not how fast

See speed.md beside this file for what is measured and how to read it.
"""

from __future__ import annotations

import os

# As the command line does: threads that spin while they wait steal the cores from the loader's workers.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch

import reference_loop
from distail import create_method
from distail.config.schema import Schedule, Training
from distail.config.training import Mix
from distail.data.batches import Batch, TrainingBatches
from distail.data.dataset import LabeledImages
from distail.data.input_sources import noise_inputs
from distail.data.prepare import channel_statistics, prepare_data
from distail.models import FeatureTap, create_model
from distail.training.checkpoint import CheckpointFolder
from distail.training.device import RuntimeDevice, configure_malloc, select_device
from distail.training.frozen_teacher import frozen_teacher
from distail.training.history import History
from distail.training.loop import fit
from distail.training.predict import evaluation_batch_size
from distail.training.progress import Silent
from distail.training.stage import Stage
from distail.training.teacher_cache import TeacherCache

CLASSES, BATCH = 100, 128


@dataclass(frozen=True)
class Pair:
    """Teacher and student, and what is asked of them."""

    teacher: str
    student: str
    goal_over_reference: float
    goal_of_live: float

    def __str__(self) -> str:
        return f"{self.teacher} -> {self.student}"


PAIRS = (Pair("resnet56", "resnet20", 3.0, 0.66), Pair("resnet32", "resnet32", 2.1, 0.87))
GOAL_OVER_REFERENCE_ON_GPU, GOAL_OVER_ALONE, GOAL_OVER_BARE = 10.0, 0.90, 0.97
# Of a ResNet-20 step: at most a tenth more.
GOAL_OF_EXTRAS = 1 / 1.1


@dataclass
class Bench:
    """One pair on one machine: every way of training is a function that returns images per second."""

    pair: Pair
    data: LabeledImages
    runtime: RuntimeDevice
    method: str
    epochs: int
    views: int
    compile: bool
    watched: bool = False

    def reference(self) -> float:
        """The plain loop, one epoch."""
        student, teacher = (self._network(name, plain=True) for name in (self.pair.student, self.pair.teacher))
        start = time.perf_counter()
        reference_loop.train(student, teacher, self._loader, self.runtime.device)
        return len(self.data) / (time.perf_counter() - start)

    def bare(self) -> float:
        """The student alone over one random batch: no data, no augmentation, no statistics, a fused optimizer."""
        student = self._network(self.pair.student, plain=False)
        step = bare_step(student, self.runtime, torch.compile if self.compile else None)
        steps = self.epochs * -(-len(self.data) // BATCH)
        return steps * BATCH / timed(step, steps, self.runtime)

    def alone(self) -> float:
        """Our own cross-entropy, no teacher."""
        return self._fit("ce", self.epochs, teacher=False)

    def cached(self) -> float:
        """Distilling from stored views, their filling included."""
        return self._fit(self.method, self.epochs, views=self.views)

    def live(self) -> float:
        """Distilling from a teacher that is asked at every step."""
        return self._fit(self.method, max(1, self.epochs // 5))

    def trivial_augment(self) -> float:
        """The student alone, its images augmented once more."""
        return self._fit("ce", self.epochs, teacher=False, augment=("crop", "flip", "trivial_augment"))

    def cutmix(self) -> float:
        """The student alone, half of its images mixed."""
        return self._fit("ce", self.epochs, teacher=False, mix=Mix(name="cutmix", share=0.5))

    @property
    def extras(self) -> dict[str, Callable[[], float]]:
        """What costs the most beside the smaller student's step."""
        if self.pair.student != "resnet20":
            return {}
        return {"trivial_augment": self.trivial_augment, "cutmix": self.cutmix}

    @property
    def ways(self) -> dict[str, Callable[[], float]]:
        ours = {"bare": self.bare, "alone": self.alone, **self.extras, "cached": self.cached, "live": self.live}
        return {"reference": self.reference, **ours}

    @cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return channel_statistics(self.data)

    @cached_property
    def _loader(self) -> reference_loop.DataLoader:
        dataset = reference_loop.PngImages(self.data.images, self.data.labels, *self._statistics)
        return reference_loop.make_loader(dataset, BATCH)

    def _network(self, name: str, *, plain: bool) -> torch.nn.Module:
        torch.manual_seed(0)
        network = create_model(name, num_classes=CLASSES)
        if plain:
            return network.to(self.runtime.device)
        layout = torch.channels_last if self.runtime.channels_last else torch.contiguous_format
        return FeatureTap(network, CLASSES).to(self.runtime.device, memory_format=layout)

    def _fit(
        self,
        method: str,
        epochs: int,
        *,
        views: int = 0,
        teacher: bool = True,
        augment: tuple[str, ...] = ("crop", "flip"),
        mix: Mix | None = None,
    ) -> float:
        mean, std = self._statistics
        batches = TrainingBatches(
            self.data,
            batch_size=BATCH,
            mean=mean,
            std=std,
            augment=augment,
            num_classes=CLASSES,
            seed=0,
            views=views,
            mix=mix,
            device=self.runtime.device,
            channels_last=self.runtime.channels_last,
        )
        listen = None
        if teacher:
            size = evaluation_batch_size(self.data.image_shape) if views else BATCH
            network = self._network(self.pair.teacher, plain=False)
            examples = noise_inputs(self.data, 4)
            listen = frozen_teacher(
                network,
                self.runtime,
                size if self.compile else None,
                graph_sizes=() if views or self.watched else [BATCH],
                examples=examples,
            )
        with tempfile.TemporaryDirectory() as folder:
            cache = None
            if listen and views:
                cache = TeacherCache(listen, batches, self.runtime, features=False, limit_mb=2048, folder=Path(folder))
            stage = Stage(
                name="student",
                student=self._network(self.pair.student, plain=False),
                teacher=cache or listen,
                method=create_method(method, class_counts=[10] * CLASSES).to(self.runtime.device),
                batches=cast(TrainingBatches, Unwaiting(batches)) if self.watched else batches,
                validate=None,
                training=Training(
                    epochs=epochs, batch_size=BATCH, learning_rate=0.01, schedule=Schedule(name="constant"), mix=mix
                ),
                runtime=self.runtime,
                seed=0,
                compile=self.compile,
                cuda_graph=not self.watched,  # recording waits, once
                fill=cache.fill if cache else None,
            )
            history = History(Path(folder))
            fitted = fit(stage, CheckpointFolder(Path(folder) / "checkpoints"), history, Silent(), 10**9)
            history.close()
        return len(self.data) * epochs / fitted.seconds


def bare_step(
    student: torch.nn.Module, runtime: RuntimeDevice, wrap: Callable[[Any], Any] | None = None
) -> Callable[[], None]:
    """One training step of a tapped student over one random batch; `wrap` compiles its forward pass."""
    forward = (wrap or (lambda plain: plain))(student.train().forward)
    layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
    images = torch.randn(BATCH, 3, 32, 32, device=runtime.device).to(memory_format=layout)
    labels = torch.randint(CLASSES, (BATCH,), device=runtime.device)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)

    def step() -> None:
        with runtime.autocast():
            logits = forward(images).logits
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def timed(step: Callable[[], None], steps: int, runtime: RuntimeDevice) -> float:
    """The seconds of so many steps."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    if runtime.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


class Unwaiting:
    """Batches between whose first and last step nothing may make the host wait for the GPU: torch raises if it does."""

    def __init__(self, batches: TrainingBatches) -> None:
        self._batches = batches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        try:
            for step, batch in enumerate(self._batches.epoch(epoch, first_step), first_step + 1):
                torch.cuda.set_sync_debug_mode("error" if step < self._batches.steps_per_epoch else "default")
                yield batch
        finally:
            torch.cuda.set_sync_debug_mode("default")


def profile(bench: Bench) -> None:
    """Where the steps of our ways spend their time; on a GPU, that no step of an epoch waits."""
    on_gpu = bench.runtime.device.type == "cuda"
    sort_by = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    for name in ("alone", *bench.extras, "cached", "live"):
        bench.ways[name]()
        with torch.profiler.profile() as profiler:
            bench.ways[name]()
        print(f"\n{bench.pair}, {name}")
        print(profiler.key_averages().table(sort_by=sort_by, row_limit=20, max_name_column_width=45))
        if on_gpu:
            bench.watched = True
            bench.ways[name]()
            bench.watched = False
            print(f"{name}: no step of an epoch made the host wait")


def make_data(images: int, real: bool) -> LabeledImages:
    """CIFAR-100 where it is found and asked for, else smooth noise of its shape (which PNG packs as it does photos)."""
    if real:
        train = prepare_data("cifar100").train
        return train.subset(torch.arange(images) % len(train))
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(images, 3, 8, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=32, mode="bilinear")
    noisy = smooth * 224 + torch.rand(images, 3, 32, 32, generator=generator) * 16
    return LabeledImages(noisy.to(torch.uint8), torch.arange(images) % CLASSES)


def measure(bench: Bench, repeats: int) -> dict[str, list[float]]:
    """Images a second of every way, once a repeat, one after the other: what disturbs one disturbs its neighbors."""
    seen: dict[str, list[float]] = {name: [] for name in bench.ways}
    for repeat in range(repeats + 1):
        for name, way in bench.ways.items():
            speed = way()
            if repeat or repeats == 1:  # the first round warms up: workers start, libraries choose their kernels
                seen[name].append(speed)
        if repeats == 1:
            break
    return seen


def ratio(seen: dict[str, list[float]], above: str, below: str) -> float:
    """The median over the repeats of one way over another in the same repeat."""
    return statistics.median(one / other for one, other in zip(seen[above], seen[below], strict=True))


def report(pair: Pair, seen: dict[str, list[float]], goal: float) -> str:
    def spread(name: str) -> str:
        return f"{statistics.median(seen[name]):,.0f} ({min(seen[name]):,.0f} to {max(seen[name]):,.0f})"

    def judged(value: float, wanted: float) -> str:
        return f"{value:.2f} (goal {wanted:.2f}: {'met' if value >= wanted else 'missed'})"

    rows = {
        "reference loop, images/s": spread("reference"),
        "bare loop over one random batch": spread("bare"),
        "student alone (ce)": spread("alone"),
        "distilling, stored views": spread("cached"),
        "distilling, live teacher": spread("live"),
        "stored / reference": judged(ratio(seen, "cached", "reference"), goal),
        "stored / alone": judged(ratio(seen, "cached", "alone"), GOAL_OVER_ALONE),
        "live / reference": f"{ratio(seen, 'live', 'reference'):.2f}",
        "live / alone": judged(ratio(seen, "live", "alone"), pair.goal_of_live),
        "alone / bare": judged(ratio(seen, "alone", "bare"), GOAL_OVER_BARE),
        **{
            f"{name} / alone": judged(ratio(seen, name, "alone"), GOAL_OF_EXTRAS)
            for name in ("trivial_augment", "cutmix")
            if name in seen
        },
        "stored / reference, fastest of each": f"{max(seen['cached']) / max(seen['reference']):.2f}",
        "stored / alone, fastest of each": f"{max(seen['cached']) / max(seen['alone']):.2f}",
    }
    return "\n".join([f"\n{pair}", *(f"  {name:<36} {value}" for name, value in rows.items())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one repeat of a few steps")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, help="an epoch's images (1,024 on a CPU, 49,920 on a GPU)")
    parser.add_argument("--epochs", type=int, help="of our own training (10)")
    parser.add_argument("--views", type=int, default=1, help="stored views; a tenth of the epochs")
    parser.add_argument("--method", default="kd")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--compile", action="store_true", help="torch.compile for our own loops")
    parser.add_argument("--data", choices=("synthetic", "cifar100"), default="synthetic")
    parser.add_argument("--profile", action="store_true", help="where a step's time goes; on a GPU, that none waits")
    parser.add_argument("--json", type=Path, help="where to keep every single measurement")
    given = parser.parse_args()

    runtime = select_device(given.device, given.precision, 32)
    # As `distail run` does. It is for the whole process: the reference loop gains by it too.
    if runtime.device.type == "cpu":
        configure_malloc(32)
    on_gpu = runtime.device.type == "cuda"
    images = given.images or (BATCH if given.quick else 49_920 if on_gpu else 1_024)
    epochs = given.epochs or (2 if given.quick else 10)
    repeats = 1 if given.quick else given.repeats
    data = make_data(images, real=given.data == "cifar100")
    name = torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} CPU threads"
    print(
        f"{name}, torch {torch.__version__}, {runtime.precision}, {given.method}, batch {BATCH}, {images:,} images x "
        f"{epochs} epochs, {given.views} stored view{'s' * (given.views > 1)}, {repeats} repeats"
    )
    results = {}
    for pair in PAIRS:
        bench = Bench(pair, data, runtime, given.method, epochs, given.views, given.compile)
        if given.profile:
            profile(bench)
            continue
        seen = results[str(pair)] = measure(bench, repeats)
        print(report(pair, seen, GOAL_OVER_REFERENCE_ON_GPU if on_gpu else pair.goal_over_reference), flush=True)
    if given.json and results:
        given.json.write_text(json.dumps({"machine": name, "images_per_second": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
