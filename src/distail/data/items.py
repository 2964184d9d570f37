"""The user's own map-style data sets: items fetched batch by batch, whatever they are made of.

Shapes: N items, M rows of a subset, B batch.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import tee
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from distail.data.augment import Augmentation, Draws
from distail.data.seeding import random_bits, stream_key
from distail.data.workers import Workers
from distail.errors import DataError
from distail.import_path import where
from distail.inputs import Inputs, each_tensor
from distail.torch_utils import to_device

LABELS = ("label", "labels")
"""What the label is called in an item that is a mapping; neither reaches the network."""
# What a network for text makes of each entry, as far as memory is concerned.
_NUMBERS_AN_ENTRY = 512
Task = tuple[list[int], list[int]]


@dataclass(frozen=True)
class FetchItems:
    """The inputs of one batch, by rows of a data set and a seed for each; or, as text, why there are none.

    Whatever an item draws from the generators of torch, numpy and Python is decided by its seed.
    """

    dataset: Any
    collate: Callable[[list[Any]], Any] | None = None

    def __call__(self, task: Task) -> Inputs | str:
        items: list[Any] = []
        with kept_generators():
            for row, seed in zip(*task, strict=True):
                item = self.item(row, seed)
                if isinstance(item, _Problem):
                    return item.text
                items.append(item)
            try:
                return _inputs_of((self.collate or default_collate)(items))
            except Exception as error:
                return f"items could not be made a batch: {where(error)}"

    def item(self, row: int, seed: int) -> Any:
        """One item; or a `_Problem`."""
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            return self.dataset[row]
        except Exception as error:
            return _Problem(f"item {row} failed with {where(error)}")


@dataclass(frozen=True)
class _Problem:
    text: str


@contextmanager
def kept_generators() -> Iterator[None]:
    """Afterwards the generators of torch (on the CPU), numpy and Python stand where they stood."""
    of_torch, of_numpy, of_python = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(of_torch)
        np.random.set_state(of_numpy)
        random.setstate(of_python)


@dataclass(frozen=True)
class StreamedItems:
    """Items of a data set that have all been fetched once and are fetched again, batch by batch.

    `rows` (N,) int64 are those of the data set, which `part` names; `labels` (N,) int64 or (N, C) bool;
    `digests` (N, 32) uint8, the SHA-256 of each item. `workers` processes fetch; 0: none but this one.
    """

    fetch: FetchItems
    part: str
    rows: Tensor
    labels: Tensor
    digests: Tensor
    workers: int
    noun: ClassVar[str] = "example"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> NDArray[np.bytes_]:
        """What each is called (N,): its place in its data set."""
        return np.array([f"{self.part}[{row}]" for row in self.rows.tolist()], dtype=np.bytes_)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of an example; of several tensors one row of all their entries, each as the numbers that it will take."""
        example = self.first(1)
        if isinstance(example, Tensor) and example.is_floating_point():
            return tuple(example.shape[1:])
        tensors = example.values() if isinstance(example, dict) else [example]
        return (1, sum(tensor.numel() for tensor in tensors) * _NUMBERS_AN_ENTRY)

    def subset(self, index: Tensor) -> StreamedItems:
        """The rows named by `index` (M,) int64, in that order."""
        return replace(self, rows=self.rows[index], labels=self.labels[index], digests=self.digests[index])

    def contents(self) -> NDArray[np.uint8]:
        """(N, 32): the SHA-256 of each item."""
        return self.digests.numpy()

    def first(self, count: int) -> Inputs:
        """The inputs of the first example, `count` times."""
        return _checked(self.fetch(self.task(torch.zeros(count, dtype=torch.int64))))

    def task(self, index: Tensor, seeds: Sequence[int] | None = None) -> Task:
        """What `fetch` takes for some of the rows; without seeds each has one of its own, always the same."""
        rows = self.rows[index]
        if seeds is None:
            seeds = (random_bits(stream_key("item"), rows.numpy()) >> np.uint64(1)).tolist()
        return rows.tolist(), list(seeds)


class ItemInputs:
    """Inputs of one training batch after another, on the training device; what an item draws is seeded by its draws."""

    augmentations: Mapping[str, Augmentation]

    def __init__(self, data: StreamedItems, device: torch.device | str) -> None:
        self.augmentations = {"item": Augmentation(2, _not_applied)}
        self._data, self._device = data, torch.device(device)
        self._workers: Workers[Task, Inputs | str] = Workers(data.fetch, data.workers)

    def batches(self, wanted: Iterable[tuple[Tensor, Draws]]) -> Iterator[tuple[Tensor, Inputs]]:
        ahead, here = tee(wanted)
        found = self._workers.results(self._task(index, draws) for index, draws in ahead)
        for (index, _), inputs in zip(here, found, strict=True):
            yield to_device(index, self._device), _on_device(inputs, len(index), self._device)

    def close(self) -> None:
        """End the processes that fetch, if there are any."""
        self._workers.close()

    def _task(self, index: Tensor, draws: Draws) -> Task:
        bits_B2 = draws.bits["item"]
        index, seeds_B = _one_at_least(index, (bits_B2[:, 0] << 31) ^ bits_B2[:, 1])
        return self._data.task(index, seeds_B.tolist())


