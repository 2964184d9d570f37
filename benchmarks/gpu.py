"""All that needs a GPU, in under ten minutes: one JSON file and one table, for `make gpu`.

    make gpu                                     # writes build/gpu/gpu.json and gpu.md
    python benchmarks/gpu.py --data build/gpu/cifar100-lt.npz --output build/gpu
    python benchmarks/gpu.py --device cpu --quick    # says whether it runs, not how fast

Needs torch, numpy, pytest and what `distail` imports to train (speed.md says what a bare machine wants). What
does not fit the time, or fails, is said in the table; the rest goes on.

The data of the last part, CIFAR-100-LT at factor 100 and half of its test images as one file of arrays:

    python benchmarks/gpu.py --write-data build/gpu/cifar100-lt.npz    # from $DISTAIL_DATA/cifar100
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import speed
from distail import create_method
from distail.config.schema import Data, Experiment, Schedule
from distail.data.batches import TrainingBatches
from distail.data.dataset import LabeledImages
from distail.data.input_sources import noise_inputs
from distail.data.prepare import channel_statistics, prepare_data
from distail.evaluation.metrics import evaluate_predictions
from distail.methods.method import Method
from distail.models import FeatureTap, create_model
from distail.training.checkpoint import CheckpointFolder
from distail.training.device import RuntimeDevice, select_device
from distail.training.frozen_teacher import frozen_teacher
from distail.training.history import History
from distail.training.loop import fit
from distail.training.predict import predict
from distail.training.progress import Silent
from distail.training.stage import Fitted, Stage

ROOT = Path(__file__).parent
CLASSES, BATCH = 100, 128
# Steps by which it is known whether a training fits the time that is left.
TRIED = 40
# A checkpoint every 200 steps may take this share of training.
GOAL_OF_CHECKPOINTS = 0.02


@dataclass
class Report:
    """What was measured, part by part; written anew after each, so that a machine that is taken away leaves it."""

    folder: Path
    deadline: float
    parts: dict[str, Any] = field(default_factory=dict)
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def part(self, name: str, needs: float, measure: Callable[[], list[tuple[str, str]]]) -> None:
        """One part; its rows are (what, value). `needs` are the seconds without which it is not begun."""
        start = time.monotonic()
        if self.seconds_left < needs:
            rows = [("left out", f"{self.seconds_left:.0f} s are left, it needs {needs:.0f}")]
        else:
            try:
                rows = measure()
            except Exception as error:  # the others are worth having all the same
                rows = [("failed", f"{type(error).__name__}: {error}"[:300])]
        self.parts[name] = {**dict(rows), "seconds": round(time.monotonic() - start, 1)}
        self.rows += [(name if place == 0 else "", what, value) for place, (what, value) in enumerate(rows)]
        for what, value in rows:
            print(f"{name}: {what}: {value}", flush=True)
        self.write()

    def write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "gpu.json").write_text(json.dumps(self.parts, indent=2) + "\n")
        lines = ["| part | what | measured |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in self.rows)]
        (self.folder / "gpu.md").write_text("\n".join(lines) + "\n")


def tests(quick: bool, seconds: float) -> list[tuple[str, str]]:
    """The tests that are marked `gpu`: none is skipped where there is one."""
    chosen = [ROOT.parent / "tests" / name for name in ("training", "data")]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-o", "addopts=", "-p", "no:warnings", *map(str, chosen)]
    done = subprocess.run(
        command + (["--collect-only"] if quick else []),
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=ROOT.parent,
    )
    last = done.stdout.strip().splitlines()[-1:]
    failed = [line[:200] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return [("pytest -m gpu", " ".join(last) or f"exit code {done.returncode}"), *(("", line) for line in failed[:10])]


def ratios(bench: speed.Bench, repeats: int, goal: float) -> list[tuple[str, str]]:
    """The ratios of `make bench`, with the goal for a GPU."""
    seen = speed.measure(bench, repeats)
    lines = speed.report(bench.pair, seen, goal).strip().splitlines()[1:]
    return [
        (f"{bench.pair}: {name}", value)
        for name, value in (re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in lines)
    ]


def no_wait(bench: speed.Bench) -> list[tuple[str, str]]:
    """That no step of an epoch makes the host wait: torch raises if one does."""
    bench.watched = bench.runtime.device.type == "cuda"
    for name in ("alone", *bench.extras, "cached", "live"):
        bench.ways[name]()
    bench.watched = False
    return [("no step of an epoch waits", "shown" if bench.runtime.device.type == "cuda" else "not on a CPU")]


def compiled(runtime: RuntimeDevice, steps: int) -> list[tuple[str, str]]:
    """The student's step over one random batch: as it is, compiled, and compiled with CUDA graphs."""
    modes: dict[str, Callable[[Any], Any]] = {"eager": lambda forward: forward, "compiled": torch.compile}
    if runtime.device.type == "cuda":
        modes["CUDA graphs"] = lambda forward: torch.compile(forward, mode="reduce-overhead")
    seconds, rows = {}, []
    for name, wrap in modes.items():
        step = speed.bare_step(_network("resnet32", runtime), runtime, wrap)
        first = speed.timed(step, 3, runtime)
        seconds[name] = speed.timed(step, steps, runtime) / steps
        faster = f", {seconds['eager'] / seconds[name]:.2f} times as fast, first steps {first:.0f} s"
        rows.append((f"resnet32, {name}", f"{1000 * seconds[name]:.2f} ms per step{faster if name != 'eager' else ''}"))
    return rows


