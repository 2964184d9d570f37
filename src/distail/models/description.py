"""What a file of weights says of its network: enough to build it again, to feed it and to name its answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from distail.errors import CheckpointError, Problems
from distail.inputs import Inputs

RESIZE = (
    "both sides by one factor until the image covers height x width, bilinear with antialiasing; the center is kept"
)
NORMALIZATION = "(levels of 0 to 255 / 255 - mean) / std, by channel"

INPUT_SHAPES = "input_shapes"
"""The key that only files of networks without images have."""
COLUMNS = "columns"
"""The key under which the file of a network for tables says how columns become numbers (`distail.data.columns`)."""
ARRAY_NORMALIZATION = "(values - mean) / std, by the first dimension of an example; 0 where a value is missing"

_LARGEST = 2**53  # that float64 holds exactly
Value = TypeVar("Value")


@dataclass(frozen=True)
class Description:
    """A network, and the images that its stored tensors want.

    Attributes:
        model, shortcut, classifier: what `create_model` builds it from.
        class_names: in the order of the logits.
        in_channels, height, width: of the images; `resize` and `normalization` in the file say in words how other
            sizes become this one and levels become numbers.
        mean, std: per channel in units of 0 to 1, as the stored tensors want them: those of a timm model are timm's.
        class_counts: training images of each class; None where the file does not say.
        bit_depth: how many of their 16 bits grey images use, as `data.bit_depth`.
        options: what only some networks know, such as `hidden` of `mlp`.

    >>> told = Description("resnet8", "conv", "linear", ("cat", "dog"), 1, 8, 8, (0.5,), (0.25,), (9, 3)).metadata()
    >>> told["class_names"], told["image_size"]
    ('["cat", "dog"]', '8')
    >>> Description.read(told, "student.safetensors").class_counts
    (9, 3)
    """

    model: str
    shortcut: str
    classifier: str
    class_names: tuple[str, ...]
    in_channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_counts: tuple[int, ...] | None = None
    bit_depth: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def image_size(self) -> int:
        """The shorter side, with which `create_model` builds the network."""
        return min(self.height, self.width)

    def metadata(self) -> dict[str, str]:
        """The description as texts, which is what a file of weights can hold."""
        told = {
            "model": self.model,
            "shortcut": self.shortcut,
            "classifier": self.classifier,
            "class_names": json.dumps(list(self.class_names)),
            "in_channels": str(self.in_channels),
            "image_size": str(self.image_size),
            "height": str(self.height),
            "width": str(self.width),
            "resize": RESIZE,
            "normalization": NORMALIZATION,
            "mean": json.dumps(list(self.mean)),
            "std": json.dumps(list(self.std)),
        }
        if self.class_counts is not None:
            told["class_counts"] = json.dumps(list(self.class_counts))
        if self.bit_depth is not None:
            told["bit_depth"] = str(self.bit_depth)
        return told | {key: str(value) for key, value in self.options.items()}

    @staticmethod
    def read(metadata: Mapping[str, str], file: str | Path) -> Description:
        """What the metadata of a file say; files of earlier versions lack height and width, which are then equal.

        Raises:
            CheckpointError: they lack something, or it is damaged; all problems are told.
        """
        if INPUT_SHAPES in metadata:
            raise CheckpointError(
                f"{str(file)!r}: its network takes no images, but examples of {metadata[INPUT_SHAPES][:80]}; `distail "
                "predict`, `export` and load_student are for images. Build the network "
                f"({metadata.get('model', '')[:80]!r}), load the file with distail.models.load_weights and standardize "
                "inputs by its mean and std"
            )
        told, problems = _Metadata(metadata), Problems()

        def take(read: Callable[[], Value]) -> Value | None:
            return problems.attempt(read)

        model = take(lambda: told.text("model"))
        names = take(lambda: told.names("class_names"))
        channels, side = take(lambda: told.whole("in_channels")), take(lambda: told.whole("image_size"))
        height, width = (take(lambda key=key: told.optional(key, told.whole)) for key in ("height", "width"))  # type: ignore[misc]
        mean, std = take(lambda: told.numbers("mean")), take(lambda: told.numbers("std"))
        counts = take(lambda: told.optional("class_counts", told.wholes))
        depth = take(lambda: told.optional("bit_depth", told.whole))
        options = take(lambda: stored_options(metadata))
        if names is not None and counts is not None and len(counts) != len(names):
            problems.add(f"class_counts: {len(counts)} numbers for {len(names)} classes")
        for key, values in (("mean", mean), ("std", std)):
            if channels is not None and values is not None and len(values) != channels:
                problems.add(f"{key}: {len(values)} numbers for {channels} channels")
        if std is not None and min(std) <= 0:
            problems.add(f"std: {list(std)}; expected numbers above 0")
        problems.stop(f"{str(file)!r} does not say all that is needed to use its network", CheckpointError)
        return Description(
            model or "",
            metadata.get("shortcut", "conv"),
            metadata.get("classifier", "linear"),
            names or (),
            channels or 0,
            height or side or 0,
            width or side or 0,
            mean or (),
            std or (),
            counts,
            depth,
            options or {},
        )


def stored_options(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What only some networks know, as far as a file says it: `hidden`, `depth` and `dropout` of `mlp`.

    Raises:
        CheckpointError: it is damaged.

    >>> stored_options({"model": "mlp", "hidden": "64", "dropout": "0.1"})
    {'hidden': 64, 'dropout': 0.1}
    """
    told = _Metadata(metadata)
    read = {"hidden": told.whole, "depth": told.whole_from_zero, "dropout": told.share}
    return {key: read[key](key) for key in read if key in metadata}


