"""Images that stay on disk: how fast batches come, against bare Pillow, and how much memory that takes.

    python benchmarks/streaming.py                # 20,000 images, about 10 minutes on two quiet cores
    python benchmarks/streaming.py --quick        # 500 images: says whether it runs, not how fast

Makes a tree of JPEG class folders in a temporary folder, which is removed at the end. Ways of going once through the
training images, taken in turns, with the same number of worker processes and the same batch size:

- bare loop: a DataLoader whose items open, convert, resize and cut one image with Pillow and make a tensor of it
- bare decoding: processes that do the same and throw the pixels away: the speed of Pillow itself
- distail, pixels: the same batches of pixels as the bare loop's, on the training device
- distail: the same images as training sees them: crops, flips and normalized floats as well
- distail, trivial_augment and distail, cutmix: these as well, on all images and on half of them

Prints the median images per second of each, ratios of rounds side by side, and the largest memory (proportional set
size of this process and its workers together) while all images, and while a quarter of them, went through.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the command line does

import argparse
import io
import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from distail.config.training import Mix
from distail.data.batches import TrainingBatches
from distail.data.dataset import StreamedImages
from distail.data.prepare import PreparedData, prepare_data
from distail.data.streaming import ImageStream
from distail.training.device import configure_malloc

CLASSES, BATCH, MEGABYTE = 20, 128, 2**20
# Pictures that differ; more files would decode no differently, and take long to make.
PICTURES = 400
SIZES = ((256, 256), (341, 256), (256, 320))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000, help="training images (a quarter as many test images)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--quick", action="store_true", help="500 images, one round")
    options = parser.parse_args()
    images, rounds = (500, 1) if options.quick else (options.images, options.rounds)
    configure_malloc(options.side)  # as every run on a CPU does
    with tempfile.TemporaryDirectory(prefix="distail-streaming-") as folder:
        os.environ["DISTAIL_CACHE"] = str(Path(folder) / "cache")
        root = Path(folder) / "tree"
        file_bytes = make_tree(root, images)
        start = time.perf_counter()
        data = prepare_data("folder", root=root, image_size=options.side, stream="always", workers=options.workers)
        checking = (len(data.train) + len(data.test)) / (time.perf_counter() - start)
        report(data, root, options.workers, options.side, rounds, checking, file_bytes)


def make_tree(root: Path, images: int) -> int:
    """Class folders of JPEGs, a fifth of them for the test; the bytes of an average file."""
    draw = np.random.default_rng(0)
    pictures = [picture(draw, *SIZES[number % len(SIZES)]) for number in range(PICTURES)]
    for split, count in (("train", images), ("test", images // 4)):
        for label in range(CLASSES):
            (root / split / f"{label:02}").mkdir(parents=True)
        for number in range(count):
            (root / split / f"{number % CLASSES:02}" / f"{number:06}.jpg").write_bytes(pictures[number % PICTURES])
    return sum(map(len, pictures)) // PICTURES


def picture(draw: np.random.Generator, width: int, height: int) -> bytes:
    """Blobs of many sizes and some grain: about as many bytes as a photograph has."""
    levels = np.zeros((height, width, 3))
    for cell, weight in ((64, 0.45), (16, 0.3), (4, 0.15), (1, 0.1)):
        grid = draw.integers(0, 256, (max(2, height // cell), max(2, width // cell), 3), dtype=np.uint8)
        levels += weight * np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))
    file = io.BytesIO()
    Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()


def bare(path: str, side: int) -> np.ndarray:
    """What everybody writes: open, convert, resize the shorter side, cut the center."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    scale = side / min(image.size)
    image = image.resize(
        (max(side, round(image.width * scale)), max(side, round(image.height * scale))), Image.Resampling.BILINEAR
    )
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.array(image.crop((left, top, left + side, top + side)))


class BareImages(Dataset):  # type: ignore[type-arg]
    def __init__(self, paths: list[str], side: int) -> None:
        self.paths, self.side = paths, side

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> torch.Tensor:
        return torch.from_numpy(bare(self.paths[row], self.side)).permute(2, 0, 1).contiguous()


def bare_and_gone(job: tuple[list[str], int]) -> int:
    paths, side = job
    return sum(bare(path, side).shape[0] > 0 for path in paths)


