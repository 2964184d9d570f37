"""Which row of a file of answers is of which image: by path, by id, or by the order of data whose hash the file names.

Shapes: N images, M rows of the file or of some of them, V views.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distail.data.dataset import Examples
from distail.data.prepare import PreparedData
from distail.errors import DataError, Problems, some_of
from distail.evaluation.array_file import ArrayFile, signed

KEYS = ("path", "id")
SPLITS = {"train": "training", "validation": "validation", "test": "test"}
_HASHES = {"train": "subset_sha256", "validation": "validation_sha256", "test": "test_sha256"}
_ROWS_AT_ONCE = 1 << 16
UNAUGMENTED = -1
"""What stands in `view` where an image was shown as it is."""


@dataclass(frozen=True)
class AnswerRows:
    """Rows of the file, int64.

    Attributes:
        train: (V * N,), view 0 of all training images in their order, then view 1; without views (N,).
        views: V; 0 where the images were shown as they are.
        view_seed: what the views were drawn from; None without views.
        plain: (N,), of the training images as they are; None where the file has views alone.
        validation, test: of the other splits; None where the file has none of their images.
        surplus: rows that are of none of these images.
        own_id: whether `id` is the table's own column of that name; False where row numbers are meant although it could
            be; None where it cannot.
    """

    train: Tensor
    views: int
    view_seed: int | None
    plain: Tensor | None
    validation: Tensor | None
    test: Tensor | None
    surplus: int
    own_id: bool | None = None

    def used(self, count: int) -> Tensor:
        """The rows of a file of `count` rows that are of any of these images, each once, in the file's order."""
        is_used_M = torch.zeros(count, dtype=torch.bool)
        for rows in (self.train, self.plain, self.validation, self.test):
            if rows is not None:
                is_used_M[rows] = True
        return torch.nonzero(is_used_M).flatten()


def match_rows(
    file: ArrayFile, count: int, data: PreparedData, augment: Sequence[Any], *, own_id: bool | None = None
) -> AnswerRows:
    """The rows of a file for the images of a run.

    Args:
        count: rows of the file.
        augment: as `data.augment`, written for JSON: what views were drawn with.
        own_id: True where `id` must be the table's own column of that name; None finds out what it is.

    Raises:
        DataError: images without a row, rows of other data, keys that occur twice; all problems are listed.
    """
    problems = Problems()
    columns: dict[str, Any] = {}
    for name in (*KEYS, "split", "view"):
        if name in file.names:
            columns[name] = problems.attempt(lambda name=name: _column(file, name, count))  # type: ignore[misc]
    problems.stop("its rows cannot be identified", DataError)
    view_M = columns.get("view")
    views = 0 if view_M is None else int(view_M.max()) + 1
    view_seed = _check_views(file, data, augment, problems) if views else None
    key = next((name for name in KEYS if name in columns), None)
    by_view: list[Tensor | None] = []
    if own_id is None and key == "id":
        own_id = _is_own_id(columns["id"], columns.get("split"), data)
    lookup = _Lookup(file, key, columns, data, problems, by_own_id=own_id is True)
    every_M = np.arange(count)
    if views:
        for view in range(views):
            by_view.append(
                lookup.find("train", every_M[view_M == view], what=f"training {data.train.noun}s in view {view}")
            )
        every_M = every_M[view_M == UNAUGMENTED]
    plain = lookup.find("train", every_M, required=not views)
    validation = None if data.validation is None else lookup.find("validation", every_M, required=False)
    test = lookup.find("test", every_M, required=False)
    problems.stop(f"it is not of these {data.train.noun}s", DataError)
    train = torch.cat([rows for rows in by_view if rows is not None]) if views else plain
    assert train is not None
    matched = AnswerRows(train, views, view_seed, plain, validation, test, surplus=0, own_id=own_id)
    return replace(matched, surplus=count - len(matched.used(count)))


def _column(file: ArrayFile, name: str, count: int) -> NDArray[Any]:
    found: NDArray[Any] = _texts_or_numbers(file, name)
    if found.shape != (count,):
        raise DataError(f"{name} have the shape {found.shape}; expected ({count},), one per row of answers")
    if name == "view" and (found.dtype.kind != "i" or found.min() < UNAUGMENTED):
        raise DataError(f"view holds {found.min()} of type {found.dtype}; expected whole numbers, -1 for no view")
    if name == "split" and len(odd := set(found[: 1 << 20].tolist()) - {each.encode() for each in SPLITS}):
        raise DataError(f"split holds {some_of(sorted(map(_shown, odd)))}; expected {', '.join(SPLITS)}")
    return found