def items_in_order(data: StreamedItems, parts: Sequence[slice], device: torch.device | str) -> Iterator[Inputs]:
    """The inputs of each part of the data, as they always are, on the device."""
    workers: Workers[Task, Inputs | str] = Workers(data.fetch, data.workers)
    tasks = (data.task(_one_at_least(torch.arange(part.start, part.stop))[0]) for part in parts)
    with closing(workers):
        for part, inputs in zip(parts, workers.results(tasks), strict=True):
            yield _on_device(inputs, part.stop - part.start, device)


def labels_in(item: Any) -> Any:
    """The label of an item: the second of two, or what a mapping has under one of `LABELS`.

    Raises:
        DataError: it is neither.
    """
    if isinstance(item, Mapping):
        found = [item[name] for name in LABELS if name in item]
        if found:
            return found[0]
        raise DataError(f"it is a mapping with {', '.join(map(repr, item))}; expected 'label' among them")
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[1]
    raise DataError(f"it is {type(item).__name__}; expected (input, label), or a mapping of tensors with 'label'")


def is_finite(item: Any) -> bool:
    """Whether the numbers that an item holds, its label aside, are; in a mapping minus infinity may mask something.

    >>> is_finite((torch.tensor([1.0, torch.nan]), 0)), is_finite({"mask": torch.tensor([0.0, -torch.inf]), "label": 0})
    (False, True)
    """
    return _finite(item if isinstance(item, Mapping) else item[0], least=-np.inf if isinstance(item, Mapping) else None)


def _finite(value: Any, least: float | None) -> bool:
    if isinstance(value, Mapping):
        return all(_finite(value[name], least) for name in value if name not in LABELS)
    if isinstance(value, list | tuple):
        return all(_finite(each, least) for each in value if not isinstance(each, int))
    if isinstance(value, Tensor):
        # A sum that is finite is many times as fast, and says that all are.
        return not value.is_floating_point() or bool(
            value.sum().isfinite() or (value.isfinite() | (value == least)).all()
        )
    if isinstance(value, np.ndarray | np.floating | float):
        return np.asarray(value).dtype.kind != "f" or bool((np.isfinite(value) | (value == least)).all())
    return True


def digest_of(item: Any) -> bytes:
    """SHA-256 of what an item holds, its label aside."""
    digest = hashlib.sha256()
    _update(digest, item if isinstance(item, Mapping) else item[0])
    return digest.digest()


def _update(digest: Any, value: Any) -> None:
    if isinstance(value, Mapping):
        for name in sorted(name for name in value if name not in LABELS):
            digest.update(f"{name}\0".encode())
            _update(digest, value[name])
    elif isinstance(value, Tensor | np.ndarray):
        array = np.ascontiguousarray(value.detach().cpu().numpy() if isinstance(value, Tensor) else value)
        digest.update(f"{array.dtype} {array.shape}\0".encode())
        digest.update(array.tobytes())
    else:
        digest.update(repr(value).encode())


def _inputs_of(batch: Any) -> Inputs:
    inputs = batch[0] if isinstance(batch, tuple | list) and len(batch) == 2 else batch
    if isinstance(inputs, Mapping):
        return {str(name): _usable(name, value) for name, value in inputs.items() if name not in LABELS}
    return _usable("input", inputs)


def _usable(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        inside = f" of {type(value[0]).__name__}" if isinstance(value, list | tuple) and value else ""
        raise TypeError(
            f"{name!r} of a batch is {type(value).__name__}{inside}; expected a tensor (texts: tokenize them)"
        )
    return value.float() if value.dtype == torch.float64 else value


def _one_at_least(index: Tensor, *others: Tensor) -> list[Any]:
    """Items that nobody asked for stand in where a process has no share: nothing cannot be made a batch."""
    if len(index):
        return [index, *others]
    return [index.new_zeros(1), *(other.new_zeros(1) for other in others)]


def _on_device(inputs: Inputs | str, size: int, device: torch.device | str) -> Inputs:
    return each_tensor(lambda tensor: to_device(tensor if size else tensor[:0], device), _checked(inputs))


def _checked(inputs: Inputs | str) -> Inputs:
    if isinstance(inputs, str):
        raise DataError(inputs)
    return inputs


def _not_applied(images: Tensor, bits: Tensor) -> Tensor:
    raise AssertionError("items have their own random numbers")
