"""What a file of weights says of its network: written and read again, and told where it is damaged."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distail.errors import CheckpointError
from distail.models.description import Description
from helpers.made_up import values

DESCRIPTION = Description("vgg8", "conv", "linear", ("a", "ü"), 3, 20, 24, (0.1, 0.2, 0.3), (0.3, 0.2, 0.1), (7, 2), 12)


def test_what_is_written_is_read_again():
    assert Description.read(DESCRIPTION.metadata(), "x") == DESCRIPTION


def test_files_of_earlier_versions_are_of_squares():
    told = DESCRIPTION.metadata()
    for key in ("height", "width", "class_counts", "bit_depth", "resize", "normalization"):
        del told[key]
    read = Description.read(told, "x")
    assert (read.height, read.width, read.class_counts, read.bit_depth) == (20, 20, None, None)


@given(st.sampled_from(sorted(DESCRIPTION.metadata())), values | st.just("["))
def test_any_damage_is_told_or_does_no_harm(key, value):
    told = {**DESCRIPTION.metadata(), key: value if isinstance(value, str) else json.dumps(value)}
    try:
        read = Description.read(told, "x")
    except CheckpointError:
        return
    assert len(read.mean) == len(read.std) == read.in_channels
    assert min(read.std) > 0
    assert read.height >= 1
    assert read.class_counts is None or len(read.class_counts) == len(read.class_names)


def test_everything_that_is_missing_is_told_at_once():
    with pytest.raises(CheckpointError) as caught:
        Description.read({}, "x")
    keys = ("model", "class_names", "in_channels", "image_size", "mean", "std")
    assert all(f"{key}: " in str(caught.value) for key in keys)
