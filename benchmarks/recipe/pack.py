"""CIFAR-100 as small as a machine takes it that is lent for minutes: lossless WebP, only the images that are drawn.

    python benchmarks/recipe/pack.py build/recipe           # here, from $DISTAIL_DATA/cifar100: 47 MB
    python benchmarks/recipe/pack.py build/recipe --unpack /tmp/data    # there: DISTAIL_DATA=/tmp/data

Unpacked, the training file has all 50,000 rows, those that no subset below draws as black images: the same
configuration and seed draw the same rows, with the same hash.
"""

from __future__ import annotations

import argparse
import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SUBSETS = ((100, 0), (100, 1), (100, 2), (50, 0))  # imbalance factor and seed


def pack(folder: Path) -> None:
    from distail.config.schema import Data
    from distail.data.prepare import prepare_data

    folder.mkdir(parents=True, exist_ok=True)
    source = Path(os.environ["DISTAIL_DATA"]) / "cifar100"
    train, test = (pq.read_table(source / f"{name}.parquet") for name in ("train", "test"))
    pixels = [_pixels(row["bytes"]).tobytes() for row in train.column("img").to_pylist()]
    rows_of: dict[bytes, list[int]] = {}
    for row, image in enumerate(pixels):
        rows_of.setdefault(image, []).append(row)
    kept: set[int] = set()
    for factor, seed in SUBSETS:
        drawn = prepare_data(Data(name="cifar100", imbalance_factor=factor, profile="exp", validation=0), seed=seed)
        for image in drawn.train.images.permute(0, 2, 3, 1).contiguous().numpy():
            kept |= {*rows_of[image.tobytes()]}
    rows = np.array(sorted(kept), dtype=np.int32)
    labels = np.array(train.column("fine_label").to_pylist(), dtype=np.uint8)
    np.savez_compressed(folder / "rows.npz", rows=rows, labels=labels)
    (folder / "names.json").write_bytes(train.schema.metadata[b"huggingface"])
    _write([train.column("img")[int(row)].as_py()["bytes"] for row in rows], labels[rows], folder / "train.parquet")
    images = [row["bytes"] for row in test.column("img").to_pylist()]
    _write(images, test.column("fine_label").to_pylist(), folder / "test.parquet")


def unpack(folder: Path, data: Path) -> None:
    (data / "cifar100").mkdir(parents=True, exist_ok=True)
    black = io.BytesIO()
    Image.new("RGB", (32, 32)).save(black, "PNG")
    with np.load(folder / "rows.npz") as stored:
        rows, labels = stored["rows"], stored["labels"].astype(np.int64)
    images = [black.getvalue()] * len(labels)
    for row, image in zip(rows, pq.read_table(folder / "train.parquet").column("image").to_pylist(), strict=True):
        images[row] = image
    test = pq.read_table(folder / "test.parquet")
    for name, of_images, of_labels in (
        ("train", images, labels),
        ("test", test.column("image").to_pylist(), test.column("label").to_pylist()),
    ):
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        cells = pa.array([{"bytes": each, "path": None} for each in of_images], kind)
        table = pa.table({"img": cells, "fine_label": pa.array(of_labels, pa.int64())})
        table = table.replace_schema_metadata({"huggingface": (folder / "names.json").read_text()})
        pq.write_table(table, data / "cifar100" / f"{name}.parquet", compression="none")


def _pixels(image: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))


def _write(images: list[bytes], labels: object, file: Path) -> None:
    packed = []
    for image in images:
        small = io.BytesIO()
        Image.fromarray(_pixels(image)).save(small, "WEBP", lossless=True, quality=70, method=4, exact=True)
        packed.append(small.getvalue())
    table = pa.table({"image": pa.array(packed, pa.binary()), "label": pa.array(labels, pa.int64())})
    pq.write_table(table, file, compression="none")
    print(f"{file}: {len(packed):,} images, {file.stat().st_size / 2**20:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--unpack", type=Path, help="where to make cifar100/")
    given = parser.parse_args()
    if given.unpack:
        unpack(given.folder, given.unpack)
    else:
        pack(given.folder)


if __name__ == "__main__":
    main()
