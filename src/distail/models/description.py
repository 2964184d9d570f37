"""What the file of a network for images says of it: enough to build it again, to feed it and to name its answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distail.errors import CheckpointError, Problems
from distail.models.metadata import TARGETS, Metadata, Value, stored_options, told_targets
from distail.outputs import SINGLE_LABEL

RESIZE = (
    "both sides by one factor until the image covers height x width, bilinear with antialiasing; the center is kept"
)
NORMALIZATION = "(levels of 0 to 255 / 255 - mean) / std, by channel"


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
        bit_depth: how many of their 16 bits gray images use, as `data.bit_depth`.
        options: what only some networks know, such as `hidden` of `mlp`.
        targets: `single_label`, or `multi_label` where each logit is the log odds of one class.

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
    targets: str = SINGLE_LABEL

    @property
    def image_size(self) -> int:
        """The shorter side, with which `create_model` builds the network."""
        return min(self.height, self.width)

    def example(self, count: int) -> Tensor:
        """Images (count, channels, height, width) such as the network takes, normalized."""
        return torch.randn(count, self.in_channels, self.height, self.width)

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
        told |= told_targets(self.targets)
        return told | {key: str(value) for key, value in self.options.items()}

    @staticmethod
    def read(metadata: Mapping[str, str], file: str | Path) -> Description:
        """What the metadata of a file say; files of earlier versions lack height and width, which are then equal.

        Raises:
            CheckpointError: they lack something, or it is damaged; all problems are told.
        """
        told, problems = Metadata(metadata), Problems()

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
        problems.stop(f"{str(file)!r} does not contain everything needed to use its network", CheckpointError)
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
            metadata.get(TARGETS, SINGLE_LABEL),
        )
