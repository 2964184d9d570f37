"""Answers out of safetensors, npz and parquet: the same numbers from each, and every mistake told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from distail.errors import DataError
from distail.evaluation.array_file import open_arrays
from distail.evaluation.stored_logits import columns_of_classes, kind_of_answers, stored_logits

N, C, K = 50, 6, 3
LOGITS = (3 * torch.randn(N, C, generator=torch.Generator().manual_seed(0))).float()
LOG_P = LOGITS.double().log_softmax(1)
VALUES, INDICES = LOG_P.topk(K)
PATHS = [f"cat/é{row}.png" for row in range(N)]
CONTENT = {
    "logits": {"logits": LOGITS.numpy()},
    "probabilities": {"probabilities": LOG_P.exp().float().numpy()},
    "logarithms": {"values": VALUES.float().numpy(), "indices": INDICES.to(torch.uint8).numpy()},
    "shares": {"values": VALUES.exp().float().numpy(), "indices": INDICES.to(torch.int32).numpy()},
}


def write(path: Path, arrays: dict[str, np.ndarray], class_names: list[str] | None = None) -> Path:
    facts = {} if class_names is None else {"class_names": json.dumps(class_names)}
    if path.suffix == ".safetensors":
        longest = max(len(name.encode()) for name in PATHS)
        texts = np.array([name.encode() for name in PATHS], dtype=f"S{longest}").view(np.uint8).reshape(N, longest)
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        save_file({**tensors, "path": torch.from_numpy(texts.copy())}, path, metadata=facts)
    elif path.suffix == ".npz":
        named = {} if class_names is None else {"class_names": np.array(class_names)}
        save = np.savez_compressed if "packed" in path.name else np.savez
        save(path, **arrays, path=np.array(PATHS), **named)
    else:
        columns = {name: list(array) for name, array in arrays.items()}
        pq.write_table(pa.table({**columns, "path": PATHS}).replace_schema_metadata(facts or None), path)
    return path


@pytest.mark.parametrize("kind", CONTENT)
@pytest.mark.parametrize("name", ["x.safetensors", "x.npz", "packed.npz", "x.parquet"])
def test_every_kind_of_file_gives_the_same_answers(tmp_path, name, kind):
    file = open_arrays(write(tmp_path / name, CONTENT[kind]))
    answers = stored_logits(file, C)
    rows = torch.tensor([7, 0, 49, 7])
    found = answers.rows(rows).double().softmax(1)
    expected = LOG_P[rows].exp()
    if answers.top_k:
        kept = torch.zeros(N, C, dtype=torch.bool).scatter(1, INDICES, True)[rows]
        rest = ((1 - VALUES.exp().sum(1)) / (C - K))[rows]
        expected = torch.where(kept, expected, rest[:, None])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    assert answers.problems(torch.arange(N)) == []
    assert [path.decode() for path in file.texts("path")] == PATHS


@pytest.mark.parametrize("kind", CONTENT)
@pytest.mark.parametrize("name", ["x.safetensors", "x.npz", "x.parquet"])
def test_classes_are_matched_by_name(tmp_path, name, kind):
    own = ["ant", "bee", "cat", "dog", "elk", "fox"]
    told = ["fox", "ant", "cat", "bee", "elk", "dog"]
    file = open_arrays(write(tmp_path / name, CONTENT[kind], told))
    columns = columns_of_classes(file, own)
    found = stored_logits(file, C, columns=columns).rows(torch.arange(N))
    as_stored = stored_logits(file, C).rows(torch.arange(N))
    for place, class_name in enumerate(own):
        assert torch.equal(found[:, place], as_stored[:, told.index(class_name)])
    assert columns_of_classes(file, told) is None
    with pytest.raises(DataError, match=r"only in the data: 'gnu'; only in the file: 'fox'"):
        columns_of_classes(file, [*own[:-1], "gnu"])
    with pytest.raises(DataError, match=r"'gnu'; only in the file: none\. Of a teacher .* class_names"):
        columns_of_classes(file, [*own, "gnu"])


def test_the_rest_is_spread_by_shares(tmp_path):
    file = open_arrays(write(tmp_path / "x.npz", CONTENT["shares"]))
    shares = [100, 50, 20, 10, 5, 1]
    found = stored_logits(file, C, rest_shares=shares).rows(torch.arange(N)).exp()
    row = int(torch.randint(N, (1,), generator=torch.Generator().manual_seed(1)))
    others = [c for c in range(C) if c not in INDICES[row].tolist()]
    rest = 1 - float(VALUES[row].exp().sum())
    for c in others:
        expected = rest * shares[c] / sum(shares[other] for other in others)
        assert float(found[row, c]) == pytest.approx(expected, rel=1e-4)


def test_a_probability_of_zero_is_finite_and_stays_next_to_nothing(tmp_path):
    probabilities = np.eye(C, dtype=np.float32)[np.arange(N) % C]
    found = stored_logits(open_arrays(write(tmp_path / "x.npz", {"probabilities": probabilities})), C)
    logits = found.rows(torch.arange(N))
    assert torch.isfinite(logits).all()
    assert float((logits / 4).softmax(1).max(1).values.min()) > 1 - 1e-8


def changed(array, row, column, value):
    copy = array.copy()
    copy[row, column] = value
    return copy


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"logits": changed(LOGITS.numpy(), 9, 1, np.nan)}, ["not finite in 1 row, first in row 9"]),
        ({"logits": changed(LOGITS.numpy(), 9, 1, np.inf)}, ["not finite in 1 row, first in row 9"]),
        ({"logits": CONTENT["probabilities"]["probabilities"]}, ["the logits are probabilities"]),
        ({"probabilities": LOGITS.numpy()}, ["probabilities below 0, or with another sum"]),
        ({"probabilities": changed(CONTENT["probabilities"]["probabilities"], 4, 0, 7)}, ["first in row 4"]),
        ({"values": VALUES.float().numpy() + 4, "indices": INDICES.numpy()}, ["neither probabilities nor"]),
        (
            {
                "values": changed(VALUES.float().numpy(), 2, 0, np.nan),
                "indices": changed(changed(INDICES.numpy(), 3, 0, C), 5, 0, INDICES[5, 1].item()),
            },
            ["not finite in 1 row, first in row 2", "outside of 0 to 5 in 1 row, first in row 3", "twice .*in row 5"],
        ),
    ],
)
def test_what_is_wrong_with_the_numbers_is_told_at_once(tmp_path, arrays, said):
    answers = stored_logits(open_arrays(write(tmp_path / "x.safetensors", arrays)), C)
    problems = answers.problems(torch.arange(N))
    assert len(problems) == len(said)
    for problem, text in zip(problems, said, strict=True):
        assert re.search(text, problem)
    good = [row for row in range(N) if row not in (2, 3, 4, 5, 9)]
    if len(said) > 1 or "first in row" in said[0]:
        assert answers.problems(torch.tensor(good)) == []


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"scores": LOGITS.numpy()}, "path, scores; expected logits or probabilities"),
        ({"values": VALUES.numpy()}, "expected logits or probabilities .* or values and indices"),
        ({"logits": LOGITS.numpy()[:, :4]}, "logits of 4 classes, and the data have 6"),
        ({"logits": LOGITS.numpy()[:, 0]}, r"logits have the shape \(50,\)"),
        ({"values": VALUES.numpy(), "indices": INDICES.numpy()[:, :2]}, r"\(50, 3\), indices \(50, 2\)"),
        ({"values": VALUES.numpy(), "indices": VALUES.numpy()}, "indices are torch.float64; expected whole numbers"),
        ({"values": LOGITS.numpy(), "indices": INDICES.numpy()}, "expected the same"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, said):
    with pytest.raises(DataError, match=said):
        stored_logits(open_arrays(write(tmp_path / "x.npz", arrays)), C)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.npz", None, "there is no file"),
        ("x.txt", b"", r"'\.txt'\. Valid: \.npz, \.parquet, \.safetensors"),
        ("x.safetensors", b"garbage", "safetensors"),
        ("x.npz", b"garbage", "npz|pickled"),
        ("x.parquet", b"garbage", "parquet"),
    ],
)
def test_files_that_cannot_be_read_are_refused(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        open_arrays(tmp_path / name)


def test_lists_of_several_lengths_and_empty_cells_are_refused(tmp_path):
    pq.write_table(pa.table({"logits": [[1.0, 2.0], [1.0]], "id": [1, None]}), tmp_path / "x.parquet")
    file = open_arrays(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="logits has 1 numbers in row 1 and 2 in others"):
        file.numbers("logits")
    with pytest.raises(DataError, match="id is empty in 1 rows"):
        file.numbers("id")


def test_a_file_of_weights_is_told_without_all_its_tensors(tmp_path):
    save_file({f"layer{place}.weight": torch.zeros(1) for place in range(10, 60)}, tmp_path / "weights.safetensors")
    with pytest.raises(DataError, match=r"layer17\.weight and 42 more; expected logits"):
        kind_of_answers(open_arrays(tmp_path / "weights.safetensors"))
