"""A network that teaches: asked about each batch and never trained, which saves what only training needs.

Shapes: B batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection

import torch
from torch import nn

from distail.data.batches import Batch
from distail.inputs import Inputs, call, each_tensor
from distail.models.folding import folded, says_the_same
from distail.outputs import Outputs
from distail.training.cuda_graph import RecordedTeacher
from distail.training.device import RuntimeDevice

Teacher = Callable[[Batch], Outputs]
"""What a teacher says of a batch: a network that looks at its images, or what was stored of it."""


def frozen_teacher(
    network: nn.Module,
    runtime: RuntimeDevice,
    compile_size: int | None = None,
    *,
    graph_sizes: Collection[int] = (),
    tell: Callable[[str], None] = print,
    examples: Inputs | None = None,
) -> Teacher:
    """The network as a teacher: evaluation mode, no gradient, its outputs ordinary tensors.

    What answers is a copy with its batch normalization folded into its convolutions and its weights in the number
    format of use, as far as that says the same but for that format's rounding.

    Args:
        compile_size: compile it for batches of this size, its weights as constants; None: do not compile.
        graph_sizes: on a GPU, record it as a CUDA graph for batches of each of these sizes.
        tell: is told where that cannot be.
        examples: a few inputs such as it is asked about, on which a copy must say what the network does; None: there
            is no copy.
    """
    network.eval().requires_grad_(False)
    fast = network if examples is None else _faster(network, examples, runtime)
    compiled = None if compile_size is None else _compiled(fast, runtime)

    def teacher(batch: Batch) -> Outputs:
        if compiled is not None and len(batch.labels) == compile_size:
            with torch.no_grad(), runtime.autocast():
                answers: Outputs = call(compiled, batch.inputs)
                return answers
        with torch.inference_mode(), runtime.autocast():
            outputs: Outputs = call(fast, batch.inputs)
        # Tensors made under inference_mode cannot be saved for a backward pass; a copy of the logits can.
        features = None if outputs.features is None else outputs.features.clone()
        return Outputs(outputs.logits.clone(), features)

    if graph_sizes and runtime.device.type == "cuda":
        return RecordedTeacher(teacher, graph_sizes, tell)
    return teacher


def _faster(network: nn.Module, examples: Inputs, runtime: RuntimeDevice) -> nn.Module:
    inputs = each_tensor(lambda tensor: tensor.to(runtime.device), examples)
    try:
        fast = folded(network, inputs)
        if runtime.precision == "fp32":
            return fast
        rounded = copy.deepcopy(fast)
        for module in rounded.modules():
            # Autocast rounds the weights of these, and of these alone, to bf16 whenever they are called: but not where
            # a network turns it off, which then finds other weights than it wants.
            if type(module) in (nn.Conv2d, nn.Linear):
                module.to(torch.bfloat16)
        with runtime.autocast():
            return rounded if says_the_same(rounded, fast, inputs) else fast
    except Exception:  # what a user's network holds may refuse to be copied
        return network


def _compiled(network: nn.Module, runtime: RuntimeDevice) -> Callable[..., Outputs]:
    compiled: Callable[..., Outputs] = torch.compile(
        network.forward, options={"freezing": runtime.device.type == "cpu"}
    )
    return compiled
