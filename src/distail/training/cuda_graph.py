"""Work of a GPU, recorded once as a CUDA graph and launched whole: the host would launch its kernels one by one.

Shapes: B batch, K values that a step reports.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import nullcontext
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from distail.data.batches import Batch
from distail.data.mixing import Mixed
from distail.methods.own_entries import is_own
from distail.outputs import Outputs
from distail.torch_utils import undisturbed

_WARM_UP = 3  # runs before the recording, in which libraries choose their kernels and reserve memory

Tensors = dict[str, Tensor]
T = TypeVar("T")
Tell = Callable[[str], None]


def can_record(*modules: nn.Module) -> bool:
    """Whether these are made of torch's and this package's layers alone, whose host code does the same at every call.

    >>> can_record(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    True
    """
    return not any(is_own(layer) for module in modules for layer in module.modules())


class NotRecordedError(Exception):
    """The work waits for the GPU, or cannot be recorded for another reason."""


class CudaGraph(Generic[T]):
    """A function of tensors, recorded. A call copies the tensors in, launches the graph and returns the same outputs.

    The outputs are overwritten by the next call. What the host decides while `work` runs is recorded as it was.

    Args:
        work: what is done with the tensors, all of it on their GPU and without waiting for it.
        given: tensors of the shapes and types of every later call.

    Raises:
        NotRecordedError: the work cannot be recorded.
    """

    def __init__(self, work: Callable[[Tensors], T], given: Mapping[str, Tensor]) -> None:
        self._inputs = {name: tensor.clone() for name, tensor in given.items()}
        self._kinds = _kinds(given)
        self._device = next(iter(self._inputs.values())).device
        with torch.cuda.device(self._device):
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP):
                    work(self._inputs)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
                    self._outputs = work(self._inputs)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise NotRecordedError(str(error).splitlines()[0][:200]) from error

    def fits(self, given: Mapping[str, Tensor]) -> bool:
        """Whether these are tensors of the same names, shapes and types."""
        return _kinds(given) == self._kinds

    def __call__(self, given: Mapping[str, Tensor]) -> T:
        with torch.cuda.device(self._device):
            torch._foreach_copy_(list(self._inputs.values()), [given[name] for name in self._inputs])
            self._graph.replay()
        return self._outputs


class _Graphs(Generic[T]):
    """One graph for each size of batch that comes again and again, recorded at the first one.

    Args:
        work: what is recorded.
        sizes: of batches.
        tell: is told where nothing can be recorded; the work then goes on as it is.
        module: of which recording must change nothing.
    """

    def __init__(
        self, work: Callable[[Tensors], T], sizes: Collection[int], tell: Tell, module: nn.Module | None = None
    ) -> None:
        self._work, self._sizes, self._tell, self._module = work, sizes, tell, module
        self._graphs: dict[int, CudaGraph[T]] = {}

    def forget(self) -> None:
        self._graphs = {}

    def run(self, batch: Batch, teacher: Outputs | None = None) -> T | None:
        """What the work gives, in tensors that the next run overwrites; None where it is not recorded."""
        size = len(batch.labels)
        if size not in self._sizes:
            return None
        given = _tensors_of(batch, teacher)
        if size not in self._graphs:
            try:
                with nullcontext() if self._module is None else undisturbed(self._module):
                    self._graphs[size] = CudaGraph(self._work, given)
            except NotRecordedError as error:
                self._sizes = ()
                self._tell(
                    f"trainer.cuda_graphs: kernels are launched one by one, as a step cannot be recorded ({error})"
                )
                return None
        graph = self._graphs[size]
        return graph(given) if graph.fits(given) else None


class Computed(NamedTuple):
    """What a forward and backward pass leaves beside gradients.

    `finite` (2,) bool says whether the loss and the teacher's logits are, `values` (K,) float32 are what `names` name.
    """

    finite: Tensor
    names: tuple[str, ...]
    values: Tensor


Compute = Callable[[Batch, Outputs | None], Computed]


class RecordedPass:
    """A forward and backward pass, recorded; batches of other sizes run as they are.

    Args:
        compute: the pass.
        module: whose buffers it changes.
        parameters: whose gradients it leaves.
        sizes: of the batches to record.
        tell: is told where nothing can be recorded.
    """

    def __init__(
        self,
        compute: Compute,
        module: nn.Module,
        parameters: Iterable[nn.Parameter],
        sizes: Collection[int],
        tell: Tell,
    ) -> None:
        self._compute, self._parameters = compute, list(parameters)
        self._graphs = _Graphs(self._work, sizes, tell, module)
        self._state: object = None

    def hold_for(self, state: object) -> None:
        """Record anew where what the host decides by is another than before."""
        if state != self._state:
            self.forget()
        self._state = state

    def forget(self) -> None:
        """Let go of the graphs and their memory."""
        self._graphs.forget()

    def __call__(self, batch: Batch, teacher: Outputs | None) -> Computed:
        """Leaves the gradients of this batch alone."""
        found = self._graphs.run(batch, teacher)
        if found is None:
            for parameter in self._parameters:  # those of a recording that failed
                parameter.grad = None
            return self._compute(batch, teacher)
        computed, gradients = found
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        return computed

    def _work(self, inputs: Tensors) -> tuple[Computed, list[Tensor | None]]:
        for parameter in self._parameters:
            parameter.grad = None
        computed = self._compute(*_batch_of(inputs))
        return computed, [parameter.grad for parameter in self._parameters]


class RecordedTeacher:
    """A teacher's answers, recorded; batches of other sizes are answered as they are.

    Args:
        teacher: a network that is not trained.
        sizes: of the batches to record.
        tell: is told where nothing can be recorded.
    """

    def __init__(self, teacher: Callable[[Batch], Outputs], sizes: Collection[int], tell: Tell) -> None:
        self._teacher = teacher
        self._graphs = _Graphs(lambda inputs: teacher(_batch_of(inputs)[0]), sizes, tell)

    def __call__(self, batch: Batch) -> Outputs:
        """Tensors of their own, which no later call overwrites."""
        outputs = self._graphs.run(batch._replace(mixed=None))
        if outputs is None:
            return self._teacher(batch)
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
