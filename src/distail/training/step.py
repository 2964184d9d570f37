"""One training step, which knows nothing of methods: student, teacher, gradients and batch statistics of all processes.

Shapes: B batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from distail.data.batches import Batch
from distail.data.mixing import Mixed
from distail.errors import ModelError, TrainingError
from distail.inputs import Inputs, call, first_tensor
from distail.methods.method import Method, Terms
from distail.outputs import Outputs
from distail.torch_utils import eval_mode, undisturbed
from distail.training.device import RuntimeDevice
from distail.training.distributed import Processes

# By so many steps on so few images is seen whether a student leaves out layers at random.
_LOOKS, _FEW = 12, 4
Step = Callable[[Inputs, Tensor, Tensor, Outputs | None, Mixed | None], tuple[Tensor, Terms]]
"""Inputs, labels and indices of a batch, the teacher's outputs and what is mixed, to the loss and its terms."""


class TrainingStep(nn.Module):
    """Student and method as one module, so that whatever wraps it (DDP) sees all that is trained.

    Args:
        compile_size: compile the student for batches of this size: a second compilation, for the last batch of
            an epoch, would cost more than it saves. None: do not compile.
        distillation_only: whether mixed images carry no other term.
        weights: (N,), how much each example of the data set counts; None: all alike.
    """

    def __init__(
        self,
        student: nn.Module,
        method: Method,
        runtime: RuntimeDevice,
        compile_size: int | None = None,
        *,
        distillation_only: bool = False,
        weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self._distillation_only = distillation_only
        self._weights = None if weights is None else weights.to(runtime.device)
        self.student = student
        self.method = method
        self.runtime = runtime
        self._compile_size = compile_size
        self._compiled = None if compile_size is None else torch.compile(student.forward)

    def forward(
        self, inputs: Inputs, target: Tensor, index: Tensor, teacher: Outputs | None, mixed: Mixed | None = None
    ) -> tuple[Tensor, Terms]:
        """The loss and the terms that it is made of; apart, because DDP looks for what to differentiate.

        Args:
            inputs: what the student is given, such as images (B, channels, H, W).
            target: labels, (B,) int64 or (B, C) bool.
            index: (B,) int64 rows of the data set.
            mixed: of mixed images, what else they hold.
        """
        compiled = self._compiled if len(target) == self._compile_size else None
        student = student_outputs(compiled or self.student, inputs, self.runtime)
        terms: Terms = self.method(student, teacher, target, index=index)
        if mixed is not None:
            of_others: Terms = self.method(student, teacher, mixed.labels, index=index)
            terms = mixed_terms(terms, of_others, mixed.own, distillation_only=self._distillation_only)
        if self._weights is not None:
            weight_B = self._weights[index]
            terms = Terms({name: weight_B * losses_B for name, losses_B in terms.losses.items()}, terms.statistics)
        return terms.total, terms


def mixed_terms(own: Terms, others: Terms, own_B: Tensor, *, distillation_only: bool) -> Terms:
    """The terms of mixed images from those by either label: each counts by its share (B,) of the image.

    For cross-entropy that is the loss of the mixed label, since it is linear in it; what looks at no label is the same
    by either.

    >>> own, others = (Terms({"supervised": torch.tensor([value, value])}) for value in (1.0, 3.0))
    >>> mixed_terms(own, others, torch.tensor([1.0, 0.25]), distillation_only=False).per_sample.tolist()
    [1.0, 2.5]
    """
    losses_B = {}
    for name, values_B in own.losses.items():
        losses_B[name] = own_B * values_B + (1 - own_B) * others.losses[name]
        if distillation_only and name != "distillation":
            losses_B[name] = losses_B[name] * (own_B == 1)
    return Terms(losses_B, own.statistics)


def student_outputs(student: Callable[..., Outputs], inputs: Inputs, runtime: RuntimeDevice) -> Outputs:
    """The forward pass that training differentiates.

    Raises:
        TrainingError: batch normalization meets a single image.
    """
    try:
        with runtime.autocast():
            outputs: Outputs = call(student, inputs)
            return outputs
    except ValueError as error:
        if len(first_tensor(inputs)) > 1 or "more than 1 value per channel" not in str(error):
            raise
        raise TrainingError(
            "batch normalization cannot learn from a single image, of which this network's last maps have one "
            "pixel; expected training.batch_size of at least 2, and as many training images"
        ) from None


def unused_parameters(student: nn.Module, batch: Batch, runtime: RuntimeDevice, seed: int) -> frozenset[str]:
    """The names of the trainable parameters that one training step leaves without a gradient; changes nothing.

    Args:
        seed: of what the network draws, such as the layers that it leaves out.

    Raises:
        ModelError: no parameter is trainable, or the outputs do not depend on any.
    """
    trained = {name: parameter for name, parameter in student.named_parameters() if parameter.requires_grad}
    if not trained:
        raise ModelError("all its parameters are frozen (requires_grad=False), so it cannot learn")
    with undisturbed(student):
        torch.manual_seed(seed)
        student.train()
        outputs = student_outputs(student, batch.inputs, runtime)
        if not outputs.logits.requires_grad:
            raise ModelError(
                "its outputs are cut off from its parameters in training mode (detach(), torch.no_grad() or numpy in "
                "its forward pass), so it cannot learn"
            )
        labels = batch.labels if batch.labels.ndim == 1 else batch.labels.float()
        loss = functional.cross_entropy(outputs.logits.float(), labels)
        if outputs.features is not None:
            loss = loss + outputs.features.float().mean()
        gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    unused = (name for name, gradient in zip(trained, gradients, strict=True) if gradient is None)
    return frozenset(name.removeprefix("model.") for name in unused)


def distributed_step(step: TrainingStep, batch: Batch, teacher: Outputs | None) -> DistributedDataParallel:
    """The training step, whose gradients are their mean over all processes.

    Args:
        batch, teacher: any batch, by which is seen whether the loss leaves parameters out: no process may wait for
            those, and looking for them at every step would cost time.
    """
    with eval_mode(step), torch.compiler.set_stance("force_eager"):  # one look is not worth compiling for
        loss, _ = step(batch.inputs, batch.labels, batch.index, teacher, batch.mixed)
    trained = [parameter for parameter in step.parameters() if parameter.requires_grad]
    some_unused = any(gradient is None for gradient in torch.autograd.grad(loss, trained, allow_unused=True))
    some_unused = bool(step.runtime.processes.lowest([-(some_unused or _leaves_out_layers(step, batch))])[0])
    with warnings.catch_warnings():
        # torch 2.13 has a new name for `broadcast_buffers`, which older releases do not know.
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(step, broadcast_buffers=False, find_unused_parameters=some_unused)


def _leaves_out_layers(step: TrainingStep, batch: Batch) -> bool:
    """Whether the student drops layers at random (LayerDrop), which in evaluation mode are all there."""
    few = batch.part(slice(_FEW))
    rank, size = step.runtime.processes.rank, step.runtime.processes.size
    looks = [unused_parameters(step.student, few, step.runtime, look * size + rank) for look in range(_LOOKS)]
    return any(looks)


def convert_sync_batch_norm(network: nn.Module) -> nn.Module:
    """The network with batch normalization over the batches of all processes.

    Raises:
        ModelError: one of its layers does more than normalize, such as timm's, which hold an activation: torch would
            leave that out.
    """
    plain = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    odd = {type(layer).__name__ for layer in _batch_norm_layers(network) if type(layer) not in plain}
    if odd:
        raise ModelError(
            f"trainer.sync_batch_norm does not support {', '.join(sorted(odd))} of this network, which do more than "
            "normalize; set it to false"
        )
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return converted


def sync_batch_norm_statistics(network: nn.Module, processes: Processes) -> None:
    """Average the running statistics of batch normalization, of which each process has seen its own part.

    They are moving averages, which are linear: when and how often this happens changes nothing but rounding.
    """
    tracked = [value for layer in _batch_norm_layers(network) for value in (layer.running_mean, layer.running_var)]
    processes.average([value for value in tracked if value is not None])


def _batch_norm_layers(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]
