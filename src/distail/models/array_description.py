"""What the file of a network for tables or arrays says of it: enough to build and feed it, and to name its answers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distail.errors import CheckpointError, Problems
from distail.inputs import Inputs
from distail.models.metadata import TARGETS, Metadata, stored_options, told_targets
from distail.outputs import SINGLE_LABEL

INPUT_SHAPES = "input_shapes"
"""The key that only files of networks without images have."""
_INPUT_TYPES, COLUMNS = "input_types", "columns"
_NORMALIZATION = "(values - mean) / std, by the first dimension of an example; 0 where a value is missing"
_ENCODING = (
    "the numbers of a row, column after column: one without levels is its number, not a number where it is missing; "
    "of one with levels each level is 1 where the row has it, else 0, and with other a further number is 1 for every "
    "other level; with missing a further number is 1 where the value is missing. Of one that is embedded a single "
    "number, its code: 1 and the place of the level among levels, which counts from 0; with other the next code is for "
    "every other level; with missing the next after these where the value is missing; 0 for whatever is none of these"
)

_TYPES = ("float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_LARGEST_EXAMPLE = 2**31


@dataclass(frozen=True)
class ArrayDescription:
    """A network, and the examples that its stored tensors want: rows of a table, or arrays of one shape.

    Attributes:
        model, classifier: what `create_model` builds it from.
        class_names: in the order of the logits.
        input_shape: of one example.
        input_type: `float32`, or the type of whole numbers, such as `int64`.
        mean, std: by the first dimension of an example; empty where the network is given its inputs as they are.
        class_counts: training examples of each class; None where the file does not say.
        columns: of a table, how they become numbers, as `distail.data.columns` writes it.
        options: what only some networks know, such as `hidden` of `mlp`.
        targets: `single_label`, or `multi_label` where each logit is the log odds of one class.

    >>> told = ArrayDescription("mlp", "linear", ("a", "b"), (2,), "float32", (0.0, 1.0), (1.0, 2.0), (9, 3))
    >>> told.metadata()["std"], ArrayDescription.read(told.metadata(), "student.safetensors") == told
    ('[1.0, 2.0]', True)
    """

    model: str
    classifier: str
    class_names: tuple[str, ...]
    input_shape: tuple[int, ...]
    input_type: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    class_counts: tuple[int, ...] | None = None
    columns: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    targets: str = SINGLE_LABEL

    @property
    def dtype(self) -> torch.dtype:
        """Of the inputs."""
        found: torch.dtype = getattr(torch, self.input_type)
        return found

    def example(self, count: int) -> Tensor:
        """Inputs (count, ...) such as the network takes; of whole numbers zeros, since it may know no others."""
        if self.dtype.is_floating_point:
            return torch.randn(count, *self.input_shape).to(self.dtype)
        return torch.zeros(count, *self.input_shape, dtype=self.dtype)

    def metadata(self) -> dict[str, str]:
        """The description as texts, which is what a file of weights can hold."""
        return describe_arrays(
            self.model,
            self.classifier,
            self.class_names,
            self.class_counts,
            torch.empty(1, *self.input_shape, dtype=self.dtype),
            self.mean,
            self.std,
            self.options,
            columns=self.columns,
            targets=self.targets,
        )

    @staticmethod
    def read(metadata: Mapping[str, str], file: str | Path) -> ArrayDescription:
        """What the metadata of a file say.

        Raises:
            CheckpointError: they lack something, it is damaged, or the network takes several tensors; all is told.
        """
        told, problems = Metadata(metadata), Problems()
        model = problems.attempt(lambda: told.text("model"))
        names = problems.attempt(lambda: told.names("class_names"))
        counts = problems.attempt(lambda: told.optional("class_counts", told.wholes))
        shape = problems.attempt(lambda: _shape(told))
        kind = problems.attempt(lambda: _type(told))
        standardized = "normalization" in metadata
        mean = problems.attempt(lambda: told.numbers("mean") if standardized else ())
        std = problems.attempt(lambda: told.numbers("std") if standardized else ())
        options = problems.attempt(lambda: stored_options(metadata))
        if names is not None and counts is not None and len(counts) != len(names):
            problems.add(f"class_counts: {len(counts)} numbers for {len(names)} classes")
        for key, values in (("mean", mean), ("std", std)):
            if shape is not None and values and len(values) != shape[0]:
                problems.add(f"{key}: {len(values)} numbers for {shape[0]} columns or channels")
        if std and min(std) <= 0:
            problems.add(f"std: {list(std)[:8]}; expected numbers above 0")
        problems.stop(f"{str(file)!r} does not contain everything needed to use its network", CheckpointError)
        return ArrayDescription(
            model or "",
            metadata.get("classifier", "linear"),
            names or (),
            shape or (),
            kind or "float32",
            mean or (),
            std or (),
            counts,
            metadata.get(COLUMNS),
            options or {},
            metadata.get(TARGETS, SINGLE_LABEL),
        )


def describe_arrays(
    model: str,
    classifier: str,
    class_names: Sequence[str],
    class_counts: Sequence[int] | None,
    inputs: Inputs,
    mean: Sequence[float],
    std: Sequence[float],
    options: Mapping[str, float],
    *,
    columns: str | None = None,
    targets: str = SINGLE_LABEL,
) -> dict[str, str]:
    """What a file of weights says of a network that takes no images, as texts.

    `input_shapes` are those of one example, by keyword where a network takes keywords (else ""); `mean` and `std` are
    there where inputs are standardized, `columns` where they are of a table.

    >>> told = describe_arrays("mlp", "linear", ["a", "b"], [9, 3], torch.zeros(1, 2), [0.0, 1.0], [1.0, 2.0], {})
    >>> told["input_shapes"], told["input_types"]
    ('{"": [2]}', '{"": "float32"}')
    """
    named = inputs if isinstance(inputs, dict) else {"": inputs}
    told = {
        "model": model,
        "classifier": classifier,
        "class_names": json.dumps(list(class_names)),
        INPUT_SHAPES: json.dumps({name: list(tensor.shape[1:]) for name, tensor in named.items()}),
        _INPUT_TYPES: json.dumps({name: str(tensor.dtype).removeprefix("torch.") for name, tensor in named.items()}),
    }
    if class_counts is not None:
        told["class_counts"] = json.dumps(list(class_counts))
    if mean:
        told |= {"mean": json.dumps(list(mean)), "std": json.dumps(list(std)), "normalization": _NORMALIZATION}
    if columns is not None:
        told |= {COLUMNS: columns, "encoding": _ENCODING}
    return told | told_targets(targets) | {key: str(value) for key, value in options.items()}


def _shape(told: Metadata) -> tuple[int, ...]:
    shapes = told.mapping(INPUT_SHAPES)
    if "" not in shapes:
        raise CheckpointError(
            f"its network takes several tensors by name ({', '.join(map(repr, shapes))[:200]}), which predict, export "
            "and load_student do not support: build the network and load the file with distail.models.load_weights"
        )
    shape = shapes[""]
    if not isinstance(shape, list) or any(type(size) is not int or size < 0 for size in shape):
        told.refuse(INPUT_SHAPES, "a list of sizes")
    if math.prod(shape) > _LARGEST_EXAMPLE:
        told.refuse(INPUT_SHAPES, "an example that fits into memory")
    return tuple(shape)


def _type(told: Metadata) -> str:
    """Files of earlier versions do not say it: without means their inputs are whole numbers."""
    if _INPUT_TYPES not in told.texts:
        return "float32" if "mean" in told.texts else "int64"
    kind = told.mapping(_INPUT_TYPES).get("", "float32")
    if kind not in _TYPES:
        told.refuse(_INPUT_TYPES, f"one of {', '.join(_TYPES)}")
    return str(kind)