def describe_arrays(
    model: str,
    classifier: str,
    class_names: Sequence[str],
    class_counts: Sequence[int],
    inputs: Inputs,
    mean: Sequence[float],
    std: Sequence[float],
    options: Mapping[str, float],
) -> dict[str, str]:
    """What a file of weights says of a network that takes no images, as texts.

    `input_shapes` are those of one example, by keyword where a network takes keywords (else ""); `mean` and `std` are
    there where inputs are standardized.

    >>> import torch
    >>> told = describe_arrays("mlp", "linear", ["a", "b"], [9, 3], torch.zeros(1, 2), [0.0, 1.0], [1.0, 2.0], {})
    >>> told["input_shapes"], told["std"]
    ('{"": [2]}', '[1.0, 2.0]')
    """
    named = inputs if isinstance(inputs, dict) else {"": inputs}
    told = {
        "model": model,
        "classifier": classifier,
        "class_names": json.dumps(list(class_names)),
        "class_counts": json.dumps(list(class_counts)),
        INPUT_SHAPES: json.dumps({name: list(tensor.shape[1:]) for name, tensor in named.items()}),
    }
    if mean:
        told |= {"mean": json.dumps(list(mean)), "std": json.dumps(list(std))}
        told["normalization"] = ARRAY_NORMALIZATION
    return told | {key: str(value) for key, value in options.items()}


@dataclass(frozen=True)
class _Metadata:
    """Texts of a file, read as what they stand for; a `CheckpointError` names the key."""

    texts: Mapping[str, str]

    def text(self, key: str) -> str:
        if not self.texts.get(key):
            raise CheckpointError(f"{key}: it says none; files that `distail run` writes do")
        return self.texts[key]

    def optional(self, key: str, read: Callable[[str], Value]) -> Value | None:
        return read(key) if key in self.texts else None

    def whole(self, key: str) -> int:
        value: int = self._json(key)
        return value if _is_count(value) else self._refuse(key, "a whole number of at least 1")

    def whole_from_zero(self, key: str) -> int:
        value: int = self._json(key)
        return value if value == 0 or _is_count(value) else self._refuse(key, "a whole number of at least 0")

    def share(self, key: str) -> float:
        value = self._json(key)
        usable = type(value) in (int, float) and 0 <= value < 1
        return float(value) if usable else self._refuse(key, "a number from 0 to below 1")

    def wholes(self, key: str) -> tuple[int, ...]:
        values = self._list(key)
        return tuple(values) if all(map(_is_count, values)) else self._refuse(key, "whole numbers of at least 1")

    def numbers(self, key: str) -> tuple[float, ...]:
        values = self._list(key)
        usable = all(type(value) in (int, float) and abs(value) < _LARGEST for value in values)
        return tuple(map(float, values)) if usable else self._refuse(key, "finite numbers")

    def names(self, key: str) -> tuple[str, ...]:
        values = self._list(key)
        if not all(isinstance(value, str) for value in values):
            self._refuse(key, "texts")
        return tuple(values)

    def _list(self, key: str) -> Sequence[Any]:
        value = self._json(key)
        return value if isinstance(value, list) and value else self._refuse(key, "a JSON list")

    def _json(self, key: str) -> Any:
        text = self.text(key)
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return self._refuse(key, "JSON")

    def _refuse(self, key: str, expected: str) -> Any:
        raise CheckpointError(f"{key}: it says {self.texts[key][:80]!r}; expected {expected}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < _LARGEST
