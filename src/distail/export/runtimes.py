"""What runs an exported file: each opened with as much as it needs, so that memory and time are the file's own.

Shapes: B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Run = Callable[[NDArray[Any]], NDArray[np.float32]]
"""Inputs as the file takes them to logits (B, C)."""


def open_onnx(path: Path, threads: int) -> Run:
    """A file of ONNX in onnxruntime; 0 threads are as many as there are cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda inputs: np.asarray(session.run(["logits"], {name: inputs})[0])


def open_torch(path: Path, threads: int) -> Run:
    """A file of `torch.export` in PyTorch."""
    import torch

    _set_threads(threads)
    module = torch.export.load(path).module()

    def run(images: NDArray[Any]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = module(torch.from_numpy(images))[0].numpy()
        return logits

    return run


def open_executorch(path: Path, threads: int) -> Run:
    """A file of ExecuTorch in its runtime, which takes its own number of threads."""
    import torch
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method("forward")
    # It goes by the memory alone: a view in another order would be read as it lies there.
    return lambda images: np.array(method.execute([torch.from_numpy(np.ascontiguousarray(images))])[0])


def open_student(path: Path, threads: int) -> Run:
    """The student itself in PyTorch, from its run or its file; takes levels (B, H, W, channels), or arrays."""
    import torch

    from distail.inference.student import load_student
    from distail.models.description import Description

    _set_threads(threads)
    student = load_student(path)
    # Arrays as they are: the codes of categories that a user gives are checked, those of random numbers are not valid.
    answer = student if isinstance(student.description, Description) else student.logits

    def run(images: NDArray[Any]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = answer(torch.from_numpy(images)).numpy()
        return logits

    return run


def _set_threads(threads: int) -> None:
    import torch

    from distail.torch_utils import usable_cores

    torch.set_num_threads(threads or usable_cores())


RUNTIMES: dict[str, Callable[[Path, int], Run]] = {
    "student": open_student,
    "onnx": open_onnx,
    "torch": open_torch,
    "executorch": open_executorch,
}
