"""Batches of a data set, in memory or streamed, on the device that trains; and how processes share them.

Shapes: B batch of one rank, G batch of all ranks together, N images, D draws of an epoch, H height, W width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import tee
from typing import NamedTuple

import torch
from torch import Tensor

from distail.config.augment import Augment
from distail.config.training import Mix
from distail.data.arrays import training_weights
from distail.data.augment import Draws, draw_augmentation, draw_views
from distail.data.dataset import Examples, is_images
from distail.data.input_sources import input_source, inputs_in_order
from distail.data.mixing import Mixed, MixPlan, check_mix, mix_inputs, part_of, plan_mix
from distail.data.samplers import SAMPLERS, epoch_order, epoch_views
from distail.errors import DataError, unknown_name
from distail.inputs import Inputs, each_tensor

# Batch normalization cannot learn from one value per channel, and nothing can be learned from none.
FEWEST_A_RANK = 2
_SMALLEST_BATCH = 4  # of so many parts of a batch one may be the last batch of an epoch


def steps_an_epoch(num_images: int, batch_size: int) -> int:
    """Batches in an epoch; one image left over joins the others.

    Batch normalization cannot learn from one value per channel, which a single image is where its map is one pixel.

    >>> [steps_an_epoch(num_images, 4) for num_images in (8, 9, 10, 1)]
    [2, 2, 3, 1]
    """
    full, left = divmod(num_images, batch_size)
    return full + 1 if left > 1 or not full else full


def batch_places(step: int, num_images: int, batch_size: int) -> slice:
    """The places of the batch of one step, counted from the epoch's first; all batches together are all places.

    The last batch is smaller. Where less than a quarter of a batch would be left for it, all batches of the epoch are
    of one size instead, up to one image: a step on seven of 391 images, with the learning rate and the statistics of
    batch normalization of a full one, cost a ResNet-20 twenty points of balanced accuracy on digits.

    >>> [batch_places(step, 10, 4) for step in range(3)]
    [slice(0, 4, None), slice(4, 8, None), slice(8, 10, None)]
    >>> [batch_places(step, 34, 16) for step in range(3)]
    [slice(0, 11, None), slice(11, 22, None), slice(22, 34, None)]
    """
    steps = steps_an_epoch(num_images, batch_size)
    if num_images % batch_size < max(2, batch_size / _SMALLEST_BATCH):
        return slice_of_rank(num_images, step, steps)
    return slice(step * batch_size, min((step + 1) * batch_size, num_images))


def usual_sizes(num_images: int, batch_size: int) -> frozenset[int]:
    """The sizes of batches that an epoch has more than once, or once where each comes once.

    >>> sorted(usual_sizes(1000, 128)), sorted(usual_sizes(395, 64)), sorted(usual_sizes(5, 8))
    ([128], [56, 57], [5])
    """
    places = [batch_places(step, num_images, batch_size) for step in range(steps_an_epoch(num_images, batch_size))]
    counts = Counter(place.stop - place.start for place in places)
    return frozenset(size for size, count in counts.items() if count > 1 or count == max(counts.values()))


def slice_of_rank(length: int, rank: int, world_size: int) -> slice:
    """A rank's slice: sizes differ by one at most, and side by side the slices are the whole.

    >>> [slice_of_rank(7, rank, 2) for rank in range(2)]
    [slice(0, 3, None), slice(3, 7, None)]
    """
    return slice(length * rank // world_size, length * (rank + 1) // world_size)


def training_slice(length: int, rank: int, world_size: int) -> slice:
    """`slice_of_rank`, but a batch of fewer than two images a rank goes whole to every rank.

    >>> training_slice(3, 0, 2)
    slice(0, 3, None)
    """
    return slice(0, length) if length < FEWEST_A_RANK * world_size else slice_of_rank(length, rank, world_size)


def training_share(length: int, rank: int, world_size: int) -> float:
    """How much a mean over `training_slice` counts in the mean over the whole batch; over all ranks they sum to 1.

    >>> [training_share(length, 1, 2) for length in (8, 3)]
    [0.5, 0.5]
    """
    if length < FEWEST_A_RANK * world_size:
        return 1 / world_size
    mine = training_slice(length, rank, world_size)
    return float(mine.stop - mine.start) / length


class Batch(NamedTuple):
    """`index` (B,) int64 rows of the data set, `inputs` what the network is given, `labels` (B,) int64.

    Inputs are images (B, channels, H, W) normalized, arrays (B, ...) standardized, or tensors (B, ...) by keyword.
    `row` (B,) int64, always on the CPU, says which of the rows of `every_view` each example is: `view * num_images +
    index`, and `index` itself where views are drawn afresh; None for batches of no training. `mixed` says what else
    mixed images hold; None where none are mixed.
    """

    index: Tensor  # type: ignore[assignment]  # the field hides tuple.index, which no batch needs
    inputs: Inputs
    labels: Tensor
    row: Tensor | None = None
    mixed: Mixed | None = None

    def part(self, part: slice) -> Batch:
        """Some of its examples."""
        row = None if self.row is None else self.row[part]
        mixed = None if self.mixed is None else Mixed(self.mixed.labels[part], self.mixed.own[part])
        return Batch(
            self.index[part], each_tensor(lambda tensor: tensor[part], self.inputs), self.labels[part], row, mixed
        )


class _PlannedBatch(NamedTuple):
    """A batch before its inputs are looked up, on the CPU; with `mix`, its own images and then further partners."""

    index: Tensor  # type: ignore[assignment]
    draws: Draws
    view: Tensor | None = None
    mix: MixPlan | None = None
    size: int = 0
    """Of its own images, where there is a `mix`."""


class TrainingBatches:
    """Training batches: order, crops and flips are a pure function of (seed, epoch, step).

    `batch_size` is the global batch size over all ranks. The last, smaller batch of an epoch is kept; where it would be
    less than a quarter of one, all batches have one size instead (`batch_places`). Each rank yields its contiguous
    slice of the same global batch: together, the slices of all ranks equal the batch of a single process. A batch with
    fewer than two images per rank is yielded whole on every rank (`training_share` counts it once).

    With `views` above 0 each sample has that many fixed augmented views, and each epoch shows the next one. Results for
    every view (`every_view`) are then available for every image shown in training. `view_seed` is the random seed of
    the views (default: `seed`).

    With `mix` a share of each global batch is mixed with other images of it; a rank also loads those that are not in
    its own slice.

    `weights` (N,), with mean 1, weights the loss of each example; None weights all equally.

    Streamed images give the same batches as images in memory. The decoding processes run until `close`; starting a
    pass over the batches ends the previous pass.

    Raises:
        DataError: samplers or augmentations are unknown, the data set is empty, sizes or ranks are out of range, or
            stored views would be mixed.

    >>> from distail.data.dataset import LabeledImages
    >>> data = LabeledImages(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1, 0]))
    >>> batches = TrainingBatches(data, batch_size=2, mean=[0.5], std=[0.5], augment=["crop"], num_classes=2, seed=0)
    >>> batches.steps_per_epoch, [len(batch.labels) for batch in batches.epoch(0)]
    (2, [2, 3])
    """

    def __init__(
        self,
        data: Examples,
        *,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        augment: Sequence[Augment] = (),
        sampler: str = "instance",
        num_classes: int,
        seed: int,
        views: int = 0,
        view_seed: int | None = None,
        mix: Mix | None = None,
        device: torch.device | str = "cpu",
        channels_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        _check_sizes(data, batch_size, rank, world_size)
        self.weights = training_weights(data)
        if views < 0:
            raise DataError(f"views is {views}; expected at least 0")
        self._mix = mix if mix is not None and mix.share else None
        if views and self._mix:
            raise DataError(f"views is {views}, but the stored outputs of a view are not those of a mixed image")
        if sampler not in SAMPLERS:
            raise DataError(unknown_name("sampler", sampler, SAMPLERS))
        if self._mix is not None:
            check_mix(self._mix, data)
        self._height, self._width = data.image_shape[1:] if is_images(data) else (1, 1)
        self.data = data
        self._source = input_source(
            data,
            -(-batch_size // world_size),  # a rank's share, rounded up: what a stream must have ready
            mean=mean,
            std=std,
            augment=augment,
            device=device,
            channels_last=channels_last,
        )
        self._augment = self._source.augmentations
        self._labels = data.labels.to(device)
        self._labels_on_cpu = data.labels.cpu()
        self._batch_size, self._sampler, self._num_classes, self._seed = batch_size, sampler, num_classes, seed
        self._rank, self._world_size = rank, world_size
        self.views, self.view_seed = views, seed if view_seed is None else view_seed
        self.num_images = len(data)
        self.steps_per_epoch = steps_an_epoch(len(data), batch_size)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, starting at `first_step`; they equal those of the full epoch."""
        return self._batches(self._epoch_plans(epoch, first_step))

    def every_view(self, batch_size: int, first_row: int = 0) -> Iterator[Batch]:
        """Every stored view of every image, `views * num_images` rows: view 0 of all images in order, then view 1.

        From `first_row` on, which is a multiple of the batch size, they are the last of all batches.

        >>> from distail.data.dataset import LabeledImages
        >>> data = LabeledImages(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]))
        >>> batches = TrainingBatches(data, batch_size=2, mean=[0.5], std=[0.5], num_classes=2, seed=0, views=2)
        >>> [(batch.index.tolist(), batch.row.tolist()) for batch in batches.every_view(3)]
        [([0, 1, 0], [0, 1, 2]), ([1], [3])]
        """
        return self._batches(self._view_plans(batch_size, first_row))

    def close(self) -> None:
        """Stop the decoding processes, if there are any."""
        self._source.close()

    def _epoch_plans(self, epoch: int, first_step: int) -> Iterator[_PlannedBatch]:
        order_N = self._order(epoch)
        view_N = epoch_views(order_N, self.views, self._seed, epoch) if self.views else None
        for step in range(first_step, self.steps_per_epoch):
            whole = self._places(step)
            index_G = order_N[whole]
            mine = self._mine(index_G)
            if view_N is None:
                draws = draw_augmentation(self._augment, len(index_G), self._seed, epoch, step)
                yield self._live_plan(index_G, draws, mine, epoch, step)
            else:
                yield self._view_plan(index_G[mine], view_N[whole][mine])

    def _live_plan(self, index_G: Tensor, draws: Draws, mine: slice, epoch: int, step: int) -> _PlannedBatch:
        if self._mix is None:
            return _PlannedBatch(index_G[mine], draws[mine])
        whole = plan_mix(self._mix, len(index_G), self._height, self._width, self._seed, epoch, step)
        plan, places = part_of(whole, len(index_G), mine)
        size = len(index_G[mine])
        return _PlannedBatch(index_G[places], draws[places], mix=plan, size=size)

    def _order(self, epoch: int) -> Tensor:
        return epoch_order(self._sampler, self._labels_on_cpu, self._num_classes, self._seed, epoch)

    def _places(self, step: int) -> slice:
        return batch_places(step, self.num_images, self._batch_size)

    def _mine(self, index_G: Tensor) -> slice:
        return training_slice(len(index_G), self._rank, self._world_size)

    def _view_plans(self, batch_size: int, first_row: int) -> Iterator[_PlannedBatch]:
        rows = self.views * self.num_images
        for first in range(first_row, rows, batch_size):
            mine = slice_of_rank(min(batch_size, rows - first), self._rank, self._world_size)
            row_B = torch.arange(first + mine.start, first + mine.stop)
            yield self._view_plan(row_B % self.num_images, row_B // self.num_images)

    def _view_plan(self, index_B: Tensor, view_B: Tensor) -> _PlannedBatch:
        return _PlannedBatch(index_B, draw_views(self._augment, index_B, view_B, self.view_seed), view_B)

    def _batches(self, plans: Iterable[_PlannedBatch]) -> Iterator[Batch]:
        ahead, here = tee(plans)
        found = self._source.batches((plan.index, plan.draws) for plan in ahead)
        for plan, (index_B, inputs) in zip(here, found, strict=True):
            row_B = plan.index if plan.view is None else plan.view * self.num_images + plan.index
            labels, mixed = self._labels.index_select(0, index_B), None
            if plan.mix is not None:
                inputs, mixed = mix_inputs(inputs, labels, plan.mix, plan.size)
                index_B, labels, row_B = index_B[: plan.size], labels[: plan.size], row_B[: plan.size]
            yield Batch(index_B, inputs, labels, row_B, mixed)


def evaluation_batches(
    data: Examples,
    *,
    batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
    channels_last: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """The data set in order, without augmentation; ranks share each batch, and a small one leaves some of them empty.

    >>> from distail.data.dataset import LabeledImages
    >>> data = LabeledImages(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0]))
    >>> [batch.index.tolist() for batch in evaluation_batches(data, batch_size=2, mean=[0.5], std=[0.5])]
    [[0, 1], [2]]
    """
    _check_sizes(data, batch_size, rank, world_size)
    parts = []
    for first in range(0, len(data), batch_size):
        mine = slice_of_rank(min(batch_size, len(data) - first), rank, world_size)
        parts.append(slice(first + mine.start, first + mine.stop))
    found = inputs_in_order(data, parts, batch_size, mean, std, device, channels_last=channels_last)
    labels_N, order_N = data.labels.to(device), torch.arange(len(data), device=device)
    return (Batch(order_N[part], inputs, labels_N[part]) for part, inputs in zip(parts, found, strict=True))


def _check_sizes(data: Examples, batch_size: int, rank: int, world_size: int) -> None:
    if not len(data):
        raise DataError(f"there are no {data.noun}s for a batch")
    if batch_size < 1:
        raise DataError(f"batch_size is {batch_size}; expected at least 1")
    if not 0 <= rank < world_size:
        raise DataError(f"rank is {rank} of {world_size}; expected 0 to world_size - 1")
