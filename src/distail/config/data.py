"""The section `data` of an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from distail.config.augment import Augment, augment_name
from distail.config.section import Count, CountFromZero, Number, Section, Whole


class Data(Section):
    """Which images, or other examples, how imbalanced, and how they are drawn."""

    name: str
    """A data set that is known, or `package.module:function` for one of your own."""
    root: Path | None = None
    label: str | None = None
    """Of a table (`csv-table`, `parquet`): the column of the classes."""
    features: tuple[str, ...] | None = None
    """Of a table: the columns that the network is given; by default all but those of label, split and group."""
    group: str = "group"
    """The column (of a table, or of the manifest `csv`) whose equal values must not be torn apart by a split."""
    train: Path | None = None
    """Of `list`: the file of the training images, a path and a label on each line."""
    test: Path | None = None
    """Of `list`: the file of the test images."""
    class_order: str = "natural"
    """`natural`, `text` (as torchvision sorts folders: 1, 10, 2), or a file of the names in their order, one a line."""
    imbalance_factor: Annotated[Number, Field(ge=1, allow_inf_nan=False)] | None = None
    profile: Literal["exp", "step"] = "exp"
    validation: Annotated[Number, Field(ge=0, lt=1)] = 0.1
    augment: tuple[Augment, ...] = ()
    """Names, or mappings of a name and its parameters (`distail.config.augment`)."""
    sampler: Literal["instance", "class_balanced", "square_root"] = "instance"
    image_size: Annotated[Whole, Field(ge=1, le=4096)] | None = None
    bit_depth: Annotated[Whole, Field(ge=9, le=16)] | None = None
    """How many of their 16 bits grey images use, such as 12; by default all, or as many as a TIFF says."""
    skip_unreadable: bool = False
    allow_outside_root: bool = False
    """Whether a manifest (`csv`) may name images outside its folder."""
    stream: Literal["auto", "always", "never"] = "auto"
    """Whether image files stay on disk and are decoded batch by batch: `auto` where they would take too much memory."""
    memory_limit_mb: Count | None = None
    """What `auto` lets them take decoded, in units of 2**20 bytes; by default a quarter of the free memory."""
    workers: CountFromZero | None = None
    """Processes that decode; by default one for each core, at most 16."""

    @field_validator("augment")
    @classmethod
    def _each_once(cls, entries: tuple[Augment, ...]) -> tuple[Augment, ...]:
        names = [augment_name(entry) for entry in entries]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{' and '.join(twice)} more than once; expected each at most once")
        return entries

    @field_validator("stream", mode="before")
    @classmethod
    def _stream_in_words(cls, value: Any) -> Any:
        return {True: "always", False: "never"}[value] if isinstance(value, bool) else value
