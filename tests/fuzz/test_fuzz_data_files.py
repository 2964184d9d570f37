"""Archives, binary records, parquet, manifests and safetensors with damaged bytes: data, or one of our errors."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import math
import struct
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from distail.errors import CheckpointError, DataError, DistailError
from distail.evaluation.predictions import load_predictions
from distail.models import create_model
from distail.models.weights import load_weights, read_metadata
from helpers.made_up import values
from helpers.sources import load


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTAIL_CACHE", str(tmp_path / "cache"))


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """One to five bytes changed, more often near the two ends, where formats keep their headers; or the end cut off."""
    data = bytearray(whole)
    near = st.integers(0, min(300, len(data) - 1))
    for _ in range(draw(st.integers(0, 5))):
        place = draw(st.one_of(st.integers(0, len(data) - 1), near, near.map(lambda n: len(data) - 1 - n)))
        data[place] = draw(st.integers(0, 255) | st.sampled_from([0, 0x30, 0x39, 0x7F, 0x80, 0xFF]))
    return bytes(data[: draw(st.none() | st.integers(0, len(data)))])


def tar_of(names: list[str], content: bytes, **headers: Any) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, **headers) as tar:
        for name in names:
            member = tarfile.TarInfo(f"cifar-100-binary/{name}")
            member.size = len(content)
            member.pax_headers = {"comment": "é" * 40}
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


RECORDS = b"".join(bytes([0, label]) + bytes(3072) for label in range(100))
ARCHIVE = tar_of(["train.bin", "test.bin"], RECORDS)


@given(damaged(ARCHIVE[:2000]), st.booleans())
@settings(deadline=None, max_examples=80)
def test_archives(tmp_path_factory: pytest.TempPathFactory, head: bytes, packed_whole: bool) -> None:
    folder = tmp_path_factory.getbasetemp() / "archive"
    folder.mkdir(exist_ok=True)
    content = head + ARCHIVE[len(head) :] if packed_whole else head
    (folder / "cifar-100-binary.tar.gz").write_bytes(gzip.compress(content, 1))
    with contextlib.suppress(DataError):
        assert len(load("cifar100", folder).train) >= 100


@given(damaged(gzip.compress(ARCHIVE, 1)))
@settings(deadline=None, max_examples=60)
def test_compressed_archives(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "compressed"
    folder.mkdir(exist_ok=True)
    (folder / "cifar-100-binary.tar.gz").write_bytes(content)
    with contextlib.suppress(DataError):
        assert len(load("cifar100", folder).train) == 100


def idx(*shape: int) -> bytes:
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + bytes(
        n % 10 for n in range(math.prod(shape))
    )


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_idx_files(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "idx"
    folder.mkdir(exist_ok=True)
    for prefix in ("train", "t10k"):
        for part, whole in (("images-idx3", idx(20, 4, 4)), ("labels-idx1", idx(20))):
            content = data.draw(damaged(whole))
            (folder / f"{prefix}-{part}-ubyte").write_bytes(content)
    with contextlib.suppress(DataError):
        assert load("fashion-mnist", folder).train.images.ndim == 4


def parquet_of(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def png(side: int = 4) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "PNG")
    return file.getvalue()


TABLE = pa.table({"img": [{"bytes": png(), "path": None}] * 20, "label": list(range(10)) * 2})


@given(damaged(parquet_of(TABLE)))
@settings(deadline=None, max_examples=80)
def test_parquet(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "parquet"
    folder.mkdir(exist_ok=True)
    (folder / "train.parquet").write_bytes(content)
    (folder / "test.parquet").write_bytes(parquet_of(TABLE))
    with contextlib.suppress(DataError):
        assert len(load("cifar10", folder).class_names) == 10


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"img": [png()], "label": pa.array([2**64 - 1], pa.uint64())}), "cannot be read as parquet"),
        (pa.table([[png()], [1], [2]], names=["img", "label", "label"]), "has the column label more than once"),
        (pa.table({"img": pa.array([[png()]]), "label": [1]}), "must hold encoded images"),
        (pa.table({"img": pa.array([png()]).dictionary_encode(), "label": [1]}), "must hold encoded images"),
        (pa.table({"img": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}), "no training image"),
    ],
)
def test_parquet_of_odd_columns(tmp_path: Path, table: pa.Table, message: str) -> None:
    (tmp_path / "train.parquet").write_bytes(parquet_of(table))
    (tmp_path / "test.parquet").write_bytes(parquet_of(TABLE))
    with pytest.raises(DataError, match=message):
        load("cifar10", tmp_path)


CSV_WORDS = [
    *("path", "label", "split", "train", "test", "a.png", "b.png", "../", "/", "x", "1", "10", "9" * 5000),
    *(",", "\t", ";", "\n", "\r\n", '"', '""', " ", "\0", "é", "\ufeff", "\ud800"),
]


@given(st.lists(st.sampled_from(CSV_WORDS) | st.text(max_size=4), max_size=30).map("".join), st.booleans())
@settings(deadline=None, max_examples=120)
def test_manifests(tmp_path_factory: pytest.TempPathFactory, text: str, with_header: bool) -> None:
    folder = tmp_path_factory.getbasetemp() / "manifest"
    folder.mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(png())
    header = "path,label,split\na.png,1,train\nb.png,2,train\n" if with_header else ""
    (folder / "list.csv").write_bytes((header + text).encode("utf-8", "surrogatepass"))
    with contextlib.suppress(DataError):
        assert len(load("csv", folder / "list.csv", skip_unreadable=True).class_names) >= 2


def safetensors_of(header: Any, body: bytes = bytes(64)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


ENTRY = {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]}
HEADER = {"__metadata__": {"class_names": '["a"]'}, "logits": ENTRY, "target": {**ENTRY, "data_offsets": [32, 64]}}


@st.composite
def headers(draw: st.DrawFn) -> Any:
    header = json.loads(json.dumps(HEADER))
    place = draw(st.sampled_from(["logits", "target", "__metadata__"]))
    key = draw(st.sampled_from(["dtype", "shape", "data_offsets", "class_names", None]))
    new = draw(values | st.sampled_from(["F64", "BF16", "F8_E4M3", "F8_E8M0", "F4", "C64", "BOOL", "U64", "I8"]))
    if key is None:
        header[place] = new
    else:
        header[place][key] = new
    return header


@given(headers().map(safetensors_of) | damaged(safetensors_of(HEADER)) | st.binary(max_size=50))
@settings(deadline=None, max_examples=120)
def test_safetensors(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):
        read_metadata(path)
    with contextlib.suppress(CheckpointError):
        load_predictions(path)
    with pytest.raises(DistailError):
        load_weights(NETWORK, path)


NETWORK = create_model("resnet8", num_classes=2)
