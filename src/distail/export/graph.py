"""What is exported: from an image, or a row of numbers, as a device has it to logits and probabilities, in one graph.

Shapes: B batch, C classes; H, W of the images given.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from distail.data.arrays import Standardized
from distail.inference.student import Student
from distail.models.array_description import ArrayDescription
from distail.models.feature_tap import called_classifier
from distail.outputs import logits_in

Input = Literal["uint8", "float", "array"]
INPUTS: tuple[Input, ...] = ("uint8", "float")
"""What a file can take of images; that of a student for arrays takes these as they are."""
_SAME = 1e-4


@dataclass(frozen=True)
class Signature:
    """What a file takes.

    Attributes:
        input: `uint8`, levels (B, H, W, channels); `float`, (B, channels, H, W) of 0 to 1; or `array`, (B, ...) in the
            data's own units, nan where a value is missing.
        batch: how many images at once; None leaves it open.
        any_size: whether height and width are open, so that images are resized in the graph.
    """

    input: Input
    batch: int | None
    any_size: bool

    @property
    def name(self) -> str:
        """What the file calls its input."""
        return "inputs" if self.input == "array" else "image"

    def example(self, student: Student, batch: int = 2) -> Tensor:
        """Inputs as the file takes them; open sizes are others than the network's, so that none is taken for fixed."""
        told = student.description
        if isinstance(told, ArrayDescription):
            return told.example(self.batch or batch)
        height, width = (told.height + 3, told.width + 5) if self.any_size else (told.height, told.width)
        count = self.batch or batch
        if self.input == "float":
            return torch.rand(count, told.in_channels, height, width)
        return torch.randint(0, 256, (count, height, width, told.in_channels), dtype=torch.uint8)

    def open_dimensions(self) -> list[int]:
        """The dimensions of the input whose size is left open."""
        sizes = {"uint8": [1, 2], "float": [2, 3], "array": []}[self.input]
        return [*([0] if self.batch is None else []), *(sizes if self.any_size else [])]


class Deployed(nn.Module):
    """A student without Python around it: inputs (see `Signature`) to logits (B, C) and probabilities (B, C)."""

    offset: Tensor

    def __init__(self, student: Student, signature: Signature) -> None:
        super().__init__()
        self.signature = signature
        self.preprocess = student.preprocess
        self.network, folded = _with_offset(student)
        offset_C = torch.zeros_like(student.offset) if folded else student.offset
        self.register_buffer("offset", offset_C, persistent=False)
        self.adds = bool(offset_C.any())
        self.multi_label = student.multi_label

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        logits_BC = _logits(self.network, self._normalized(inputs))
        if self.adds:
            logits_BC = logits_BC + self.offset
        return logits_BC, logits_BC.sigmoid() if self.multi_label else logits_BC.softmax(1)

    def _normalized(self, inputs: Tensor) -> Tensor:
        if isinstance(self.preprocess, Standardized):
            standardized: Tensor = self.preprocess(inputs)
            return standardized
        if self.signature.input == "uint8":
            levels, rounded = inputs.permute(0, 3, 1, 2).to(torch.float32), True
        else:
            levels, rounded = inputs * 255, False
        if self.signature.any_size:
            levels = self.preprocess.resized(levels, rounded)
        return self.preprocess.normalized(levels)


def _logits(network: nn.Module, normalized: Tensor) -> Tensor:
    logits_BC = logits_in(network(normalized))
    assert isinstance(logits_BC, Tensor)
    return logits_BC


def _with_offset(student: Student) -> tuple[nn.Module, bool]:
    """The network with the student's offset in its classifier's bias, and whether it is there.

    A classifier without a bias, or one that is not the network's last word, has none to take it.
    """
    if not student.offset.any():
        return student.network, True
    network, told = copy.deepcopy(student.network), student.description
    inputs = told.example(2)
    with torch.no_grad():
        expected = _logits(network, inputs) + student.offset
        classifier = network.get_submodule(called_classifier(network, len(told.class_names), inputs))
        bias = getattr(classifier, "bias", None)
        if not isinstance(bias, Tensor) or bias.shape != student.offset.shape:
            return student.network, False
        bias += student.offset
        # Of a network that does more behind its classifier this is not the same.
        same = torch.allclose(_logits(network, inputs), expected, atol=_SAME, rtol=_SAME)
    return (network, True) if same else (student.network, False)
