"""A large file of answers as the teacher: made answers for a million images of 1,000 classes, the 32 largest each.

    python benchmarks/stored_answers.py --key path      # or id; --format parquet

Says how long the file is checked, how much memory that takes at most beyond what was used before (the mapped file's
pages, which the system takes back at need, among it), how much of it the process keeps, and how long a batch takes.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from distail.config.schema import Experiment
from distail.data.dataset import LabeledImages
from distail.data.prepare import PreparedData
from distail.runner.stored_teacher import open_stored_teacher

CLASSES, LARGEST, BATCH = 1000, 32, 128


def write(path: Path, key: str, count: int, names: np.ndarray | None) -> None:
    """Rows in another order than the images."""
    draw = np.random.default_rng(0)
    order = draw.permutation(count)
    values = np.sort(draw.random((count, LARGEST), np.float32), axis=1)[:, ::-1] / LARGEST
    first = draw.integers(0, CLASSES, (count, 1), dtype=np.int16)
    indices = (first + np.arange(LARGEST, dtype=np.int16)) % CLASSES
    arrays = {"values": np.ascontiguousarray(values), "indices": indices}
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        lists = {name: pa.FixedSizeListArray.from_arrays(each.ravel(), LARGEST) for name, each in arrays.items()}
        keys = pa.array(order if names is None else names[order].astype(str))
        pq.write_table(pa.table({**lists, key: keys}), path)
        return
    keys = order if names is None else names[order].view(np.uint8).reshape(count, -1)
    save_file({name: torch.from_numpy(each) for name, each in {**arrays, key: keys}.items()}, path)


def memory(field: str) -> float:
    """A figure of this process in MB (1e6 bytes); Linux."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--key", choices=("path", "id"), default="path")
    parser.add_argument("--format", choices=("safetensors", "parquet"), default="safetensors")
    parser.add_argument("--count", type=int, default=1_000_000)
    given = parser.parse_args()
    count = given.count
    names = np.char.mod("train/%04d/", np.arange(count) % CLASSES).astype("S") if given.key == "path" else None
    if names is not None:
        names = np.char.add(names, np.char.mod("%08d.jpeg", np.arange(count)).astype("S"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"answers.{given.format}"
        if not os.fork():  # what writing takes is not counted
            write(path, given.key, count, names)
            os._exit(0)
        os.wait()
        size = path.stat().st_size / 1e6
        pixels, labels = torch.zeros(count, 1, 1, 1, dtype=torch.uint8), torch.arange(count) % CLASSES
        data = PreparedData(
            train=LabeledImages(pixels, labels, names=names),
            validation=None,
            test=LabeledImages(pixels[:CLASSES], labels[:CLASSES]),
            class_names=tuple(map(str, range(CLASSES))),
            class_counts=(count // CLASSES,) * CLASSES,
            subset_sha256="0" * 64,
            validation_sha256=None,
            test_sha256="0" * 64,
            mean=(0.0,),
            std=(1.0,),
            train_rows=torch.arange(count),
            validation_rows=None,
        )
        experiment = Experiment.from_mapping(
            {"name": "made", "data": "digits", "teacher": {"logits": str(path)}, "student": "resnet8", "method": "kd"}
        )
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
        before, own, start = memory("VmRSS"), memory("RssAnon"), time.perf_counter()
        teacher = open_stored_teacher(experiment, data)
        seconds, peak, kept = time.perf_counter() - start, memory("VmHWM") - before, memory("RssAnon") - own
        batches = torch.randint(0, count, (50, BATCH))
        start = time.perf_counter()
        for batch in batches:
            teacher.answers.rows(teacher.matched.train[batch])
        each = (time.perf_counter() - start) / len(batches)
        print(f"{given.format} by {given.key}, {size:.0f} MB: checked in {seconds:.0f} s, at most {peak:.0f} MB more")
        print(f"of its own the process keeps {kept:.0f} MB; a batch of {BATCH} answers takes {1000 * each:.1f} ms")


if __name__ == "__main__":
    main()
