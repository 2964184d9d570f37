"""ONNX in int8, by onnxruntime's static quantization, and the layers that stay in float where rare classes need it.

Shapes: B batch, C classes, N images.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distail import files
from distail.export.formats import quiet_exporters
from distail.export.runtimes import open_onnx

if TYPE_CHECKING:
    from onnx import NodeProto

# Of these the network is made where it computes; what they stand between is then int8 as well.
_OPERATORS = ["Add", "AveragePool", "Clip", "Concat", "Conv", "Gemm", "GlobalAveragePool", "MatMul", "MaxPool", "Relu"]
_LAYERS = ("Conv", "Gemm", "MatMul")
_SCOPES = "pkg.torch.onnx.name_scopes"

Images = NDArray[Any]
Score = Callable[[Path], float]


@dataclass(frozen=True)
class Layer:
    """A layer with weights: its name in the network, and that of its node in the graph."""

    name: str
    node: str


class Quantizer:
    """One ONNX file to others in int8, which differ in the layers that stay float; ranges are found once.

    Args:
        model: the float file.
        calibration: batches as the file takes them.
        folder: for what is written on the way.
    """

    def __init__(self, model: Path, calibration: Sequence[Images], folder: Path) -> None:
        import onnx

        self.model, self.calibration, self.folder = model, calibration, folder
        nodes = onnx.load(model).graph
        self._input = nodes.input[0].name
        weights = {each.name for each in nodes.initializer}
        inside = [node for node in nodes.node if _scope(node).startswith("network")]
        self._outside = [node.name for node in nodes.node if not _scope(node).startswith("network")]
        self.layers = [
            Layer(_layer_name(node), node.name)
            for node in inside
            if node.op_type in _LAYERS and any(name in weights for name in node.input[1:])
        ]

    def write(self, path: Path, *, float_layers: Collection[Layer] = (), only: Layer | None = None) -> Path:
        """The file with every layer in int8 but some; or with one layer alone in int8."""
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        # It advises preprocessing that the exporter has done.
        with quiet_exporters():
            quantize_static(
                self.model,
                path,
                _Reader(self._input, self.calibration),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_LAYERS) if only else _OPERATORS,
                per_channel=True,
                # 7 bits of weights: on x86 without VNNI products of 8 saturate where they are added, without a word.
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=[only.node] if only else [],
                nodes_to_exclude=[*self._outside, *(layer.node for layer in float_layers)],
                calibrate_method=CalibrationMethod.MinMax,
                calibration_cache_path=self.folder / ("ranges-of-layers.json" if only else "ranges.json"),
            )
        return path

    def by_sensitivity(self, images: Images) -> list[Layer]:
        """The layers by how far each alone in int8 moves the logits of these images, most first."""
        exact = open_onnx(self.model, 0)(images)

        def moved(layer: Layer) -> float:
            answers = open_onnx(self.write(self.folder / "one-layer.onnx", only=layer), 0)(images)
            return float(np.square(answers - exact).mean())

        return sorted(self.layers, key=moved, reverse=True)


def quantize(
    model: Path, path: Path, calibration: Sequence[Images], tail_loss: Score, most: float, say: Callable[[str], None]
) -> tuple[str, ...]:
    """Write `path` in int8; where the tail then loses more than `most` points, with as few layers in float as needed.

    Layers are kept in float 1, 2, 4, ... at a time, those first that move the logits most; returned are their names.

    Args:
        tail_loss: of a file, in points, on images that are not the test set's.
        say: told of what takes long.
    """
    with tempfile.TemporaryDirectory(prefix="distail-int8-") as folder:
        quantizer = Quantizer(model, calibration, Path(folder))
        candidate = quantizer.write(Path(folder) / "int8.onnx")
        loss, kept = tail_loss(candidate), 0
        ranked: list[Layer] = []
        while loss > most and kept < len(quantizer.layers):
            if not ranked:
                say(f"int8 loses {loss:.1f} points of the tail: searching for the layers to keep in float")
                ranked = quantizer.by_sensitivity(calibration[0])
            kept = min(2 * kept or 1, len(ranked))
            loss = tail_loss(quantizer.write(candidate, float_layers=ranked[:kept]))
        files.write_bytes(path, candidate.read_bytes())
    return tuple(layer.name for layer in ranked[:kept])


class _Reader:
    """What onnxruntime asks for its calibration batches."""

    def __init__(self, name: str, batches: Sequence[Images]) -> None:
        self._name, self._rest = name, iter(batches)

    def get_next(self) -> dict[str, Images] | None:
        batch = next(self._rest, None)
        return None if batch is None else {self._name: batch}


def _layer_name(node: NodeProto) -> str:
    """The path of the layer in the network: that of its weight, since a normalization may be folded into it."""
    weight = node.input[1]
    known = weight.startswith("network.") and weight.endswith(".weight")
    return (weight.removesuffix(".weight") if known else _scope(node)).removeprefix("network").lstrip(".") or node.name


def _scope(node: NodeProto) -> str:
    """The path of the module that a node is of, such as `network.layer1.0.conv1`."""
    import ast

    scopes = next((each.value for each in node.metadata_props if each.key == _SCOPES), "[]")
    path: list[str] = ast.literal_eval(scopes)
    return path[-2] if len(path) > 1 else ""