def checkpoints(runtime: RuntimeDevice, data: LabeledImages, epochs: int) -> list[tuple[str, str]]:
    """The same training with a checkpoint every 200 steps and with one at its end."""
    every = {steps: [] for steps in (200, 10**9)}
    for _ in range(3):
        for steps, seen in every.items():
            seen.append(
                _train(
                    runtime, data, "resnet32", create_method("ce", class_counts=[10] * CLASSES), epochs, every=steps
                )[1].seconds
            )
    often, once = (statistics.median(seen) for seen in every.values())
    share = often / once - 1
    verdict = "met" if share <= GOAL_OF_CHECKPOINTS else "missed"
    return [
        (
            "a checkpoint every 200 steps costs",
            f"{100 * share:.1f} % of training (goal {100 * GOAL_OF_CHECKPOINTS:.0f} %: {verdict})",
        )
    ]


def student(runtime: RuntimeDevice, file: Path, epochs: int, report: Report) -> list[tuple[str, str]]:
    """CIFAR-100-LT, factor 100, the recipe: a teacher, and a ResNet-32 distilled from it; time and top-1."""
    train, test, counts = _read(file)
    expected = _expected_seconds(runtime, train, epochs)
    if report.seconds_left < expected:
        return [("left out", f"{report.seconds_left:.0f} s are left, {epochs} epochs would take {expected:.0f}")]
    rows, teacher = [], None
    for name, method in (("teacher (ce)", "ce"), ("student (distail)", "distail")):
        network, fitted = _train(
            runtime, train, "resnet32", create_method(method, class_counts=counts), epochs, teacher=teacher, every=10**9
        )
        mean, std = channel_statistics(train)
        found = evaluate_predictions(predict(network, test, mean, std, runtime), test.labels, counts)
        rows.append((f"{name}, {epochs} epochs", f"{found['top1']:.1f} % top-1 in {fitted.seconds:.0f} s"))
        if method == "ce" and report.seconds_left < 1.6 * fitted.seconds:
            return [*rows, ("student", f"left out: {report.seconds_left:.0f} s are left")]
        teacher = network
    return rows


def _expected_seconds(runtime: RuntimeDevice, data: LabeledImages, epochs: int) -> float:
    """What training a network without a teacher would take, by some steps after as many that do not count."""
    some = data.subset(torch.arange(min(len(data), TRIED * BATCH)))
    for _ in range(2):
        _, fitted = _train(runtime, some, "resnet32", create_method("ce", class_counts=[10] * CLASSES), 1, every=10**9)
    return fitted.seconds * epochs * len(data) / len(some)


