"""A list of as many images and classes as iNaturalist 2018: how long it takes to read, and how much memory.

python benchmarks/large_list.py FOLDER            # writes 440,000 tiny images and two lists there, and plans a run
python benchmarks/large_list.py FOLDER --images 44000 --classes 814    # a tenth
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import time
from pathlib import Path

import numpy as np
from PIL import Image

from distail.runner.plan import plan_run


def write(folder: Path, images: int, classes: int) -> None:
    """Images of their own, one class folder each, class sizes falling exponentially; every twentieth a test image."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "png")
    shares = 0.001 ** (np.arange(classes) / classes)
    sizes = np.maximum(3, np.floor(shares / shares.sum() * images).astype(int))
    lines: dict[str, list[str]] = {"train": [], "test": []}
    written = 0
    for label, size in enumerate(sizes.tolist()):
        (folder / "images" / f"{label:05}").mkdir(parents=True)
        for number in range(size):
            name = f"{label:05}/{number}.png"
            # What follows the last chunk of a PNG is no part of the image, and makes each file another one.
            (folder / "images" / name).write_bytes(buffer.getvalue() + written.to_bytes(4, "big"))
            lines["test" if number == 1 else "train"].append(f"{name} {label}")
            written += 1
    for split, rows in lines.items():
        (folder / f"{split}.txt").write_text("\n".join(rows) + "\n")
    print(f"{written:,} images of {classes:,} classes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=440_000)
    parser.add_argument("--classes", type=int, default=8_142)
    given = parser.parse_args()
    if not (given.folder / "test.txt").is_file():
        write(given.folder, given.images, given.classes)
    os.environ.setdefault("DISTAIL_CACHE", str(given.folder / "cache"))
    data = {"name": "list", "root": given.folder / "images", "validation": 0.02, "stream": "always"}
    data |= {split: given.folder / f"{split}.txt" for split in ("train", "test")}
    config = {"name": "large-list", "data": data, "student": "resnet8", "method": "ce", "training": {"epochs": 1}}
    start, used = time.perf_counter(), os.times()
    plan = plan_run({**config, "output": given.folder / "run"})
    seconds, now = time.perf_counter() - start, os.times()
    processor = sum(now[:4]) - sum(used[:4])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{len(plan.data.train):,} training images: planned in {seconds:.0f} s, {processor:.0f} s of processor time")
    print(f"peak memory {peak:,.0f} MiB, of the largest process that decodes {children:,.0f} MiB")


if __name__ == "__main__":
    main()
