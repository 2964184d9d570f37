"""Work of a GPU, recorded once as a CUDA graph and launched whole: the host would launch its kernels one by one.

Shapes: B batch, K values that a step reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from distail.data.batches import Batch
from distail.data.mixing import Mixed
from distail.errors import TrainingError
from distail.outputs import Outputs
from distail.torch_utils import undisturbed

_WARM_UP = 3  # runs before the recording, in which libraries choose their kernels and reserve memory

Tensors = dict[str, Tensor]
T = TypeVar("T")


def can_record(*modules: nn.Module) -> bool:
    """Whether these are made of torch's and this package's layers alone, whose host code does the same at every call.

    >>> can_record(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    True
    """
    kinds = {type(layer).__module__ for module in modules for layer in module.modules()}
    return all(f"{kind}.".startswith(("torch.nn.", "distail.")) for kind in kinds)


class CudaGraph(Generic[T]):
    """A function of tensors, recorded. A call copies the tensors in, launches the graph and returns the same outputs.

    The outputs are overwritten by the next call. What the host decides while `work` runs is recorded as it was.

    Args:
        work: what is done with the tensors, all of it on the GPU and without waiting for it.
        given: tensors of the shapes and types of every later call.

    Raises:
        TrainingError: the work waits for the GPU, or cannot be recorded for another reason.
    """

    def __init__(self, work: Callable[[Tensors], T], given: Mapping[str, Tensor]) -> None:
        self._inputs = {name: tensor.clone() for name, tensor in given.items()}
        try:
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP):
                    work(self._inputs)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._outputs = work(self._inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise TrainingError(
                f"a step cannot be recorded as a CUDA graph ({str(error).splitlines()[0][:200]}); set "
                "trainer.cuda_graphs: false"
            ) from error

    def fits(self, given: Mapping[str, Tensor]) -> bool:
        """Whether these are tensors of the same names, shapes and types."""
        return _kinds(given) == _kinds(self._inputs)

    def __call__(self, given: Mapping[str, Tensor]) -> T:
        torch._foreach_copy_(list(self._inputs.values()), [given[name] for name in self._inputs])
        self._graph.replay()
        return self._outputs


class Computed(NamedTuple):
    """What a forward and backward pass leaves beside gradients.

    `finite` (2,) bool says whether the loss and the teacher's logits are, `values` (K,) float32 are what `names` name.
    """

    finite: Tensor
    names: tuple[str, ...]
    values: Tensor


Compute = Callable[[Batch, Outputs | None], Computed]


class RecordedPass:
    """A forward and backward pass over full batches, recorded at the first one; smaller batches run as they are.

    Args:
        compute: the pass; it adds to the gradients of the parameters.
        module: whose buffers it changes.
        parameters: whose gradients it leaves.
        size: of a full batch.
    """

    def __init__(self, compute: Compute, module: nn.Module, parameters: Iterable[nn.Parameter], size: int) -> None:
        self._compute, self._module, self._size = compute, module, size
        self._parameters = list(parameters)
        self._graph: CudaGraph[tuple[Computed, list[Tensor | None]]] | None = None

    def forget(self) -> None:
        """Record anew at the next full batch: what the host decides has changed."""
        self._graph = None

    def __call__(self, batch: Batch, teacher: Outputs | None) -> Computed:
        """Gradients are those of this batch alone."""
        given = _tensors_of(batch, teacher)
        if len(batch.labels) != self._size:
            return self._compute(batch, teacher)
        if self._graph is None:
            self._record(given)
        assert self._graph is not None
        if not self._graph.fits(given):
            return self._compute(batch, teacher)
        computed, gradients = self._graph(given)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        return computed

    def _record(self, given: Tensors) -> None:
        def work(inputs: Tensors) -> tuple[Computed, list[Tensor | None]]:
            for parameter in self._parameters:
                parameter.grad = None
            computed = self._compute(*_batch_of(inputs))
            return computed, [parameter.grad for parameter in self._parameters]

        with undisturbed(self._module):
            self._graph = CudaGraph(work, given)


class RecordedTeacher:
    """A teacher's answers to full batches, recorded at the first one; other batches are answered as they are.

    Args:
        teacher: a network that is not trained.
        size: of a full batch.
    """

    def __init__(self, teacher: Callable[[Batch], Outputs], size: int) -> None:
        self._teacher, self._size = teacher, size
        self._graph: CudaGraph[Outputs] | None = None

    def __call__(self, batch: Batch) -> Outputs:
        """Tensors of their own, which no later call overwrites."""
        given = _tensors_of(batch._replace(mixed=None), None)
        if len(batch.labels) != self._size:
            return self._teacher(batch)
        if self._graph is None:
            self._graph = CudaGraph(lambda inputs: self._teacher(_batch_of(inputs)[0]), given)
        if not self._graph.fits(given):
            return self._teacher(batch)
        outputs = self._graph(given)
        features = None if outputs.features is None else outputs.features.clone()
        return Outputs(outputs.logits.clone(), features)


def _kinds(given: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in given.items()}


def _tensors_of(batch: Batch, teacher: Outputs | None) -> Tensors:
    inputs = batch.inputs if isinstance(batch.inputs, dict) else {"": batch.inputs}
    given = {"labels": batch.labels, "index": batch.index, **{f"input {name}": each for name, each in inputs.items()}}
    if teacher is not None:
        given["teacher"] = teacher.logits
        if teacher.features is not None:
            given["teacher features"] = teacher.features
    if batch.mixed is not None:
        given |= {"mixed labels": batch.mixed.labels, "mixed own": batch.mixed.own}
    return given


def _batch_of(given: Tensors) -> tuple[Batch, Outputs | None]:
    inputs = {name.removeprefix("input "): each for name, each in given.items() if name.startswith("input ")}
    mixed = Mixed(given["mixed labels"], given["mixed own"]) if "mixed own" in given else None
    batch = Batch(given["index"], inputs.get("", inputs), given["labels"], mixed=mixed)
    return batch, Outputs(given["teacher"], given.get("teacher features")) if "teacher" in given else None