def _train(
    runtime: RuntimeDevice,
    data: LabeledImages,
    name: str,
    method: Method,
    epochs: int,
    *,
    teacher: FeatureTap | None = None,
    every: int,
) -> tuple[FeatureTap, Fitted]:
    mean, std = channel_statistics(data)
    network = _network(name, runtime)
    recipe = Experiment.from_yaml(ROOT.parent / "configs" / "cifar100-lt-100-recipe.yaml")
    schedule = Schedule(name="cosine", warmup_epochs=min(5, epochs - 1))
    mix = recipe.training.mix if teacher else None
    training = recipe.training.model_copy(update={"epochs": epochs, "schedule": schedule, "mix": mix})
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(
            name="student",
            student=network,
            teacher=frozen_teacher(teacher, runtime, graph_sizes=[BATCH], examples=noise_inputs(data, 4))
            if teacher
            else None,
            method=method.to(runtime.device),
            batches=TrainingBatches(
                data,
                batch_size=BATCH,
                mean=mean,
                std=std,
                augment=recipe.data.augment,
                num_classes=CLASSES,
                seed=0,
                mix=mix,
                device=runtime.device,
                channels_last=runtime.channels_last,
            ),
            validate=None,
            training=training,
            runtime=runtime,
            seed=0,
            cuda_graph=True,
        )
        history = History(Path(folder))
        fitted = fit(stage, CheckpointFolder(Path(folder) / "checkpoints"), history, Silent(), every)
        history.close()
    return network, fitted


def _network(name: str, runtime: RuntimeDevice) -> FeatureTap:
    layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
    torch.manual_seed(0)
    return FeatureTap(create_model(name, num_classes=CLASSES), CLASSES).to(runtime.device, memory_format=layout)


def _read(file: Path) -> tuple[LabeledImages, LabeledImages, list[int]]:
    with np.load(file) as stored:
        sets = [
            LabeledImages(torch.from_numpy(stored[f"{name}_images"]), torch.from_numpy(stored[f"{name}_labels"]))
            for name in ("train", "test")
        ]
    return sets[0], sets[1], torch.bincount(sets[0].labels, minlength=CLASSES).tolist()


def write_data(file: Path) -> None:
    """The long-tailed training images and every other test image, as arrays: small enough to be sent somewhere."""
    data = prepare_data(Data(name="cifar100", imbalance_factor=100, profile="exp", validation=0), seed=0)
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for name, images in (("train", data.train), ("test", data.test)):
        assert isinstance(images, LabeledImages)
        kept = images if name == "train" else images.subset(torch.arange(0, len(images), 2))
        arrays |= {f"{name}_images": kept.images.numpy(), f"{name}_labels": kept.labels.numpy()}
    np.savez_compressed(file, **arrays)
    print(f"{file}: {file.stat().st_size / 2**20:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="a few steps of everything")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--data", type=Path, help="the file that --write-data wrote")
    parser.add_argument("--output", type=Path, default=ROOT.parent / "build" / "gpu")
    parser.add_argument("--write-data", type=Path)
    given = parser.parse_args()
    if given.write_data:
        write_data(given.write_data)
        return
    runtime = select_device(given.device, "auto", 32)
    on_gpu = runtime.device.type == "cuda"
    if not on_gpu and not given.quick:
        parser.error("there is no GPU here; `--device cpu --quick` says whether everything runs")
    report = Report(given.output, time.monotonic() + 60 * given.minutes)
    quick = given.quick
    images = speed.make_data(BATCH if quick else 12_800, real=False)
    benches = [speed.Bench(pair, images, runtime, "kd", 1 if quick else 2, 1, compile=False) for pair in speed.PAIRS]
    name = torch.cuda.get_device_name() if on_gpu else "CPU"
    report.part(
        "machine", 0, lambda: [("device", name), ("torch", torch.__version__), ("precision", runtime.precision)]
    )
    report.part("tests", 60, lambda: tests(quick, report.seconds_left))
    for bench in benches[: 1 if quick else None]:
        report.part(
            f"speed, {bench.pair}",
            60,
            lambda bench=bench: ratios(bench, 1 if quick else 2, speed.GOAL_OVER_REFERENCE_ON_GPU),
        )
    report.part("waiting", 30, lambda: no_wait(benches[0]))
    report.part("compiling", 60, lambda: compiled(runtime, 2 if quick else 200))
    report.part("checkpoints", 30, lambda: checkpoints(runtime, images, 1 if quick else 5))
    if given.data is not None:
        report.part("CIFAR-100-LT", 60, lambda: student(runtime, given.data, 1 if quick else 200, report))
    else:
        report.part("CIFAR-100-LT", 0, lambda: [("left out", "no --data")])


if __name__ == "__main__":
    main()
