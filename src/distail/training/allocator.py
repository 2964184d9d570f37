"""What becomes of the memory that tensors free: kept for the next ones, or given back to the system."""

from __future__ import annotations

import ctypes

# Parameters of glibc's mallopt, and values above any tensor of a training step.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
KEPT, LARGEST_KEPT = 2**31 - 1, 2**30
# Of images, in pixels a side. Large batches of unequal tensors leave gaps in kept memory that nothing fits into.
LARGEST_SIDE_KEPT = 64
GIVEN_BACK_FROM = 2**20


def settle_freed_memory(image_side: int) -> bool:
    """Keep freed memory where images are small, give it back where they are large; whether the C library obeys.

    Small images: else glibc maps large tensors anew, and the system clears each of their pages: 8,880 page faults and
    22 of 387 ms of processor time in a ResNet-20 step (bf16, batch 128, one thread), measured with
    benchmarks/page_faults.py.

    More than ``LARGEST_SIDE_KEPT`` pixels a side: tensors of a megabyte and more are mapped each on its own. Batches of
    128 images of 224 pixels held 184 MB so; 1,457 MB by glibc's own moving threshold, and rising; 2,139 MB if kept. In
    huge pages, which the command line asks torch for, a batch then costs 124 ms of processor time instead of 198.

    For the whole process. Other C libraries have their own ways and are left alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    if image_side > LARGEST_SIDE_KEPT:
        return bool(mallopt(MMAP_THRESHOLD, GIVEN_BACK_FROM))
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(TRIM_THRESHOLD, KEPT))
