"""A run of as many classes and test examples as iNaturalist 2018: what its figures and its page cost.

python benchmarks/many_classes.py FOLDER    # one epoch on vectors, then `distail report` and `distail evaluate`
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

CLASSES, FEATURES, TESTED = 8_142, 16, 3


def write(file: Path) -> None:
    """Vectors around a center a class; class sizes fall from 4,232 to 3."""
    draw = np.random.default_rng(0)
    shares = np.arange(1, CLASSES + 1) ** -0.8
    sizes = np.maximum(2, shares / shares.sum() * 109_378).astype(int)
    y = np.concatenate([np.repeat(np.arange(CLASSES), sizes), np.repeat(np.arange(CLASSES), TESTED)])
    centers = draw.normal(size=(CLASSES, FEATURES))
    x = (centers[y] + 0.3 * draw.normal(size=(len(y), FEATURES))).astype(np.float32)
    split = np.array(["train"] * sizes.sum() + ["test"] * (TESTED * CLASSES))
    np.savez(file, X=x, y=y, split=split, class_names=np.array([f"species {number}" for number in range(CLASSES)]))


def measured(command: list[str], folder: Path) -> str:
    """Seconds of one process, and the memory of its own: pages of files that it maps can be given back at any time."""
    process = subprocess.Popen([sys.executable, "-m", "distail", *command], cwd=folder, stdout=subprocess.DEVNULL)
    start, own = time.perf_counter(), 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        own = max([own, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))])
        time.sleep(0.02)
    if process.returncode:
        sys.exit(process.returncode)
    return f"{command[0]}: {time.perf_counter() - start:.0f} s, {own / 1024:,.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "many.npz")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    data = "data={name: arrays, root: many.npz}"
    training = "training={epochs: 1, batch_size: 256}"
    (folder / "many.yaml").write_text("name: many\nteacher: {model: mlp}\nstudent: mlp\nmethod: bkd\n")
    print(measured(["run", "many.yaml", data, training], folder))
    for verb in ("report", "evaluate"):
        print(measured([verb, "runs/many-seed0"], folder))


if __name__ == "__main__":
    main()
