"""Freed memory is kept: the second tensor of a size costs no page fault."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from distail.training.allocator import keep_freed_memory
if len(sys.argv) > 1 and not keep_freed_memory():
    print(-1)
    sys.exit()
for _ in range(25):
    made = torch.ones(2**24)
    del made
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    made = torch.ones(2**24)
    del made
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments):
    # A process of its own: the setting is for the whole process, and cannot be taken back.
    return int(subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, check=True).stdout)


def test_freed_memory_is_kept_for_the_next_tensors():
    kept = faults("keep")
    if kept < 0:
        pytest.skip("not glibc")
    assert kept < 10_000 < faults()
