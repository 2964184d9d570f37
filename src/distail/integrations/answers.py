"""A file of answers, as `distail teach` writes it, in the order of other people's data sets.

Shapes: M rows of the file, N samples of a data set, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distail.errors import DataError, Problems, some_of
from distail.evaluation.array_file import ArrayFile, open_arrays
from distail.evaluation.stored_logits import LOGITS, columns_of_classes, stored_logits
from distail.runner.answer_rows import KEYS, UNAUGMENTED


class StoredAnswers:
    """What a file says of each sample of a data set: `teacher_logits` of `IndexedDataset` and `DistillationTrainer`.

    The file is mapped, and rows become logits (C,) float32 as they are asked for: whole logits, probabilities, or the K
    largest, whose rest is spread evenly. Views are passed over. Where a sample has several classes a file must hold
    logits: the others are of one class each.

    Args:
        path: safetensors, npz or parquet, as `teacher.logits` takes it.
        keys: for each sample, in the order of the data set, what the file has in `path` or `id` of its row; None: ids
            from 0, or where the file has neither its training rows as they lie.
        class_names: in the order of the student's outputs; None: that of the file.

    Raises:
        DataError: samples without a row, rows twice, other classes, or numbers that cannot be used.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "answers.npz"
    >>> np.savez(file, logits=5 * np.eye(2, dtype=np.float32), path=np.array(["b.png", "a.png"]))
    >>> StoredAnswers(file, keys=["a.png", "b.png"])[0]
    tensor([0., 5.])
    """

    def __init__(
        self,
        path: str | Path,
        keys: Sequence[str] | Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        file, problems = open_arrays(Path(path)), Problems()
        names = file.list_fact("class_names") if class_names is None else class_names
        columns = None if class_names is None else columns_of_classes(file, class_names)
        self._answers = stored_logits(file, None if names is None else len(names), columns=columns)
        self._row_N = torch.from_numpy(_rows(file, len(self._answers), keys))
        problems.add(*self._answers.problems(self._row_N))
        problems.stop("answers that cannot teach", DataError)

    @property
    def of_one_class(self) -> bool:
        """Whether it holds probabilities, whole or the largest, which say of one class per sample."""
        return self._answers.kind != LOGITS

    def __len__(self) -> int:
        return len(self._row_N)

    def __getitem__(self, position: int) -> Tensor:
        return self._answers.rows(self._row_N[position].reshape(1))[0]


def _rows(file: ArrayFile, count: int, keys: Sequence[str] | Sequence[int] | None) -> np.ndarray:
    """The row (N,) int64 of each sample."""
    split_M = file.texts("split") if "split" in file.names else np.full(count, b"train")
    usable_M = file.numbers("view").numpy() == UNAUGMENTED if "view" in file.names else np.ones(count, dtype=np.bool_)
    key = next((name for name in KEYS if name in file.names), None)
    if key is None:
        if keys is not None:
            raise DataError(
                f"{file.path} has neither path nor id; expected no keys: its rows are the training samples in order"
            )
        return np.flatnonzero(usable_M & (split_M == b"train"))
    if key == "id":  # which counts the training part, of which validation is drawn, and the test part
        usable_M &= split_M != b"test"
    row_M = np.flatnonzero(usable_M)
    found = file.read(key)
    is_text = not (isinstance(found, Tensor) and found.ndim == 1)
    told = [text.decode() for text in file.texts(key)[row_M].tolist()] if is_text else found[row_M].tolist()
    if keys is None and is_text:
        raise DataError(
            f"{file.path} identifies its rows by {key}, such as {told[0]!r}; expected keys=, one per sample"
        )
    row_of = dict(zip(told, row_M.tolist(), strict=True))
    if len(row_of) < len(told):
        raise DataError(f"{file.path}: {len(told) - len(row_of)} rows have a {key} that is not unique")
    wanted = list(range(len(told)) if keys is None else keys)
    missing = [repr(each) for each in wanted if each not in row_of]
    if missing:
        raise DataError(
            f"{file.path}: {len(missing):,} of {len(wanted):,} samples have no row, by {key}: {some_of(missing, 3)}; "
            f"the file has such as {some_of([repr(each) for each in told], 3)}"
        )
    return np.array([row_of[each] for each in wanted], dtype=np.int64)
