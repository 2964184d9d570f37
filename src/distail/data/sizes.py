"""Which places of an epoch's order make up which batch."""

from __future__ import annotations


def steps_an_epoch(num_images: int, batch_size: int) -> int:
    """Batches in an epoch: the last is smaller where it must be, but one image left over joins the batch before it.

    Batch normalisation cannot learn from one value a channel, which a single image is where its map is one pixel.

    >>> [steps_an_epoch(num_images, 4) for num_images in (8, 9, 10, 1)]
    [2, 2, 3, 1]
    """
    full, left = divmod(num_images, batch_size)
    return full + 1 if left > 1 or not full else full


def batch_places(step: int, num_images: int, batch_size: int) -> slice:
    """The places of the batch of one step, counted from the epoch's first; all batches together are all places.

    >>> [batch_places(step, 9, 4) for step in range(2)]
    [slice(0, 4, None), slice(4, 9, None)]
    """
    last = step == steps_an_epoch(num_images, batch_size) - 1
    return slice(step * batch_size, num_images if last else (step + 1) * batch_size)
