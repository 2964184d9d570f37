"""One network, trained by several processes: what keeps its copies the same network."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from distail.data.batches import Batch
from distail.errors import ModelError
from distail.methods.context import Terms
from distail.outputs import Outputs
from distail.torch_utils import eval_mode
from distail.training.processes import Processes
from distail.training.step import TrainingStep

Step = Callable[[Tensor, Tensor, Tensor, Outputs | None], tuple[Tensor, Terms]]


def shared_step(step: TrainingStep, batch: Batch, teacher: Outputs | None) -> Step:
    """The training step, whose gradients are their mean over all processes.

    Args:
        batch, teacher: any batch, by which is seen whether the loss leaves parameters out: no process may wait for
            those, and looking for them at every step would cost time.
    """
    with eval_mode(step), torch.compiler.set_stance("force_eager"):  # one look is not worth compiling for
        loss, _ = step(batch.images, batch.labels, batch.index, teacher)
    trained = [parameter for parameter in step.parameters() if parameter.requires_grad]
    some_unused = any(gradient is None for gradient in torch.autograd.grad(loss, trained, allow_unused=True))
    with warnings.catch_warnings():
        # torch 2.13 has a new name for `broadcast_buffers`, which older releases do not know.
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(step, broadcast_buffers=False, find_unused_parameters=some_unused)


def with_shared_statistics(network: nn.Module) -> nn.Module:
    """The network with batch normalisation over the batches of all processes.

    Raises:
        ModelError: one of its layers does more than normalise, such as timm's, which hold an activation: torch would
            leave that out.
    """
    odd = {type(module).__name__ for module in network.modules() if _does_more_than_normalise(module)}
    if odd:
        raise ModelError(
            f"trainer.sync_batch_norm would leave out what {', '.join(sorted(odd))} of this network do beside "
            "normalising; set it false"
        )
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return converted


def _does_more_than_normalise(module: nn.Module) -> bool:
    plain = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    return isinstance(module, _BatchNorm) and type(module) not in plain


def settle_batch_statistics(network: nn.Module, processes: Processes) -> None:
    """Average the running statistics of batch normalisation, of which each process has seen its own part.

    They are moving averages, which are linear: when and how often this happens changes nothing but rounding.
    """
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    tracked = [value for layer in layers for value in (layer.running_mean, layer.running_var)]
    processes.average([value for value in tracked if value is not None])
