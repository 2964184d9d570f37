"""Freed memory is kept for small images, and given back for large ones."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

# Tensors of unequal sizes, one of them freed late: what training batches do to the heap. The largest is above the 32 MB
# where glibc's own moving threshold ends.
PROGRAM = """
import resource, sys, psutil, torch
from distail.training.device import configure_malloc
if len(sys.argv) > 1 and not configure_malloc(int(sys.argv[1])):
    print(-1, -1)
    sys.exit()
def some(count):
    late = None
    for number in range(count):
        made = [torch.ones(2**size) for size in (18, 20, 24)]
        late = torch.ones(2**18 + number * 2**14)
        del made
before = psutil.Process().memory_info().rss
some(30)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
some(10)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
print(faults, psutil.Process().memory_info().rss - before)
"""
MALLOC = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")
ALL = 10 * 4 * (2**18 + 2**20 + 2**24)


def faults_and_bytes(*arguments):
    # A process of its own: the setting is for the whole process, and cannot be taken back.
    # Without the huge pages that the command line asks for, under which a fault is no longer a page of 4,096 bytes.
    words = {name: word for name, word in os.environ.items() if name not in ("THP_MEM_ALLOC_ENABLE", *MALLOC)}
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], env=words, capture_output=True, check=True)
    faults, held = map(int, done.stdout.split())
    if faults < 0:
        pytest.skip("not glibc")
    return faults, held


@pytest.mark.parametrize("side", [pytest.param(8, marks=pytest.mark.slow), 64])
def test_memory_is_kept_where_images_are_small(side):
    faults, _ = faults_and_bytes(str(side))
    assert faults * 4096 < ALL / 10
    assert faults_and_bytes()[0] > 2 * faults


@pytest.mark.parametrize("side", [65, pytest.param(224, marks=pytest.mark.slow)])
def test_memory_is_given_back_where_images_are_large(side):
    faults, held = faults_and_bytes(str(side))
    assert held < 8 * 2**20
    assert faults * 4096 > ALL / 2
