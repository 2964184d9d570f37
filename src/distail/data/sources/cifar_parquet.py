"""CIFAR as parquet files: PNG images and integer labels, as the Hugging Face hub keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from distail.data.decode import EncodedImage, decode_all
from distail.data.images import LabelledImages, Source
from distail.data.sources.options import SourceOptions
from distail.errors import DataError

_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("fine_label", "label")


def parquet_parts(folder: Path, split: str) -> list[Path]:
    """``train.parquet``, or ``train-*.parquet`` in the order of their names; in ``folder`` or its ``data``."""
    for place in (folder, folder / "data"):
        if (place / f"{split}.parquet").is_file():
            return [place / f"{split}.parquet"]
        parts = sorted(place.glob(f"{split}-*.parquet"))
        if parts:
            return parts
    return []


def load_parquet(folder: Path, class_names: tuple[str, ...], options: SourceOptions) -> Source:
    """Both splits; raises ``DataError`` for missing columns and damaged files."""
    parts: list[LabelledImages] = []
    skipped: list[str] = []
    for split in ("train", "test"):
        encoded, labels = _read_split(parquet_parts(folder, split))
        decoded = decode_all(
            encoded,
            image_size=options.image_size,
            skip_unreadable=options.skip_unreadable,
            progress=options.progress,
        )
        parts.append(LabelledImages(decoded.images, torch.tensor(labels, dtype=torch.int64)[decoded.rows]))
        skipped += decoded.skipped
    return Source(parts[0], parts[1], class_names, tuple(skipped))


def _read_split(paths: list[Path]) -> tuple[list[EncodedImage], list[int]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    encoded: list[EncodedImage] = []
    labels: list[int] = []
    for path in paths:
        try:
            file = pq.ParquetFile(path)
            columns = (
                _column(path, file.schema_arrow.names, _IMAGE_COLUMNS),
                _column(path, file.schema_arrow.names, _LABEL_COLUMNS),
            )
            table = file.read(columns=list(columns))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} cannot be read as parquet: {error}") from error
        images = table[columns[0]].to_pylist()
        encoded += [EncodedImage(f"{path.name}, row {row}", _reader(image)) for row, image in enumerate(images)]
        labels += table[columns[1]].to_pylist()
    return encoded, labels


def _column(path: Path, found: list[str], wanted: tuple[str, ...]) -> str:
    for name in wanted:
        if name in found:
            return name
    raise DataError(f"{path} has the columns {', '.join(found)}; expected one named {' or '.join(wanted)}")


def _reader(image: Any) -> Any:
    data = image["bytes"] if isinstance(image, dict) else image
    return lambda: data or b""
