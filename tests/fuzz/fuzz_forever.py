"""Coverage-guided fuzzing of every reader of a user's file, with atheris: ``make fuzz``.

``python tests/fuzz/fuzz_forever.py`` lists the targets; ``... TARGET -max_total_time=60`` runs one, with libFuzzer's
options. An input that ends in anything but one of distail's own errors is kept as ``crash-*``; atheris has wheels for
some versions of Python only, which is why the test suite does its own, shorter, fuzzing with hypothesis.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import sys
import tarfile
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris
import pyarrow
import pyarrow.parquet
import safetensors.torch
import torch
from PIL import Image

with atheris.instrument_imports(include=["distail", "yaml"]):
    from distail.config.reading import read_yaml
    from distail.config.schema import Data, Experiment
    from distail.data.image_file import UnreadableImage, read_pixels
    from distail.data.sources.cifar_formats import CIFAR100_BINARY, load_binary
    from distail.data.sources.fashion_mnist import parse_idx
    from distail.data.sources.manifest import load_manifest
    from distail.data.sources.parquet import _read as read_parquet
    from distail.errors import ConfigError, DataError, DistailError
    from distail.evaluation.predictions import load_predictions
    from distail.models.weights import read_metadata

FOLDER = Path(tempfile.mkdtemp(prefix="distail-fuzz-"))


def stored(name: str, data: bytes) -> Path:
    path = FOLDER / name
    path.write_bytes(data)
    return path


def config(data: bytes) -> None:
    with contextlib.suppress(ConfigError):
        Experiment.from_mapping(read_yaml(stored("experiment.yaml", data)))


def image(data: bytes) -> None:
    with contextlib.suppress(UnreadableImage):
        read_pixels(data, None if len(data) % 2 else 16)


def idx(data: bytes) -> None:
    with contextlib.suppress(DataError):
        parse_idx(data, "labels", 1 + 2 * (len(data) % 2))


def archive(data: bytes) -> None:
    with contextlib.suppress(DataError):
        load_binary(stored(CIFAR100_BINARY.archive, gzip.compress(data, 1)), CIFAR100_BINARY, ("a", "b"))


def parquet(data: bytes) -> None:
    with contextlib.suppress(DataError):
        read_parquet([stored("train.parquet", data)])


def manifest(data: bytes) -> None:
    with contextlib.suppress(DataError):
        load_manifest(Data(name="csv", root=stored("list.csv", data), stream="never"))


def tensors(data: bytes) -> None:
    path = stored("predictions.safetensors", data)
    for read in (read_metadata, load_predictions):
        with contextlib.suppress(DistailError):
            read(path)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (config, image, idx, archive, parquet, manifest, tensors)
}


def pictures() -> list[bytes]:
    seeds = []
    for kind, mode in (("PNG", "RGB"), ("PNG", "P"), ("JPEG", "CMYK"), ("GIF", "P"), ("TIFF", "RGB"), ("WEBP", "RGB")):
        file = io.BytesIO()
        Image.new(mode, (5, 4), 7).save(file, kind)
        seeds.append(file.getvalue())
    return seeds


def tables() -> list[bytes]:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"img": pictures()[:2], "label": [0, 1]}), file)
    return [file.getvalue()]


def archives() -> list[bytes]:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in CIFAR100_BINARY.files:
            member = tarfile.TarInfo(name)
            member.size = 3074
            tar.addfile(member, io.BytesIO(bytes(3074)))
    return [file.getvalue()]


SEEDS: dict[str, list[bytes]] = {
    "config": [
        b"name: x\nseed: 1\ndata: {name: digits}\nstudent: resnet8\nmethod: {name: bkd, beta: 1e-3}\nteacher: &a same"
    ],
    "image": pictures(),
    "idx": [bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 5])],
    "archive": archives(),
    "parquet": tables(),
    "manifest": [b'path,label,split\r\n"a.png",x,train\r\n', b"\xef\xbb\xbflabel;path\n1;b.png\n"],
    "tensors": [
        safetensors.torch.save({"logits": torch.zeros(2, 3), "target": torch.zeros(2).long()}, {"class_names": "[]"})
    ],
}


def main(arguments: list[str]) -> None:
    if len(arguments) < 2 or arguments[1] not in TARGETS:
        print("\n".join(TARGETS))
        return
    warnings.simplefilter("ignore")
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS[arguments[1]]):
        stored(f"corpus/{number}", seed)
    atheris.SlotSetup([arguments[0], *arguments[2:], str(corpus)], TARGETS[arguments[1]])
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
