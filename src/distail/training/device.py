"""Where training runs: the device, its number format, and how the C library keeps freed memory there."""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from distail.errors import ConfigError
from distail.training.distributed import SINGLE_PROCESS, Processes, runs_on_cpu

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Below this many pixels a side, casting costs more than bf16 arithmetic saves (benchmarks/README.md).
_SMALLEST_BF16_SIDE = 16

# Parameters of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# Above any tensor of a training step, in bytes.
_KEEP_ALL, _KEEP_LARGEST = 2**31 - 1, 2**30
_RETURN_FROM = 2**20
# Of images, in pixels a side. Large batches of unequal tensors leave gaps in kept memory that nothing fits into.
_LARGEST_SIDE_KEPT = 64


@dataclass(frozen=True)
class RuntimeDevice:
    """What one process runs on.

    Attributes:
        precision: `fp32` or `bf16`.
        processes: those that share the run.
    """

    device: torch.device
    precision: str
    processes: Processes = SINGLE_PROCESS

    @property
    def channels_last(self) -> bool:
        """Convolutions on CPUs and tensor cores prefer this layout: 1.3 times as fast on a CPU, in fp32 and bf16."""
        return self.device.type == "cpu" or (self.device.type == "cuda" and supports_fast_bf16(self.device))

    def autocast(self) -> AbstractContextManager[None]:
        """Forward passes inside run in the number format."""
        return torch.autocast(self.device.type, _DTYPES[self.precision], enabled=self.precision != "fp32")


def select_device(device: str, precision: str, image_side: int, processes: Processes = SINGLE_PROCESS) -> RuntimeDevice:
    """Resolve `auto` for device and precision.

    Args:
        device: `auto`, or what `torch.device` takes.
        precision: `auto`, `fp32` or `bf16`.
        image_side: pixels; `auto` keeps fp32 for very small images.
        processes: those that share the run.

    Raises:
        ConfigError: the device does not exist here, or is one for several processes.
    """
    from accelerate import PartialState

    on_cpu = runs_on_cpu(device)
    state = PartialState(cpu=on_cpu)
    chosen = torch.device("cpu") if on_cpu else _accelerator(state.device, processes.local_rank)
    if device not in ("auto", "cpu"):
        chosen = _existing_device(device, chosen)
        if processes.size > 1 and torch.device(device).index is not None:
            raise ConfigError(
                f"{device!r} is one device, and there are {processes.size} processes, which need one each: "
                f"say {torch.device(device).type!r} or 'auto'"
            )
    if precision == "auto":
        precision = "bf16" if image_side >= _SMALLEST_BF16_SIDE and supports_fast_bf16(chosen) else "fp32"
    return RuntimeDevice(chosen, precision, processes)


def supports_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 arithmetic is in the hardware, not emulated."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported())
    return False


def _accelerator(found: torch.device, local_rank: int) -> torch.device:
    """What accelerate found; it keeps to the CPU if an earlier run of this program was to stay there."""
    if found.type == "cpu" and torch.cuda.is_available():
        return torch.device("cuda", local_rank)
    if found.type == "cpu" and torch.backends.mps.is_available():
        return torch.device("mps")
    return found


def _existing_device(name: str, default: torch.device) -> torch.device:
    """The device of this name; the default is the one of its type that this process shall use."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        available = ["auto", "cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        reason = str(error).splitlines()[0].split(" device type at start")[0][:80]
        raise ConfigError(f"{name!r} cannot be used here ({reason}). Valid: {', '.join(available)}.") from None
    return default if device.type == default.type and device.index is None else device


def configure_malloc(image_side: int) -> bool:
    """Keep freed memory where images are small, give it back where they are large; whether the C library obeys.

    Small images: else glibc maps large tensors anew, and the system clears each of their pages: 8,880 page faults and
    22 of 387 ms of processor time in a ResNet-20 step (bf16, batch 128, one thread), measured with
    benchmarks/page_faults.py.

    More than 64 pixels a side: tensors of a megabyte and more are mapped each on its own. Batches of 128 images of 224
    pixels held 184 MB so; 1,457 MB by glibc's own moving threshold, and rising; 2,139 MB if kept. In huge pages, which
    the command line asks torch for, a batch then costs 124 ms of processor time instead of 198.

    For the whole process. Other C libraries have their own ways and are left alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    if image_side > _LARGEST_SIDE_KEPT:
        return bool(mallopt(_M_MMAP_THRESHOLD, _RETURN_FROM))
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEEP_LARGEST) and mallopt(_M_TRIM_THRESHOLD, _KEEP_ALL))
