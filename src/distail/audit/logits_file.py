"""Logits and labels of any framework, from one safetensors, npz, parquet or csv file. Nothing is unpickled."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from distail.audit.logits_csv import LogitsTable, read_csv
from distail.errors import DataError, did_you_mean, problems_in, some_of
from distail.evaluation.array_file import ArrayFile, open_arrays
from distail.evaluation.probabilities import SIGNS, kind_of_probabilities
from distail.evaluation.stored_logits import KINDS, LABELS, stored_logits
from distail.files import open_tensors
from distail.json_values import as_items
from distail.runner.answer_rows import KEYS

# The teacher's, where a file holds those of its student as well.
LOGITS = ("teacher_logits", "logits")
_LISTED = re.compile(r"[\d\s,;\[\]]+")
_LARGEST_BYTES = 2**24


def read_logits(path: str | Path) -> LogitsTable:
    """The logits (N, C) and labels (N,) in a file; their values are not checked, except that they are no probabilities.

    - ``.safetensors``, ``.npz`` and ``.parquet``: arrays ``logits`` and ``target`` (or ``labels``). A run's
      predictions.safetensors also has ``teacher_logits``: then those are taken. In place of logits ``probabilities``,
      or the K largest: ``values`` and ``indices``, with ``class_names`` (`distail.evaluation.stored_logits`).
    - ``.csv``: a header, a column ``label``, and one column of logits per class: ``logit_0``, ``logit_1``, ..., or the
      names of the classes in their order, with or without ``logit_``; labels are then names or numbers.

    Raises:
        DataError: no such file, another kind of file, a damaged one, pickled arrays, missing or surplus columns, text
            where a number belongs, or probabilities in place of logits.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {str(path)!r} (current directory {Path.cwd()}).")
    kind = path.suffix.lower()
    if kind not in READERS:
        raise DataError(
            f"{str(path)!r} is not a file of logits that can be read: its name ends in {kind or 'nothing'!r}. "
            f"{did_you_mean(kind, READERS)}"
        )
    table = READERS[kind](path)
    found = kind_of_probabilities(table.logits) if table.source in LOGITS else None
    # That all lie between 0 and 1 could be true of logits, too: the audit tells it.
    if found in ("probabilities", "percentages"):
        raise DataError(
            f"{path}: the {table.source} are {found} ({SIGNS[found]}); expected logits, the inputs of the softmax. "
            f"Their logarithm also works: numpy.log({found})."
        )
    return table


def holds_logits(path: Path) -> bool:
    """Whether a safetensors file holds logits and labels, not weights; False for what cannot be read."""
    try:
        with open_tensors(path) as file:
            names = set(file.keys())
    except (SafetensorError, OSError):
        return False
    return bool(names & {*LOGITS, *KINDS}) and bool(names & set(LABELS))


def _read_arrays(path: Path) -> LogitsTable:
    file = open_arrays(path)
    source = next((name for name in (*LOGITS, *KINDS) if name in file.names), None)
    labels = next((name for name in LABELS if name in file.names), None)
    if source is None or labels is None:
        raise DataError(
            f"{path} holds the {file.kind} {some_of(sorted(file.names)) or 'none'}; expected logits or probabilities "
            "(samples, classes), and target or labels (samples,)."
        )
    names = file.list_fact("class_names")
    target_N = _target(file, labels, names)
    if source in LOGITS:
        logits_NC = file.numbers(source)
    else:
        stored = stored_logits(file, None if names is None else len(names))
        row_N = torch.arange(len(stored))
        problems = stored.problems(row_N)
        if problems:
            raise DataError(problems_in(str(path), problems), problems)
        logits_NC = stored.rows(row_N)
    # A run asks for `logits`, where those of a teacher lie beside them as well, and finds its images by key or hash.
    can_teach = source in KINDS and (any(key in file.names for key in KEYS) or "subset_sha256" in file.facts)
    posterior = file.facts.get("posterior")
    return _of_one_split(
        LogitsTable(logits_NC, target_N, names, source, posterior=posterior, can_teach=can_teach), file
    )


def _target(file: ArrayFile, name: str, class_names: tuple[str, ...] | None) -> Tensor:
    """Labels as numbers; texts are names of classes.

    Raises:
        DataError: they are other texts.
    """
    found = file.read(name)
    if isinstance(found, Tensor):
        of_bytes = found.dtype == torch.uint8 and found.ndim == 2
        multi_hot = of_bytes and found.shape[1] == len(class_names or ()) and bool((found <= 1).all())
        if class_names is None or not of_bytes or multi_hot:
            return file.numbers(name)
        found = file.texts(name)
    if class_names is None:
        raise DataError(
            f"{file.path}: {name} are of type text, and no class_names say which class is which; expected these, or "
            "numbers."
        )
    distinct, place_N = np.unique(found, return_inverse=True)
    texts = [text.decode("utf-8", "replace") for text in distinct.tolist()]
    if unknown := [repr(text) for text in texts if text not in class_names]:
        raise DataError(
            f"{file.path}: {name} hold {some_of(unknown, 3)}; expected class_names: {some_of(list(class_names))}."
        )
    label_of = {text: label for label, text in enumerate(class_names)}
    return torch.from_numpy(np.array([label_of[text] for text in texts], dtype=np.int64)[place_N.reshape(-1)])


