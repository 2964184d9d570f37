"""What a teacher says of every stored view of every image: asked once, then looked up.

Shapes: B batch, D feature width, R rows (views x images), F rows of a block, W width of a row (logits, features).
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from distail.data.batches import Batch, TrainingBatches
from distail.errors import TrainingError, counted
from distail.files import MEGABYTE, read_tensors, take_room, write_tensors
from distail.inputs import each_tensor
from distail.outputs import Outputs
from distail.torch_utils import to_device
from distail.training.device import RuntimeDevice
from distail.training.frozen_teacher import Teacher
from distail.training.predict import evaluation_batch_size
from distail.training.progress import Reporter

STAGE = "teacher's views"
_ANSWERS, _CLASSES = "answers", "classes"


class TeacherCache:
    """A `Teacher` that answers from one array: a row of logits (and features) for each view of each image.

    Rows keep the number format of the teacher's answers (bfloat16 where it runs in bf16, else float32): nothing is
    rounded. The array lies on the training device; one of more than `limit_mb` megabytes (of 2**20 bytes) is a single
    memory-mapped file in `folder`, without a name and gone when the process ends, however it ends.

    Without `shared` nothing is kept from one start of a run to the next, since `fill` gives the same bits again.
    Distributed, each process asks for its share and then holds every row: an image may be in anyone's part of a batch.

    Args:
        teacher: the live teacher.
        batches: what training shows, with `views` above 0.
        features: keep the features too.
        limit_mb: the largest array that is held in memory.
        folder: where a larger one goes.
        shared: a file that the first of several runs writes and the others read, mapped into memory; its name says
            what it holds. Only for a run of one process.
    """

    def __init__(
        self,
        teacher: Teacher,
        batches: TrainingBatches,
        runtime: RuntimeDevice,
        *,
        features: bool,
        limit_mb: int,
        folder: Path,
        shared: Path | None = None,
    ) -> None:
        self._teacher, self._batches, self._runtime = teacher, batches, runtime
        self._features, self._limit_mb, self._folder = features, limit_mb, folder
        self._shared = shared
        self._classes = 0
        self._rows_RW = torch.empty(0)

    def fill(self, reporter: Reporter) -> None:
        """Ask the teacher about every view, or read what an earlier run asked.

        Raises:
            TrainingError: the disk has no room for the memory-mapped file.
        """
        if self._shared is not None and self._shared.is_file() and self._read(self._shared, reporter):
            return
        self._ask(reporter)
        if self._shared is not None:
            self._write(self._shared, reporter)

    def _read(self, path: Path, reporter: Reporter) -> bool:
        """Whether the file of another run could be read; where it is damaged, the teacher is asked again."""
        try:
            tensors, facts = read_tensors(path)
            rows_RW, self._classes = tensors[_ANSWERS], int(facts[_CLASSES])
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            reporter.message(f"{str(path)!r} cannot be read ({error}); the teacher predicts its views again")
            return False
        if rows_RW.nbytes <= self._limit_mb * MEGABYTE:
            with suppress(torch.OutOfMemoryError):
                rows_RW = rows_RW.to(self._runtime.device)
        self._rows_RW = rows_RW
        views = counted(self._batches.views, "view")
        reporter.message(f"teacher: its outputs for {views} of each training image were stored by another run")
        return True

    def _write(self, path: Path, reporter: Reporter) -> None:
        try:
            write_tensors(path, {_ANSWERS: self._rows_RW}, {_CLASSES: str(self._classes)})
        except OSError as error:
            reporter.message(f"{error.filename}: {error.strerror}; other runs store the teacher's outputs again")

    def _ask(self, reporter: Reporter) -> None:
        batches = self._batches
        count = batches.views * batches.num_images
        # Always the same, since it decides the last bits: a cache that is filled again holds the same ones.
        size = evaluation_batch_size(batches.data.input_shape)
        reporter.message(f"teacher: storing its outputs for {counted(batches.views, 'view')} of each training image")
        reporter.start(STAGE, 1, -(-count // size), 0)
        for step, batch in enumerate(batches.every_view(size)):
            answers_BW = self._answers(batch)
            first = step * size
            if first == 0:
                self._rows_RW = self._allocate(count, answers_BW)
            # float32 holds both formats exactly, and every communication library can add it up.
            block_FW = answers_BW.new_zeros((min(size, count - first), answers_BW.shape[1]), dtype=torch.float32)
            block_FW[to_device(_rows_of(batch) - first, block_FW.device)] = answers_BW.float()
            self._rows_RW[first : first + len(block_FW)] = self._runtime.processes.sum(block_FW)
            reporter.step()
        reporter.finish()

    def __call__(self, batch: Batch) -> Outputs:
        """The stored outputs of a batch: (B, C) logits and, where kept, (B, D) features, as new tensors."""
        # The rows' numbers are on the CPU, as the rows may be: neither way does the host wait for the GPU.
        answers_BW = self._rows_RW.index_select(0, to_device(_rows_of(batch), self._rows_RW.device))
        answers_BW = to_device(answers_BW, self._runtime.device)
        features_BD = answers_BW[:, self._classes :] if self._features else None
        return Outputs(answers_BW[:, : self._classes], features_BD)

    def _answers(self, batch: Batch) -> Tensor:
        size = len(batch.index)
        outputs = self._teacher(batch if size else _one_black(batch))
        self._classes = outputs.logits.shape[1]
        if not self._features:
            return outputs.logits[:size]
        assert outputs.features is not None, "a tapped network gives its features"
        return torch.cat([outputs.logits, outputs.features], dim=1)[:size]

    def _allocate(self, count: int, example_BW: Tensor) -> Tensor:
        shape, dtype = (count, example_BW.shape[1]), example_BW.dtype
        size = shape[0] * shape[1] * example_BW.element_size()
        if size <= self._limit_mb * MEGABYTE:
            with suppress(torch.OutOfMemoryError):  # a GPU may have less left than the limit
                return torch.empty(shape, dtype=dtype, device=self._runtime.device)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".teacher-views.", suffix=".tmp") as file:
                # A mapped page that the disk has no room for would kill the process: all of them are taken at once.
                take_room(file, size)
                return torch.from_file(file.name, shared=True, size=shape[0] * shape[1], dtype=dtype).view(shape)
        except OSError as error:
            raise TrainingError(
                f"the teacher's outputs for {self._batches.views} views take {size / MEGABYTE:,.0f} MB, more than "
                f"trainer.cache_limit_mb: {self._limit_mb} or than the GPU has left, and {str(self._folder)!r} cannot "
                f"hold them: {error.strerror or error}. Free some space or raise trainer.cache_limit_mb, "
                "then run the same command again; fewer teacher.views need another output"
            ) from None


def _rows_of(batch: Batch) -> Tensor:
    assert batch.row is not None, "the batches that train are those that the cache was filled from"
    return batch.row


def _one_black(empty: Batch) -> Batch:
    """In place of an empty share, which many networks refuse: their answer tells width and number format at least."""
    inputs = each_tensor(lambda tensor: tensor.new_zeros((1, *tensor.shape[1:])), empty.inputs)
    return Batch(empty.index.new_zeros(1), inputs, empty.labels.new_zeros((1, *empty.labels.shape[1:])))
