"""What a finished network costs where it is used: the size of its file, and the time of one image."""

from __future__ import annotations

import platform
from pathlib import Path

import torch
from torch import Tensor, nn

from distail.data.input_sources import sample_inputs
from distail.evaluation.run_files import Deployment
from distail.inputs import Inputs, call, each_tensor
from distail.latency import Latency, measure_latency, processor_clock
from distail.runner.context import RunContext
from distail.torch_utils import eval_mode
from distail.training.threads import threads

_SECONDS, _MOST = 0.3, 30  # of a run's end, for each network


def deployment_of(run: RunContext, stage: str, network: nn.Module) -> Deployment:
    """Size of the stage's file of weights and time of its network, which is on its own device again afterwards."""
    latency: Latency | None = None
    try:
        latency = _latency(network, sample_inputs(run.data.train, 1))
    except Exception as error:  # of a user's own network, as one that keeps tensors on a GPU: training must not be lost
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        run.reporter.message(f"{stage}: the latency of one image on the CPU could not be measured ({reason})")
    return {"bytes": run.folder.weights(stage).stat().st_size, "latency": latency, "processor": _processor()}


def _latency(network: nn.Module, inputs: Inputs) -> Latency:
    """Of one example on one thread of the CPU, where students are used in the end."""
    example = next(network.parameters(), torch.zeros(()))

    def as_its_own(tensor: Tensor) -> Tensor:
        return tensor.to("cpu", example.dtype if tensor.is_floating_point() else tensor.dtype, copy=True)

    def look() -> object:
        return call(network, each_tensor(as_its_own, inputs))

    try:
        with threads(1), torch.inference_mode(), eval_mode(network):
            network.to("cpu")
            # On one thread the processor's time is what a call takes where nothing else runs, as runs beside it do.
            return measure_latency(
                look, batch=1, threads=1, seconds=_SECONDS, fewest=1, most=_MOST, clock=processor_clock()
            )
    finally:
        network.to(example.device)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine()
