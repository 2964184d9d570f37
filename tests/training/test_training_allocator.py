"""Freed memory is kept: the second tensor of a size costs no page fault."""

import subprocess
import sys

import pytest
from PIL import Image

import distail

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


@pytest.mark.parametrize(("side", "kept"), [(32, True), (72, False)])
def test_memory_is_not_kept_where_images_are_large(tmp_path, monkeypatch, side, kept):
    calls = []
    monkeypatch.setattr("distail.pipeline.keep_freed_memory", lambda: calls.append(True))
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / "tree" / split / name).mkdir(parents=True)
            image = Image.new("RGB", (side, side), "red" if name == "a" else "blue")
            image.save(tmp_path / "tree" / split / name / "1.png")
    distail.run(
        {
            "name": "few",
            "output": str(tmp_path / "run"),
            "data": {
                "name": "folder",
                "root": str(tmp_path / "tree"),
                "image_size": side,
                "augment": [],
                "validation": 0,
            },
            "student": "resnet8",
            "method": "ce",
            "training": {"epochs": 1, "batch_size": 2},
            "trainer": {"device": "cpu"},
        }
    )
    assert bool(calls) == kept
