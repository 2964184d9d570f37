"""What a network says of every image, block by block into one file; keys say of which image each row is.

Shapes: N images, F rows of a block, C classes, K largest.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distail.config.schema import Experiment
from distail.data.batches import Batch, TrainingBatches, evaluation_batches
from distail.data.dataset import Examples
from distail.data.input_sources import noise_inputs
from distail.data.prepare import PreparedData
from distail.errors import DataError, counted
from distail.evaluation.array_file import open_arrays
from distail.evaluation.growing_file import Column, GrowingFile
from distail.files import tensors_hash
from distail.models import FeatureTap
from distail.runner.answer_rows import SPLITS, UNAUGMENTED
from distail.runner.context import STUDENT
from distail.runner.stored_network import StoredNetwork
from distail.runner.train_network import stage_seed
from distail.torch_utils import to_device
from distail.training.device import RuntimeDevice
from distail.training.frozen_teacher import frozen_teacher
from distail.training.predict import evaluation_batch_size
from distail.training.progress import Reporter

STAGE = "teacher's answers"
_SECONDS_BETWEEN_SYNCS = 2.0
_SPLIT_WIDTH = max(map(len, SPLITS))


@dataclass(frozen=True)
class Taught:
    """A file of answers that is finished.

    Attributes:
        images: of each split.
        views: of each training image; 0 where it was shown as it is.
        top_k: how many classes a row names; None where it names all.
    """

    path: Path
    images: dict[str, int]
    views: int
    top_k: int | None


class AnswersWriter:
    """One file: its columns, its facts, and the batches that fill it."""

    def __init__(
        self,
        experiment: Experiment,
        data: PreparedData,
        runtime: RuntimeDevice,
        network: FeatureTap,
        stored: StoredNetwork,
        top_k: int | None,
        views: int,
    ) -> None:
        self.experiment, self.data, self.runtime, self.top_k, self.views = experiment, data, runtime, top_k, views
        self.teacher = frozen_teacher(network, runtime, examples=noise_inputs(data.train, 4))
        self.classes = len(data.class_names)
        self.size = evaluation_batch_size(data.train.input_shape)
        self.parts: list[tuple[str, Examples]] = [("train", data.train)]
        if data.validation is not None:
            self.parts.append(("validation", data.validation))
        self.parts.append(("test", data.test))
        self.view_seed = stage_seed(STUDENT, experiment.seed)
        self.facts = {
            "network_sha256": tensors_hash(network.model.state_dict()),
            "network": stored.model.name,
            "class_names": json.dumps(data.class_names),
            "subset_sha256": data.subset_sha256,
            "test_sha256": data.test_sha256,
            **({} if data.validation_sha256 is None else {"validation_sha256": data.validation_sha256}),
            **({key: stored.metadata[key] for key in ("posterior",) if key in stored.metadata}),
        }
        if views:
            augment = experiment.model_dump(mode="json")["data"]["augment"]
            self.facts |= {"view_seed": str(self.view_seed), "augment": json.dumps(augment)}

    def write(self, output: Path, reporter: Reporter) -> Taught:
        """Write the file, or the rest of it.

        Raises:
            DataError: there is another file of this name, or no room.
        """
        processes, taught = self.runtime.processes, self._taught(output)
        rows, columns = sum(count for _, count in self._counts()), self._columns()
        if processes.broadcast_from_main(lambda: self._finished(output)):
            reporter.message(f"{output} already contains these predictions")
            return taught
        with ExitStack() as held:
            file: GrowingFile | None = None

            def begin() -> int:
                nonlocal file
                file = held.enter_context(GrowingFile(output, columns, rows, self.facts))
                if not file.done:
                    self._write_keys(file)
                return file.done

            done = processes.broadcast_from_main(begin)
            if done:
                reporter.message(f"{output}: {done:,} of {rows:,} rows exist; continuing after them")
            reporter.start(STAGE, 1, -(-(rows - done) // self.size), 0)
            kept_at = time.monotonic()
            for first, answers_FC in self._blocks(done):
                if file is not None:
                    self._write_answers(file, first, answers_FC)
                    if time.monotonic() - kept_at >= _SECONDS_BETWEEN_SYNCS:
                        file.keep(first + len(answers_FC))
                        kept_at = time.monotonic()
                reporter.step()
            reporter.finish()
            if file is not None:
                file.finish()
        return taught

    def _taught(self, output: Path) -> Taught:
        return Taught(output, {split: len(images) for split, images in self.parts}, self.views, self.top_k)

    def _finished(self, output: Path) -> bool:
        """Whether the file is there; another one in its place is refused."""
        if not output.exists():
            return False
        file = open_arrays(output)
        expected = {**self.facts, "top_k": self.top_k, "views": self.views}
        top_k = file.numbers("indices").shape[1] if "indices" in file.names else None
        views = int(file.numbers("view").max()) + 1 if "view" in file.names else 0
        if {**file.facts, "top_k": top_k, "views": views} != expected:
            raise DataError(f"--output {output} contains other predictions; choose another name, or remove it")
        return True

    def _counts(self) -> Iterator[tuple[str, int]]:
        for split, images in self.parts:
            yield split, len(images) * (self.views if split == "train" and self.views else 1)

    def _columns(self) -> dict[str, Column]:
        columns = {"target": self._target_column(), "split": Column(torch.uint8, (_SPLIT_WIDTH,))}
        if self.data.train.names is None:
            columns["id"] = Column(torch.int32)
        else:
            columns["path"] = Column(torch.uint8, (max(_names(images).dtype.itemsize for _, images in self.parts),))
        if self.views:
            columns["view"] = Column(torch.int16)
        if self.top_k is None:
            return {**columns, "logits": Column(torch.float32, (self.classes,))}
        small = torch.uint8 if self.classes <= 2**8 else torch.int16 if self.classes <= 2**15 else torch.int32
        return {
            **columns,
            "values": Column(torch.float32, (self.top_k,)),
            "indices": Column(small, (self.top_k,)),
        }

    def _target_column(self) -> Column:
        """A number; or, of each class, whether an image has it."""
        return Column(torch.int32) if self.data.samples is None else Column(torch.uint8, (self.classes,))

    def _write_keys(self, file: GrowingFile) -> None:
        """What says of which image each row is, for all rows at once."""
        first = 0
        for split, images in self.parts:
            views = range(self.views) if split == "train" and self.views else [UNAUGMENTED]
            for view in views:
                file.write("target", first, images.labels)
                text = np.array(split.encode(), dtype=f"S{_SPLIT_WIDTH}").reshape(1).view(np.uint8)
                file.write("split", first, torch.from_numpy(text.copy()).repeat(len(images), 1))
                if self.views:
                    file.write("view", first, torch.full((len(images),), view))
                if self.data.train.names is None:
                    file.write("id", first, self._rows_of(split, images))
                else:
                    width_of_names = self._columns()["path"].width[0]
                    names = _names(images).astype(f"S{width_of_names}")
                    file.write("path", first, torch.from_numpy(names.view(np.uint8).reshape(len(images), -1)))
                first += len(images)

    def _rows_of(self, split: str, images: Examples) -> Tensor:
        rows = {"train": self.data.train_rows, "validation": self.data.validation_rows}.get(split)
        return torch.arange(len(images)) if rows is None else rows

    def _write_answers(self, file: GrowingFile, first: int, answers_FC: Tensor) -> None:
        if self.top_k is None:
            file.write("logits", first, answers_FC)
            return
        # In float64: of a teacher that is nearly sure the rest would be a rounding error.
        values_FK, indices_FK = answers_FC.double().log_softmax(1).topk(self.top_k)
        file.write("values", first, values_FK)
        file.write("indices", first, indices_FK)

    def _blocks(self, done: int) -> Iterator[tuple[int, Tensor]]:
        """The answers of all processes, (F, C) on the CPU, from row `done` on, which a block begins with."""
        start = 0
        for (split, images), (_, count) in zip(self.parts, self._counts(), strict=True):
            skip = min(max(0, done - start), count)
            if skip < count:
                for at, rows_B, batch in self._batches(split, images, skip):
                    size = min(self.size, count - at)
                    yield start + at, self._together(batch, rows_B, size)
            start += count

    def _batches(self, split: str, images: Examples, skip: int) -> Iterator[tuple[int, Tensor, Batch]]:
        """Where a block begins in its part, which of its rows each image of this process is, and the images."""
        data, runtime = self.data, self.runtime
        if split == "train" and self.views:
            views = TrainingBatches(
                images,
                batch_size=self.size,
                mean=data.mean,
                std=data.std,
                augment=self.experiment.data.augment,
                num_classes=self.classes,
                seed=self.view_seed,
                views=self.views,
                device=runtime.device,
                channels_last=runtime.channels_last,
                rank=runtime.processes.rank,
                world_size=runtime.processes.size,
            )
            with closing(views):
                for step, batch in enumerate(views.every_view(self.size, skip)):
                    at = skip + step * self.size
                    assert batch.row is not None
                    yield at, batch.row - at, batch
            return
        left = images.subset(torch.arange(skip, len(images))) if skip else images
        batches = evaluation_batches(
            left,
            batch_size=self.size,
            mean=data.mean,
            std=data.std,
            device=runtime.device,
            channels_last=runtime.channels_last,
            rank=runtime.processes.rank,
            world_size=runtime.processes.size,
        )
        for step, batch in enumerate(batches):
            yield skip + step * self.size, batch.index.cpu() - step * self.size, batch

    def _together(self, batch: Batch, rows_B: Tensor, size: int) -> Tensor:
        device = self.runtime.device
        block_FC = torch.zeros(size, self.classes, device=device)
        if len(batch.labels):
            block_FC[to_device(rows_B, device)] = self.teacher(batch).logits.float()
        return self.runtime.processes.sum(block_FC).cpu()


def _names(images: Examples) -> NDArray[np.bytes_]:
    assert images.names is not None, "both splits come from files, or none"
    return images.names


def taught_sentence(taught: Taught) -> str:
    """What was written, and how it teaches."""
    images = ", ".join(f"{count:,} {SPLITS[split]}" for split, count in taught.images.items())
    views = f", the training images in {counted(taught.views, 'view')}" if taught.views else ""
    kept = "logits" if taught.top_k is None else f"the {taught.top_k} largest probabilities"
    size = taught.path.stat().st_size / 2**20
    return (
        f"{taught.path}: {kept} of {images} images{views}; {size:,.2f} MB. Use it with teacher: "
        f"{{logits: {taught.path}}}"
    )
