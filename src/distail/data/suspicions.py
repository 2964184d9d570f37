"""What is allowed, and yet is most often a mistake: said, not refused."""

from __future__ import annotations

from collections.abc import Sequence

from distail.data.images import Images

_DARKEST_MEAN = 4 / 255


def leak_note(train: Images, test: Images) -> str | None:
    """How many test images are training images too, byte for byte; None where none is, or images have no files.

    >>> import torch
    >>> from distail.data.images import LabelledImages
    >>> digests = torch.arange(3, dtype=torch.uint8)[:, None].repeat(1, 32)
    >>> three = LabelledImages(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 1]), digests)
    >>> leak_note(three.subset(torch.tensor([0, 1])), three.subset(torch.tensor([1, 2])))
    '1 of 2 test images is, byte for byte, a training image too: figures on the test set are too good'
    """
    if train.digests is None or test.digests is None:
        return None
    known = {row.tobytes() for row in train.digests.numpy()}
    leaked = sum(row.tobytes() in known for row in test.digests.numpy())
    if not leaked:
        return None
    are = "is, byte for byte, a training image too" if leaked == 1 else "are, byte for byte, training images too"
    return f"{leaked} of {len(test)} test images {are}: figures on the test set are too good"


def dark_note(mean: Sequence[float]) -> str | None:
    """That images are nearly black, as 12 bits in a 16-bit file are; ``mean`` per channel in units of 0 to 1.

    >>> dark_note([0.01, 0.001])
    'images are nearly black (mean grey level 2.6 of 255); in 16-bit files only the upper 8 bits count'
    """
    if max(mean) >= _DARKEST_MEAN:
        return None
    return (
        f"images are nearly black (mean grey level {255 * max(mean):.1f} of 255); in 16-bit files only the upper "
        "8 bits count"
    )
