"""The files that a student can become, and what writes each.

Every file says the same of itself: `Description` and the class names, in the metadata that its format has.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from distail import files
from distail.errors import ConfigError, ModelError
from distail.export.graph import Deployed, Signature
from distail.inference.student import Student
from distail.models.array_description import ArrayDescription

METADATA_FILE = "distail.json"
"""What the metadata of a `torch.export` file are called in it."""
_SIGMOID = (
    "; each probability is the sigmoid of its logit alone, not a softmax: an example has every class whose probability "
    "reaches its number in thresholds, possibly none"
)


@dataclass(frozen=True)
class Format:
    """Which file, what it needs installed, and what it takes where nothing else is asked for."""

    suffix: str
    needs: tuple[str, ...]
    any_size: bool
    write: Callable[[Deployed, Student, Path], None]


def metadata_of(deployed: Deployed, student: Student) -> dict[str, str]:
    """What every exported file says of itself."""
    entries = {} if student.encoding is None else {"entries": json.dumps(student.encoding.entries)}
    multi_label = student.thresholds is not None
    outputs = "logits, probabilities: float32 (batch, classes), in the order of class_names"
    return {
        **student.description.metadata(),
        **entries,
        "input": _input_in_words(deployed.signature, student),
        "outputs": outputs + _SIGMOID * multi_label,
        "adjusted": json.dumps(student.offset.tolist()) if student.offset.any() else "",
        **({"thresholds": json.dumps(student.thresholds)} if multi_label else {}),
    }


def _input_in_words(signature: Signature, student: Student) -> str:
    told = student.description
    if isinstance(told, ArrayDescription):
        sizes = ", ".join(map(str, told.input_shape))
        of = "the numbers of a row: entries names them, encoding says how columns become them" if told.columns else ""
        missing = "not standardized, nan where a value is missing" if told.mean else "as the network takes them"
        return f"inputs: {told.input_type} (batch, {sizes}), {missing}{'; ' * bool(of)}{of}"
    order, most = ("height, width, channels", 255) if signature.input == "uint8" else ("channels, height, width", 1)
    size = "any height and width" if signature.any_size else "height and width as given"
    decoded = "files upright as EXIF says, transparency over white"
    return f"image: {signature.input} (batch, {order}) of 0 to {most}, {size}; {decoded}"


def write_onnx(deployed: Deployed, student: Student, path: Path) -> None:
    """ONNX by torch.onnx's exporter, which folds batch normalization; checked by onnx."""
    import onnx

    example = deployed.signature.example(student)
    with quiet_exporters():
        program = torch.onnx.export(
            deployed.eval(),
            (example,),
            input_names=[deployed.signature.name],
            output_names=["logits", "probabilities"],
            dynamic_shapes=(dict.fromkeys(deployed.signature.open_dimensions(), torch.export.Dim.DYNAMIC),),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    _name_open_dimensions(proto, deployed.signature)
    onnx.helper.set_model_props(proto, metadata_of(deployed, student))
    onnx.checker.check_model(proto)
    files.write_bytes(path, proto.SerializeToString())


def _name_open_dimensions(proto: Any, signature: Signature) -> None:
    of_all = ("batch", "height", "width") if signature.batch is None else ("height", "width")  # arrays have the first
    names = dict(zip(signature.open_dimensions(), of_all, strict=False))
    shape = proto.graph.input[0].type.tensor_type.shape
    was = {place: shape.dim[place].dim_param for place in names}
    for place, name in names.items():
        shape.dim[place].dim_param = name
    for value in (*proto.graph.output, *proto.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            for place, name in names.items():
                if was[place] and dimension.dim_param == was[place]:
                    dimension.dim_param = name


def write_torch(deployed: Deployed, student: Student, path: Path) -> None:
    """`torch.export`: plain PyTorch runs it without a line of this package."""
    content = io.BytesIO()
    with quiet_exporters():
        program = _exported(deployed, student)
        torch.export.save(program, content, extra_files={METADATA_FILE: json.dumps(metadata_of(deployed, student))})
    files.write_bytes(path, content.getvalue())


def write_executorch(deployed: Deployed, student: Student, path: Path) -> None:
    """ExecuTorch for XNNPACK, the processors of phones; beside it `.json`, since the file has no metadata."""
    with quiet_exporters():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        lowered = to_edge_transform_and_lower(_exported(deployed, student), partitioner=[XnnpackPartitioner()])
        content = bytes(lowered.to_executorch().buffer)
    files.write_bytes(path, content)
    files.write_json(path.with_suffix(".json"), metadata_of(deployed, student))


def _exported(deployed: Deployed, student: Student) -> torch.export.ExportedProgram:
    open_dimensions = dict.fromkeys(deployed.signature.open_dimensions(), torch.export.Dim.DYNAMIC)
    example = deployed.signature.example(student)
    return torch.export.export(deployed.eval(), (example,), dynamic_shapes=(open_dimensions,))


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Exporters tell of their own affairs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


FORMATS = {
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), True, write_onnx),
    "torch": Format(".pt2", (), True, write_torch),
    "executorch": Format(".pte", ("executorch",), False, write_executorch),
}


def check_installed(name: str) -> None:
    """Let pass a format whose packages are there.

    Raises:
        ConfigError: which are not, and what installs them.
    """
    missing = [package for package in FORMATS[name].needs if find_spec(package) is None]
    if missing:
        extra = "executorch" if name == "executorch" else "'distail[export]'"
        raise ConfigError(f"--format {name} needs {', '.join(missing)}: pip install {extra}")


def written(name: str, student: Student, signature: Signature, path: Path) -> Deployed:
    """Write one file.

    Raises:
        ModelError: the network cannot be exported; the exporter's own words are told.
    """
    deployed = Deployed(student, signature).requires_grad_(False)
    try:
        FORMATS[name].write(deployed, student, path)
    except OSError:
        raise
    # Exporters trace code of anyone, and raise whatever it meets.
    except Exception as error:
        words = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
        raise ModelError(f"--format {name}: the network cannot be exported ({words})") from error
    return deployed
