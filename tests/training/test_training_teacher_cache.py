"""Stored views: the cached outputs are the teacher's own, wherever they lie and whoever filled them."""

import os
import threading
from dataclasses import dataclass, field

import pytest
import torch

from distail.data.batches import Batch
from distail.errors import TrainingError
from distail.models import FeatureTap, Outputs, create_model
from distail.training.device import RuntimeDevice
from distail.training.distributed import Processes
from distail.training.frozen_teacher import frozen_teacher
from distail.training.progress import Silent
from distail.training.teacher_cache import STAGE, TeacherCache
from helpers.view_batches import CLASSES, IMAGES, VIEWS, batches, runtime

FILL_BATCH = 512  # of small images


@dataclass(frozen=True)
class Threads(Processes):
    """One of several processes, as a thread: its sum is that of the group."""

    group: dict = field(default_factory=dict)

    def sum(self, value):
        self.group[self.rank] = value
        self.group["barrier"].wait()
        total = sum(self.group[rank] for rank in range(self.size))
        self.group["barrier"].wait()
        return total


def teacher(precision="fp32"):
    torch.manual_seed(0)
    tap = FeatureTap(create_model("resnet8", num_classes=CLASSES), CLASSES)
    return frozen_teacher(tap.to(memory_format=torch.channels_last), runtime(precision))


def filled(folder, *, on=None, features=True, limit_mb=64, listen=None, shown=None, reporter=None):
    on = on or runtime()
    cache = TeacherCache(
        listen or teacher(on.precision),
        shown or batches(on=on),
        on,
        features=features,
        limit_mb=limit_mb,
        folder=folder,
    )
    cache.fill(reporter or Silent())
    return cache


class Pixels:
    """A teacher whose answers tell exactly which pixels it saw: features are the pixels themselves."""

    def __init__(self, dtype=torch.float32):
        self.dtype, self.asked = dtype, []

    def __call__(self, batch):
        self.asked.append(len(batch.labels))
        flat = batch.inputs.flatten(1).to(self.dtype)
        return Outputs(flat[:, :CLASSES] * 2, flat)


def test_every_lookup_of_every_epoch_is_the_answer_to_the_pixels_that_the_student_sees(tmp_path):
    listen, shown = Pixels(), batches()
    cache = filled(tmp_path, listen=listen, shown=shown)
    assert sum(listen.asked) == VIEWS * IMAGES
    for epoch in range(5):
        for batch in shown.epoch(epoch):
            stored = cache(batch)
            assert torch.equal(stored.features, batch.inputs.flatten(1))
            assert torch.equal(stored.logits, batch.inputs.flatten(1)[:, :CLASSES] * 2)
    assert sum(listen.asked) == VIEWS * IMAGES


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_stored_outputs_are_the_live_teachers_bit_for_bit_in_the_same_batches(tmp_path, precision):
    on = runtime(precision)
    live, cache, shown = teacher(precision), filled(tmp_path, on=on), batches()
    for batch in shown.every_view(FILL_BATCH):
        stored, asked = cache(batch), live(batch)
        assert stored.logits.dtype == asked.logits.dtype
        assert torch.equal(stored.logits, asked.logits)
        assert torch.equal(stored.features, asked.features)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.05)])
