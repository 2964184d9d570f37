"""The section `data` of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from distail.config.augment import Augment, augment_name
from distail.config.problems import wrong_keys
from distail.config.section import Count, CountFromZero, Number, Section, Whole, number


class Folds(Section):
    """Validation by folds: the training examples in so many parts, each held out by one run."""

    folds: Annotated[Whole, Field(ge=2, le=100)]
    fold: CountFromZero | None = None
    """Which part a run holds out, from 0; `distail compare` and `distail search` train one run for each."""

    @model_validator(mode="after")
    def _there_is_such_a_fold(self) -> Folds:
        if self.fold is not None and self.fold >= self.folds:
            raise ValueError(f"fold {self.fold}; expected one of 0 to {self.folds - 1}")
        return self


def _share_folds_or_file(value: Any) -> Any:
    if isinstance(value, Folds | Path):
        return value
    if isinstance(value, str) and not _is_number(value):
        return Path(value)
    if isinstance(value, Mapping):
        try:
            return Folds.model_validate(value)
        except ValidationError as error:
            raise ValueError("; ".join(wrong.problem for wrong in wrong_keys(Folds, error))) from None
    given = number(value)
    if not _is_number(given) or not 0 <= float(given) < 1:
        raise ValueError(f"expected a number from 0 to below 1, or {{folds: 5}}, not {value!r}")
    return float(given)


def _column_or_columns(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    names = list(value) if isinstance(value, list | tuple) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"expected the name of a column, or a list of such names, not {value!r}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{' and '.join(map(repr, twice))} more than once; expected each column once")
    return tuple(names)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


class Data(Section):
    """Which images, or other examples, how imbalanced, and how they are drawn."""

    name: str
    """A data set that is known, or `package.module:function` for one of your own."""
    root: Path | None = None
    targets: Literal["single_label", "multi_label"] = "single_label"
    """Whether an example has one class, or any number of them (`arrays`, tables, `csv`, and data of your own)."""
    label: Annotated[str | tuple[str, ...] | None, BeforeValidator(_column_or_columns)] = None
    """Of a table (`csv-table`, `parquet`): the column of the classes; with `targets: multi_label` also several columns
    of 0 and 1, one for each class."""
    features: tuple[str, ...] | None = None
    """Of a table: the columns that the network is given; by default all but those of label, split and group."""
    categories: Literal["one_hot", "embedded"] = "one_hot"
    """Of a table: whether a column of texts is a number of 0 or 1 for each level, or one code, of which the network
    (`mlp`, or one of your own that takes `cardinalities`) learns a vector for each."""
    group: str | None = "group"
    """The column (of a table, of the manifest `csv`, or of the metadata of `huggingface`) whose equal values must not
    be torn apart by a split; None for no groups, also where other data has some."""
    train: Path | None = None
    """Of `list`: the file of the training images, a path and a label on each line."""
    test: Path | None = None
    """Of `list`: the file of the test images."""
    class_order: str = "natural"
    """`natural`, `text` (as torchvision sorts folders: 1, 10, 2), or a file with the
    names in their order, one per line."""
    imbalance_factor: Annotated[Number, Field(ge=1, allow_inf_nan=False)] | None = None
    profile: Literal["exp", "step"] = "exp"
    validation: Annotated[float | Folds | Path, BeforeValidator(_share_folds_or_file)] = 0.1
    """Which share of every class is held out of training, or in how many folds: `{folds: 5}`; of `list` also the file
    of the validation images, which are then none of the training's."""
    augment: tuple[Augment, ...] = ()
    """Names, or mappings of a name and its parameters (`distail.config.augment`)."""
    sampler: Literal["instance", "class_balanced", "square_root"] = "instance"
    image_size: Annotated[Whole, Field(ge=1, le=4096)] | None = None
    bit_depth: Annotated[Whole, Field(ge=9, le=16)] | None = None
    """How many of their 16 bits gray images use, such as 12; by default all, or as many as a TIFF says."""
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