def _texts_or_numbers(file: ArrayFile, name: str) -> NDArray[Any]:
    found = file.read(name)
    if isinstance(found, Tensor) and not (found.dtype == torch.uint8 and found.ndim == 2):
        numbers = signed(found, name, file.path)
        if numbers.is_floating_point():
            raise DataError(f"{name} are {numbers.dtype}; expected whole numbers or texts")
        return numbers.long().numpy()
    return file.texts(name)


def _check_views(file: ArrayFile, data: PreparedData, augment: Sequence[Any], problems: Problems) -> int | None:
    """The seed of the views, which are this run's where data and augmentation are the same."""
    if file.facts.get("subset_sha256") != data.subset_sha256:
        problems.add(
            "its views are of other training images (subset_sha256 "
            f"{_short(file.facts.get('subset_sha256'))}, this run's {_short(data.subset_sha256)})"
        )
    if file.facts.get("augment") != json.dumps(list(augment)):
        problems.add(
            f"its views were drawn with augment {file.facts.get('augment')}, this run's is {json.dumps(list(augment))}"
        )
    seed = file.facts.get("view_seed", "")
    if not seed.isdecimal():
        problems.add("it does not contain the random seed of its views (view_seed), as files of `distail teach` do")
        return None
    return int(seed)


def _is_own_id(id_M: NDArray[Any], split_M: NDArray[Any] | None, data: PreparedData) -> bool | None:
    """What `AnswerRows.own_id` says, by which of both the numbers or texts of a file can be."""
    if data.ids is None:
        return None
    own_N = np.concatenate(data.ids)
    one, other = (id_M, own_N) if id_M.dtype.kind == own_N.dtype.kind else (_as_texts(id_M), _as_texts(own_N))
    if not np.isin(one, other).all():
        return None
    if id_M.dtype.kind == "S":
        return True
    sizes = len(data.ids[0]), len(data.ids[1])
    numbers = tuple(map(np.arange, sizes))
    if split_M is not None:
        largest: Any = np.where(split_M == b"test", sizes[1], sizes[0])
    elif data.file_rows is None:
        largest = sizes[0]
    else:
        largest, numbers = sum(sizes), tuple(rows.numpy() for rows in data.file_rows)
    if not ((id_M >= 0) & (id_M < largest)).all():
        return True
    same = all(np.array_equal(ids, rows) for ids, rows in zip(data.ids, numbers, strict=True))
    return None if same else False


def _as_texts(keys: NDArray[Any]) -> NDArray[np.bytes_]:
    return keys if keys.dtype.kind == "S" else keys.astype(np.bytes_)