def _of_one_split(table: LogitsTable, file: ArrayFile) -> LogitsTable:
    """Of a file of several splits, as `distail teach` writes it, the validation rows; where there are none, another's.

    Of several views of an image the first is left.
    """
    if "split" not in file.names or table.target.ndim != 1 or len(table.logits) != len(table.target):
        return table
    split_N = file.texts("split")
    if len(split_N) != len(table.target):
        return table
    split = next((name for name in ("validation", "train", "test") if (split_N == name.encode()).any()), None)
    if split is None:
        return table
    rows_N = torch.from_numpy(np.flatnonzero(_of_one_view(split_N == split.encode(), file)))
    counts = _of_training(table, split_N == b"train", file)
    return replace(
        table,
        logits=table.logits[rows_N],
        target=table.target[rows_N],
        split=split,
        class_counts=counts,
        can_teach=table.can_teach and counts is not None,
    )


def _of_one_view(rows_N: NDArray[np.bool_], file: ArrayFile) -> NDArray[np.bool_]:
    """Those of the rows that are of the first view, where there are views: of each image one."""
    if "view" not in file.names:
        return rows_N
    view_N = file.numbers("view").numpy()
    first: NDArray[np.bool_] = view_N == view_N[rows_N].min(initial=view_N.max())
    return rows_N & first


def _of_training(table: LogitsTable, is_training_N: NDArray[np.bool_], file: ArrayFile) -> tuple[int, ...] | None:
    """Training images of each class, each once however many views there are; None where a class has none."""
    is_training_N = _of_one_view(is_training_N, file)
    try:
        return counted_labels(table.target[torch.from_numpy(is_training_N)], table.logits.shape[1])
    except DataError:
        return None


READERS: dict[str, Callable[[Path], LogitsTable]] = {
    ".safetensors": _read_arrays,
    ".npz": _read_arrays,
    ".parquet": _read_arrays,
    ".csv": read_csv,
}


def read_class_counts(text_or_path: str, class_names: Sequence[str] | None = None) -> tuple[int, ...]:
    """Whole numbers, one per class in the order of the classes; that they are at least 1 is checked with the logits.

    Args:
        text_or_path: the numbers themselves (``500,120,30``), or a file: text with numbers between commas, blanks or
            line ends; JSON with a list, or with a list under ``class_counts``, as a run's result.json has.
        class_names: the order that is wanted, where JSON has ``class_names`` beside its ``class_counts``.

    Raises:
        DataError: no such file, or one that holds something else, or other class names.

    >>> read_class_counts("500, 120,30")
    (500, 120, 30)
    """
    if _LISTED.fullmatch(text_or_path):
        return _parsed(text_or_path, "class counts")
    path = Path(text_or_path)
    if not path.is_file():
        raise DataError(
            f"class counts: {text_or_path!r} is neither a list such as 500,120,30 nor a file (current directory "
            f"{Path.cwd()})."
        )
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise DataError(
                f"class counts: {path} is larger than {_LARGEST_BYTES // 2**20} MiB; expected one number per class."
            )
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"class counts: {path} is not a text file: {error}") from None
    if path.suffix.lower() == ".json":
        return _from_json(text, path, class_names)
    return _parsed(text, f"class counts: {path}")


def counted_labels(target_N: Tensor, classes: int) -> tuple[int, ...]:
    """The class counts of a file that has labels only: its own.

    Raises:
        DataError: a class has no label, so that nothing is known of its training images.
    """
    inside_N = target_N[(target_N >= 0) & (target_N < classes)].long()
    counts = torch.bincount(inside_N, minlength=classes).tolist()
    empty = [c for c, count in enumerate(counts) if count == 0]
    if empty:
        raise DataError(
            f"{len(empty)} of {classes} classes have no label here (class {some_of(empty)}), so their training images "
            "cannot be counted from the labels: give them with --class-counts."
        )
    return tuple(counts)


def _from_json(text: str, path: Path, class_names: Sequence[str] | None) -> tuple[int, ...]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"class counts: {path} is not JSON: {error}") from None
    counts = content.get("class_counts") if isinstance(content, dict) else content
    if not isinstance(counts, list) or any(not isinstance(n, int) or isinstance(n, bool) for n in counts):
        raise DataError(f"class counts: {path} holds no list of whole numbers, alone or under 'class_counts'.")
    names = [str(name) for name in as_items(content.get("class_names"))] if isinstance(content, dict) else []
    if not class_names or len(names) != len(counts) or len(names) != len(class_names):
        return tuple(counts)
    if {*names} != {*class_names}:
        raise DataError(
            f"class counts: {path} names the classes {some_of(names, 3)}, and the logits {some_of(class_names, 3)}; "
            "expected the same names, or counts without names in the order of the logits."
        )
    by_name = dict(zip(names, counts, strict=True))
    return tuple(by_name[name] for name in class_names)


def _parsed(text: str, where: str) -> tuple[int, ...]:
    words = [word for word in re.split(r"[\s,;\[\]]+", text) if word]
    wrong = [word for word in words if not re.fullmatch(r"\d{1,18}", word)]
    if wrong or not words:
        shown = f"{wrong[0]!r} is not a whole number" if wrong else "there is none"
        raise DataError(f"{where}: expected one whole number per class, but {shown}.")
    return tuple(int(word) for word in words)
