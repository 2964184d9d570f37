"""Memory that tensors free is kept for the next ones."""

from __future__ import annotations

import ctypes

# Parameters of glibc's mallopt, and values above any tensor of a training step.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
KEPT, LARGEST_KEPT = 2**31 - 1, 2**30
# Of images, in pixels. Large batches leave gaps that nothing fits into: batches of 128 streamed images of 224 pixels
# held 2,139 MB instead of 228 MB, measured with benchmarks/streaming.py's ways.
LARGEST_SIDE_KEPT = 64


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory instead of giving it back to the system; whether it could be told so.

    Else glibc maps large tensors anew, and the system clears each of their pages: 8,880 page faults and 22 of 387 ms of
    processor time in a ResNet-20 step (bf16, batch 128, one thread), measured with benchmarks/page_faults.py. For the
    whole process; a data set of more than a gigabyte is mapped on its own and given back as ever. Not for
    images of more than ``LARGEST_SIDE_KEPT`` pixels a side. Other C libraries have their own ways and are left alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(TRIM_THRESHOLD, KEPT))