def test_in_the_batches_of_training_they_differ_by_rounding_only(tmp_path, precision, tolerance):
    live, cache = teacher(precision), filled(tmp_path, on=runtime(precision))
    for batch in batches().epoch(2):
        stored, asked = cache(batch), live(batch)
        torch.testing.assert_close(stored.logits.float(), asked.logits.float(), rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(stored.features.float(), asked.features.float(), rtol=tolerance, atol=tolerance)


def test_filling_again_gives_the_same_bits(tmp_path):
    one, other = filled(tmp_path), filled(tmp_path)
    for batch in batches().every_view(100):
        assert torch.equal(one(batch).logits, other(batch).logits)
        assert torch.equal(one(batch).features, other(batch).features)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_memory_mapped_cache_answers_like_one_in_memory_and_leaves_no_file(tmp_path, precision):
    on = runtime(precision)
    mapped, held = filled(tmp_path / "disk", on=on, limit_mb=0), filled(tmp_path / "memory", on=on)
    assert list((tmp_path / "disk").iterdir()) == []
    assert not (tmp_path / "memory").exists()
    for batch in batches().epoch(1):
        assert torch.equal(mapped(batch).logits, held(batch).logits)
        assert torch.equal(mapped(batch).features, held(batch).features)


def test_a_gpu_without_room_leaves_the_answers_to_a_file(tmp_path, monkeypatch):
    held, empty = filled(tmp_path / "memory"), torch.empty

    def no_room(*shape, device=None, **options):
        if device is not None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return empty(*shape, **options)

    monkeypatch.setattr(torch, "empty", no_room)
    mapped = filled(tmp_path / "disk")
    assert (tmp_path / "disk").is_dir()
    for batch in batches().epoch(1):
        assert torch.equal(mapped(batch).logits, held(batch).logits)


def test_a_memory_mapped_cache_lies_in_one_file_of_its_folder(tmp_path):
    mapped = filled(tmp_path, limit_mb=0)
    with open("/proc/self/maps") as maps:
        own = [line for line in maps if str(tmp_path) in line]
    assert len(own) == 1
    assert "(deleted)" in own[0]
    del mapped
    with open("/proc/self/maps") as maps:
        assert not [line for line in maps if str(tmp_path) in line]


def test_a_lookup_on_the_cpu_needs_nothing_that_lies_on_the_gpu(tmp_path):
    """A copy back would make the host wait for the GPU at every step. "meta" stands for the GPU that is not here."""
    mapped, shown = filled(tmp_path, limit_mb=0), batches()
    for batch in shown.epoch(1):
        there = Batch(*(value.to("meta") for value in batch[:3]), batch.row)
        assert batch.row.device.type == "cpu"
        assert torch.equal(mapped(there).features, mapped(batch).features)


def test_rows_stay_on_the_cpu_wherever_the_images_lie():
    for batch in batches(device="meta").epoch(0):
        assert (batch.index.device.type, batch.row.device.type) == ("meta", "cpu")


def test_a_disk_without_room_is_told_before_it_is_used(tmp_path, monkeypatch):
    def full(file, start, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        TrainingError, match=r"3 views take 1 MB.*cache_limit_mb: 0.*No space left on device.*Free some space"
    ):
        filled(tmp_path, limit_mb=0)
    assert list(tmp_path.iterdir()) == []


def test_without_features_only_logits_are_kept(tmp_path):
    cache = filled(tmp_path, features=False)
    answer = cache(next(batches().epoch(0)))
    assert answer.features is None
    assert answer.logits.shape == (64, CLASSES)


def test_answers_are_the_callers_own(tmp_path):
    cache, batch = filled(tmp_path), next(batches().epoch(0))
    before = cache(batch).logits.clone()
    cache(batch).logits.zero_()
    assert torch.equal(cache(batch).logits, before)


def filled_by(world_size, folder, *, teacher=Pixels, limit_mb=64, **shown):
    """The teachers and the caches of processes that filled together."""
    group = {"barrier": threading.Barrier(world_size, timeout=60)}
    threads = [Threads(rank, world_size, group=group) for rank in range(world_size)]
    members = [RuntimeDevice(torch.device("cpu"), "fp32", thread) for thread in threads]
    listeners, caches = [teacher() for _ in members], [None] * world_size

    def work(rank):
        on = members[rank]
        try:
            shares = batches(on=on, **shown)
            caches[rank] = filled(folder, on=on, listen=listeners[rank], shown=shares, limit_mb=limit_mb)
        except BaseException:
            group["barrier"].abort()
            raise

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return listeners, caches


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_asking_and_each_holds_everything(tmp_path, world_size):
    listeners, caches = filled_by(world_size, tmp_path)
    asked = [sum(listen.asked) for listen in listeners]
    assert sum(asked) == VIEWS * IMAGES
    assert max(asked) - min(asked) <= -(-VIEWS * IMAGES // FILL_BATCH)
    for batch in batches().epoch(4):
        for cache in caches:
            assert torch.equal(cache(batch).features, batch.inputs.flatten(1))


class Flattening(Pixels):
    """A teacher that refuses an empty batch, as many networks do."""

    def __call__(self, batch):
        batch.inputs.reshape(len(batch.inputs), -1)
        return super().__call__(batch)


@pytest.mark.parametrize(("images", "views"), [(FILL_BATCH + 1, 1), (1, 1), (1, 2)])
@pytest.mark.parametrize("limit_mb", [0, 64])
def test_a_share_without_images_is_none_the_teacher_is_asked_about(tmp_path, images, views, limit_mb):
    """Three processes: the last batch, or the only one, has fewer images than that."""
    shown = {"images": images, "views": views, "augment": ["crop", "flip", "rotate"]}
    _, caches = filled_by(3, tmp_path, limit_mb=limit_mb, teacher=Flattening, **shown)
    for batch in batches(**shown).every_view(100):
        for cache in caches:
            assert torch.equal(cache(batch).features, batch.inputs.flatten(1))


def test_the_filling_is_shown(tmp_path):
    seen = []

    class Watching(Silent):
        def message(self, text):
            seen.append(text)

        def start(self, stage, epochs, steps_per_epoch, done_steps):
            seen.append((stage, epochs, steps_per_epoch, done_steps))

        def step(self):
            seen.append("step")

        def finish(self):
            seen.append("finish")

    steps = -(-VIEWS * IMAGES // FILL_BATCH)
    filled(tmp_path, reporter=Watching())
    assert "3 views" in seen[0]
    assert seen[1:] == [(STAGE, 1, steps, 0), *["step"] * steps, "finish"]


@pytest.mark.gpu
@pytest.mark.parametrize("limit_mb", [0, 64])
def test_on_a_gpu_the_answers_lie_there(tmp_path, limit_mb):
    on = RuntimeDevice(torch.device("cuda"), "fp32")
    shown = batches(device="cuda")
    cache = filled(tmp_path, on=on, listen=Pixels(), shown=shown, limit_mb=limit_mb)
    for batch in shown.epoch(1):
        assert torch.equal(cache(batch).features, batch.inputs.flatten(1))