class _Lookup:
    """Rows by key, among those of one kind."""

    def __init__(
        self,
        file: ArrayFile,
        key: str | None,
        columns: dict[str, Any],
        data: PreparedData,
        problems: Problems,
        *,
        by_own_id: bool,
    ) -> None:
        self.file, self.key, self.data, self.problems = file, key, data, problems
        self.keys_M = columns.get(key) if key else None
        self.split_M = columns.get("split")
        self.of_all: tuple[NDArray[Any], ...] | None = None
        """The keys of the whole training part and of the test part, where they are of the whole data set."""
        if by_own_id:
            assert data.ids is not None
            assert self.keys_M is not None
            self.of_all = data.ids
            if self.keys_M.dtype.kind != data.ids[0].dtype.kind:
                self.keys_M, self.of_all = _as_texts(self.keys_M), tuple(map(_as_texts, data.ids))
        elif self.keys_M is not None and self.keys_M.dtype.kind != "S" and self.split_M is None and data.file_rows:
            # Without splits an id is a row of the table as it lies there: of drawn parts nobody knows the rows.
            self.of_all = tuple(rows.numpy() for rows in data.file_rows)

    def find(self, split: str, row_M: NDArray[Any], *, required: bool = True, what: str = "") -> Tensor | None:
        """The rows of a split's images; None where there are none of them, or they are told as a problem."""
        images = {"train": self.data.train, "validation": self.data.validation, "test": self.data.test}[split]
        assert images is not None
        what = what or f"{SPLITS[split]} {images.noun}s"
        if self.keys_M is None:
            return self._in_order(split, images, row_M, required, what)
        wanted_N = self._wanted(split, images)
        if wanted_N is None:
            if required:
                self.problems.add(
                    f"its rows are identified by {self.key}, but the {what} are not files with names; expected id, "
                    "their rows in the data set"
                )
            return None
        if self.of_all is None and self.keys_M.dtype.kind != "S":  # paths are of one data set, rows are of a part of it
            row_M = self._of_part(row_M, split)
        # Keys of all rows stay where the file is mapped, and are compared block by block: paths take many bytes each.
        keys_M = self.keys_M if len(row_M) == len(self.keys_M) else self.keys_M[row_M]
        order_M = np.argsort(keys_M, kind="stable")
        twice_M = _where(lambda block: keys_M[order_M[1:][block]] == keys_M[order_M[:-1][block]], len(keys_M) - 1)
        if len(twice_M):
            shown = _shown(keys_M[order_M[twice_M[0]]])
            self.problems.add(f"{len(twice_M)} rows have a {self.key} that is not unique, such as {shown}")
        if len(keys_M):
            at_N = np.searchsorted(keys_M, wanted_N, sorter=order_M)
            found_N = order_M[np.minimum(at_N, len(keys_M) - 1, out=at_N)]
            del order_M, at_N  # 8 bytes per row each, and there may be millions
            missing_N = _where(lambda block: keys_M[found_N[block]] != wanted_N[block], len(wanted_N))
        else:
            found_N, missing_N = np.zeros(0, np.int64), np.arange(len(wanted_N))
        if not len(missing_N):
            return torch.from_numpy(row_M[found_N])
        if len(missing_N) == len(wanted_N) and not required:
            return None
        unknown = keys_M[~np.isin(keys_M, wanted_N)]
        others = f"; of other {images.noun}s there are {len(unknown):,} rows ({_some(unknown)})" if len(unknown) else ""
        self.problems.add(
            f"{len(missing_N):,} of {len(wanted_N):,} {what} have no row, by {self.key}: "
            f"{_some(wanted_N[missing_N])}{others}"
        )
        return None

    def _wanted(self, split: str, images: Examples) -> NDArray[Any] | None:
        rows = {"train": self.data.train_rows, "validation": self.data.validation_rows}.get(split)
        row_N = np.arange(len(images)) if rows is None else rows.numpy()
        assert self.keys_M is not None
        if self.of_all is not None:
            found: NDArray[Any] = self.of_all[split == "test"][row_N]
            return found
        if self.keys_M.dtype.kind != "S":
            return row_N
        if images.names is not None:
            return images.names
        if self.key == "path":
            return None
        part = "test" if split == "test" else "train"
        return np.array([f"{part}[{row}]" for row in row_N], dtype=np.bytes_)

    def _of_part(self, row_M: NDArray[Any], split: str) -> NDArray[Any]:
        if self.split_M is None:
            return row_M[:0] if split == "test" else row_M
        found: NDArray[Any] = row_M[(self.split_M[row_M] == b"test") == (split == "test")]
        return found

    def _in_order(self, split: str, images: Examples, row_M: NDArray[Any], required: bool, what: str) -> Tensor | None:
        if self.split_M is not None:
            row_M = row_M[self.split_M[row_M] == split.encode()]
        elif split != "train":
            return None
        if not len(row_M) and not required:
            return None
        fact = _HASHES[split]
        own = {
            "train": self.data.subset_sha256,
            "validation": self.data.validation_sha256,
            "test": self.data.test_sha256,
        }[split]
        told = self.file.facts.get(fact)
        if len(row_M) != len(images):
            self.problems.add(f"it has {len(row_M):,} rows for {len(images):,} {what}; expected one each")
        if told is None:
            self.problems.add(
                f"it has neither path nor id, so its rows must be the {what} in their order, and {fact} must say of "
                f"which data: expected {own} for these"
            )
        elif told != own:
            self.problems.add(f"its {what} differ: {fact} is {_short(told)}, in this run {_short(own)}")
        return torch.from_numpy(row_M) if len(row_M) == len(images) else None


def _where(holds: Callable[[slice], NDArray[np.bool_]], count: int) -> NDArray[np.int64]:
    """Which of `count` places a condition holds for, that is asked about a block of them at once."""
    starts = range(0, count, _ROWS_AT_ONCE)
    found = [at + np.flatnonzero(holds(slice(at, min(at + _ROWS_AT_ONCE, count)))) for at in starts]
    return np.concatenate([np.zeros(0, np.int64), *found])


def _short(digest: str | None) -> str:
    return "not given" if digest is None else digest[:12]


def _shown(key: Any) -> str:
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)


def _some(keys: NDArray[Any]) -> str:
    more = len(keys) - 3
    return some_of([_shown(key) for key in keys[:3]]) + (f" and {more:,} more" if more > 0 else "")