class Ways:
    """Each way is a function that goes through all training images once; processes have been started before."""

    def __init__(self, data: PreparedData, root: Path, workers: int, side: int) -> None:
        assert isinstance(data.train, StreamedImages)
        self.data, self.side = data, side
        self.paths = [str(root / os.fsdecode(name)) for name in data.train.names]
        self.loader = DataLoader(
            BareImages(self.paths, side), BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
        )
        self.pool = multiprocessing.get_context("fork").Pool(workers)
        self.stream = ImageStream(data.train, BATCH)
        self.batches = {
            "distail": image_batches(data),
            "distail, trivial_augment": image_batches(data, augment=("crop", "flip", "trivial_augment")),
            "distail, cutmix": image_batches(data, mix=Mix(name="cutmix", share=0.5)),
        }
        self.epoch = 0

    def bare_loop(self) -> int:
        return sum(len(images) for images in self.loader)

    def bare_decoding(self) -> int:
        jobs = [(self.paths[first : first + 32], self.side) for first in range(0, len(self.paths), 32)]
        return sum(self.pool.imap_unordered(bare_and_gone, jobs))

    def pixels(self) -> int:
        order = torch.randperm(len(self.paths))
        return sum(len(images) for images in self.stream.batches(order.split(BATCH)))

    def distail(self, name: str) -> int:
        self.epoch += 1
        return sum(len(batch.labels) for batch in self.batches[name].epoch(self.epoch))

    def ways(self) -> dict[str, Callable[[], int]]:
        return {
            "bare loop": self.bare_loop,
            "bare decoding": self.bare_decoding,
            "distail, pixels": self.pixels,
            **{name: partial(self.distail, name) for name in self.batches},
        }

    def close(self) -> None:
        self.pool.terminate()
        self.stream.close()
        for batches in self.batches.values():
            batches.close()


def image_batches(
    data: PreparedData, *, augment: tuple[str, ...] = ("crop", "flip"), mix: Mix | None = None
) -> TrainingBatches:
    return TrainingBatches(
        data.train,
        batch_size=BATCH,
        mean=data.mean,
        std=data.std,
        augment=augment,
        num_classes=CLASSES,
        seed=0,
        mix=mix,
        channels_last=True,
    )


@contextmanager
def largest_memory() -> Iterator[Callable[[], float]]:
    """The largest proportional set size, in megabytes, of this process and its children since the block began."""
    largest, done = 0, threading.Event()
    process = psutil.Process()

    def watch() -> None:
        nonlocal largest
        while not done.wait(0.1):
            total = 0
            for one in [process, *process.children()]:
                try:
                    total += one.memory_full_info().pss
                except psutil.Error:
                    continue
            largest = max(largest, total)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: largest / MEGABYTE
    finally:
        done.set()
        watcher.join()


def memory_of(data: PreparedData) -> float:
    batches = image_batches(data)
    with largest_memory() as largest:
        for _ in batches.epoch(0):
            pass
        found = largest()
    batches.close()
    return found


def report(
    data: PreparedData, root: Path, workers: int, side: int, rounds: int, checking: float, file_bytes: int
) -> None:
    count = len(data.train)
    with largest_memory() as before:
        time.sleep(0.5)
        at_rest = before()
    quarter = PreparedData(**{**vars(data), "train": data.train.subset(torch.arange(0, count, 4))})
    # The smaller first: what a process once had, it may keep.
    peaks = {len(quarter.train): memory_of(quarter), count: memory_of(data)}
    ways = Ways(data, root, workers, side)
    rates: dict[str, list[float]] = {name: [] for name in ways.ways()}
    for number in range(rounds + 1):
        for name, way in ways.ways().items():
            start = time.perf_counter()
            assert way() == count
            # The first round starts the processes and fills the system's cache of files.
            if number:
                rates[name].append(count / (time.perf_counter() - start))
    ways.close()
    print(
        f"{count:,} JPEGs of about {file_bytes / 1024:.0f} KB at {' and '.join(f'{w}x{h}' for w, h in SIZES)}, to "
        f"{side} x {side}; {workers} worker processes, batches of {BATCH}, {rounds} rounds, "
        f"torch {torch.__version__}, Pillow {Image.__version__}\n"
    )
    rows: Iterable[tuple[str, ...]] = [
        (
            name,
            f"{statistics.median(found):,.0f}",
            f"{min(found):,.0f} to {max(found):,.0f}",
            f"{ratio(rates, name, 'bare loop'):.2f}",
            f"{ratio(rates, name, 'bare decoding'):.2f}",
        )
        for name, found in rates.items()
    ]
    table(("way", "images/s (median)", "range", "to the bare loop", "to bare decoding"), rows)
    print(f"\nThe first look at every file (once, then kept in the cache): {checking:,.0f} images/s.\n")
    decoded = count * int(np.prod(data.train.image_shape)) / MEGABYTE
    table(
        ("memory of all processes together", "MB"),
        [
            ("before the first batch", f"{at_rest:,.0f}"),
            *((f"largest while {images:,} images went through", f"{peak:,.0f}") for images, peak in peaks.items()),
            ("the training images decoded would take", f"{decoded:,.0f}"),
        ],
    )


def ratio(rates: dict[str, list[float]], one: str, other: str) -> float:
    return statistics.median(a / b for a, b in zip(rates[one], rates[other], strict=True))


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    print("| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
