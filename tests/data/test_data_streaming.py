"""Images that stay on disk give what the same images give in memory, bit for bit."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from distail.config.schema import Data
from distail.data import decode, streaming, workers
from distail.data.batches import Batch, TrainingBatches, evaluation_batches
from distail.data.dataset import LabeledImages, StreamedImages
from distail.data.prepare import PreparedData, prepare_data
from distail.data.streaming import ImageStream
from distail.errors import DataError, TrainingError
from helpers.sources import load


def photograph(path: Path, width: int, height: int, seed: int, mode: str = "RGB") -> None:
    """A smooth picture, so that JPEG keeps most of it."""
    levels = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC).convert(mode).save(path)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of many sizes, formats and color modes; some large enough to be decoded at half or a quarter."""
    root = tmp_path_factory.mktemp("pictures")
    for label, (name, count) in enumerate({"ant": 14, "bee": 9, "çicada": 5}.items()):
        for number in range(count):
            suffix, mode = [("jpg", "RGB"), ("png", "RGB"), ("jpg", "L"), ("png", "P")][number % 4]
            seed = 100 * label + number
            photograph(root / name / f"{number}.{suffix}", 20 + 9 * number, 18 + 7 * (seed % 11), seed, mode)
    return root


def both_ways(root: Path, *, workers: int = 0, name: str = "folder", **options: object) -> list[PreparedData]:
    options = {"image_size": 24, "imbalance_factor": 3, "validation": 0.2, "seed": 1, **options}
    held = prepare_data(name, root=root, stream="never", **options)  # type: ignore[arg-type]
    return [held, prepare_data(name, root=root, stream="always", workers=workers, **options)]  # type: ignore[arg-type]


def pixels(data: LabeledImages | StreamedImages) -> torch.Tensor:
    if isinstance(data, LabeledImages):
        return data.images
    stream = ImageStream(data, len(data))
    with closing(stream):
        return next(stream.batches([torch.arange(len(data))])).permute(0, 3, 1, 2)


def same(one: Batch, other: Batch) -> bool:
    return (
        all(torch.equal(one[field], other[field]) for field in range(3))
        # The layout decides which arithmetic a network is computed with.
        and (not len(one.inputs) or one.inputs.stride() == other.inputs.stride())
        and (one.row is None) == (other.row is None)
        and (one.row is None or torch.equal(one.row, other.row))  # type: ignore[arg-type]
    )


def same_batches(held: PreparedData, streamed: PreparedData, **options: object) -> list[Batch]:
    """The batches of the second epoch, checked to be the same."""
    settings = {"batch_size": 7, "mean": held.mean, "std": held.std, "num_classes": 3, "seed": 5, **options}
    one, other = (list(TrainingBatches(data.train, **settings).epoch(1)) for data in (held, streamed))  # type: ignore[arg-type]
    assert len(one) == len(other)
    assert all(same(*pair) for pair in zip(one, other, strict=True))
    return other


def same_evaluation(held: PreparedData, streamed: PreparedData, **options: object) -> int:
    """How many batches of the test set there are; they are checked to be the same."""
    settings = {"batch_size": 4, "mean": held.mean, "std": held.std, **options}
    one, other = (list(evaluation_batches(data.test, **settings)) for data in (held, streamed))  # type: ignore[arg-type]
    assert all(same(*pair) for pair in zip(one, other, strict=True))
    return len(other)


@pytest.mark.parametrize("workers", [0, 2])
def test_everything_that_a_run_knows_of_its_data_is_the_same(tree: Path, workers: int) -> None:
    held, streamed = both_ways(tree, workers=workers)
    assert isinstance(streamed.train, StreamedImages)
    for field in ("class_names", "class_counts", "subset_sha256", "mean", "std", "skipped"):
        assert getattr(held, field) == getattr(streamed, field), field
    for split in ("train", "validation", "test"):
        one, other = getattr(held, split), getattr(streamed, split)
        assert len(one) == len(other) > 0
        assert one.image_shape == other.image_shape == (3, 24, 24)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(pixels(one), pixels(other))
    assert held.notes == ()
    assert streamed.notes == (
        f"images stay on disk (data.stream: always), decoded batch by batch; worker processes: {workers}",
    )


@pytest.mark.parametrize(
    "augment", [(), ("crop",), ("flip", "rotate"), ("crop", "flip"), ("random_resized_crop", "auto_augment", "cutout")]
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_batches_are_the_same(tree: Path, augment: tuple[str, ...], channels_last: bool) -> None:
    same_batches(*both_ways(tree), augment=augment, channels_last=channels_last)


@pytest.mark.parametrize("sampler", ["class_balanced", "square_root"])
def test_samplers_that_repeat_images(tree: Path, sampler: str) -> None:
    same_batches(*both_ways(tree), augment=["crop"], sampler=sampler)


def test_large_batches_come_in_pieces(tree: Path) -> None:
    held, streamed = both_ways(tree, workers=2, imbalance_factor=None, image_size=512)  # five images are 4 MB
    batches = same_batches(held, streamed, augment=["crop"], batch_size=11, channels_last=True)
    assert [len(batch.labels) for batch in batches] == [11] * (len(held.train) // 11) + [len(held.train) % 11]


@pytest.mark.parametrize("world_size", [2, 5])
def test_ranks_share_batches(tree: Path, world_size: int) -> None:
    held, streamed = both_ways(tree)
    for rank in range(world_size):
        same_batches(held, streamed, augment=["crop", "flip"], rank=rank, world_size=world_size)
        # Some of the small last batch's slices are empty: the step is taken all the same.
        assert same_evaluation(held, streamed, rank=rank, world_size=world_size) == -(-len(held.test) // 4)


@pytest.mark.parametrize("channels_last", [False, True])
def test_evaluation_is_the_same(tree: Path, channels_last: bool) -> None:
    same_evaluation(*both_ways(tree, workers=1), channels_last=channels_last)
    assert not multiprocessing.active_children()


def test_stored_views_are_the_same(tree: Path) -> None:
    held, streamed = both_ways(tree)
    same_batches(held, streamed, augment=["crop", "flip", "trivial_augment"], views=2)
    options = {"batch_size": 7, "mean": held.mean, "std": held.std, "num_classes": 3, "seed": 5, "views": 2}
    one, other = (TrainingBatches(data.train, augment=["crop"], **options) for data in (held, streamed))  # type: ignore[arg-type]
    assert all(same(*pair) for pair in zip(one.every_view(5), other.every_view(5), strict=True))


def test_an_epoch_entered_late_decodes_only_what_is_left(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, streamed = both_ways(tree)
    batches = TrainingBatches(
        streamed.train, batch_size=4, mean=streamed.mean, std=streamed.std, num_classes=3, seed=0, augment=["crop"]
    )
    whole = list(batches.epoch(2))
    decoded: list[str] = []
    real = workers.decode_one

    def counting(item: decode.EncodedImage, *options: int | None) -> object:
        decoded.append(item.name)
        return real(item, *options)

    monkeypatch.setattr(workers, "decode_one", counting)
    rest = list(batches.epoch(2, first_step=3))
    assert all(same(*pair) for pair in zip(whole[3:], rest, strict=True))
    assert len(decoded) == len(streamed.train) - 3 * 4
    left = torch.cat([batch.index for batch in rest])
    assert decoded == [os.fsdecode(name) for name in streamed.train.names[left.numpy()]]  # type: ignore[union-attr]


def test_gray_images_stay_gray(tmp_path: Path) -> None:
    for number in range(8):
        photograph(tmp_path / "ab"[number % 2] / f"{number}.png", 12, 12, number, "L")
    held, streamed = both_ways(tmp_path, image_size=None, validation=0.0)
    assert streamed.train.image_shape == (1, 12, 12)
    assert (held.mean, held.std, held.subset_sha256) == (streamed.mean, streamed.std, streamed.subset_sha256)
    for channels_last in (False, True):
        same_batches(held, streamed, augment=["crop"], channels_last=channels_last)
        same_evaluation(held, streamed, channels_last=channels_last)


def test_manifests_stream_too(tree: Path) -> None:
    manifest = tree / "list.csv"
    rows = [f"{path.relative_to(tree).as_posix()},{path.parent.name}" for path in sorted(tree.glob("*/*"))]
    manifest.write_text("path,label\n" + "\n".join(rows), encoding="utf-8")
    try:
        held, streamed = both_ways(manifest, name="csv")
    finally:
        manifest.unlink()
    assert held.subset_sha256 == streamed.subset_sha256
    same_batches(held, streamed, augment=["flip"])


def test_the_subset_is_known_by_its_files(tree: Path) -> None:
    held, streamed = both_ways(tree, validation=0.0)
    digest = hashlib.sha256()
    for name in streamed.train.names:  # type: ignore[union-attr]
        digest.update(hashlib.sha256((tree / os.fsdecode(name)).read_bytes()).digest())
    digest.update(np.array([3, 24, 24], dtype="<i8").tobytes() + streamed.train.labels.numpy().tobytes())
    assert streamed.subset_sha256 == held.subset_sha256 == digest.hexdigest()
    assert both_ways(tree, image_size=20, validation=0.0)[1].subset_sha256 != digest.hexdigest()


def test_files_are_looked_at_once(tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = both_ways(tree)[1]

    def fail(*_: object) -> None:
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(workers, "decode_one", fail)
        again = both_ways(tree)[1]
    assert again.subset_sha256 == first.subset_sha256
    assert (again.mean, again.std) == (first.mean, first.std)
    changed = tree / "bee" / "0.jpg"
    before = changed.read_bytes()
    try:
        photograph(changed, 30, 40, seed=999)
        held, streamed = both_ways(tree, imbalance_factor=None, validation=0.0)
        assert torch.equal(pixels(streamed.train), pixels(held.train))
    finally:
        changed.write_bytes(before)


def damaged(tmp_path: Path) -> Path:
    for number in range(12):
        photograph(tmp_path / "ab"[number % 2] / f"{number}.jpg", 30, 20, number)
    (tmp_path / "a" / "empty.jpg").write_bytes(b"")
    whole = (tmp_path / "b" / "1.jpg").read_bytes()
    (tmp_path / "b" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_found_before_training(tmp_path: Path, workers: int) -> None:
    root = damaged(tmp_path)
    messages = []
    for stream in ("never", "always"):
        with pytest.raises(DataError) as error:
            load("folder", root, image_size=8, stream=stream, workers=workers)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    assert "3 of 15 images cannot be read" in messages[1]
    for part in ("a/empty.jpg: the file is empty", "b/cut.jpg: ", "b/gone.jpg: No such file"):
        assert part in messages[1]


def test_unreadable_images_can_be_skipped(tmp_path: Path) -> None:
    held, streamed = both_ways(damaged(tmp_path), skip_unreadable=True, image_size=8, validation=0.0)
    assert len(streamed.skipped) == 3
    assert held.skipped == streamed.skipped
    assert torch.equal(pixels(held.train), pixels(streamed.train))


def test_images_of_several_sizes_need_one(tmp_path: Path) -> None:
    for number in range(12):
        photograph(tmp_path / "ab"[number % 2] / f"{number}.png", 10 + number // 8, 9, number)
    for stream in ("never", "always"):
        with pytest.raises(DataError, match=r"2 different sizes(.|\n)*data\.image_size"):
            load("folder", tmp_path, stream=stream, workers=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_files_that_change_later_are_named(tmp_path: Path, workers: int) -> None:
    for number in range(12):
        photograph(tmp_path / "ab"[number % 2] / f"{number}.png", 10, 9, number, "L")
    source = load("folder", tmp_path, stream="always", workers=workers)
    names = [os.fsdecode(name) for name in source.train.names]  # type: ignore[union-attr]
    (tmp_path / names[0]).unlink()
    (tmp_path / names[1]).write_bytes(b"words")
    photograph(tmp_path / names[2], 11, 9, 0, "L")
    photograph(tmp_path / names[3], 10, 9, 0, "RGB")
    with pytest.raises(DataError) as error:
        pixels(source.train)
    message = str(error.value)
    assert "images were readable during the check" in message
    assert f"{names[0]}: No such file" in message
    assert f"{names[1]}: not an image" in message
    assert f"{names[2]}: now 11x9 gray, where all are 10x9 gray" in message
    assert f"{names[3]}: now 10x9 in color, where all are 10x9 gray" in message
    assert not multiprocessing.active_children(), "ended with the error, not with its traceback"


def test_a_worker_that_is_killed_ends_the_pass_with_clear_words(tree: Path) -> None:
    _, streamed = both_ways(tree, workers=2)
    batches = TrainingBatches(
        streamed.train, batch_size=2, mean=streamed.mean, std=streamed.std, num_classes=3, seed=0, augment=["crop"]
    )
    epoch = batches.epoch(0)
    next(epoch)
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(TrainingError, match=r"data\.workers"):
        list(epoch) + list(batches.epoch(1))
    batches.close()


def test_crops_of_large_images_move_by_an_eighth(tmp_path: Path) -> None:
    for number in range(12):
        photograph(tmp_path / "ab"[number % 2] / f"{number}.jpg", 300, 260, number)
    held, streamed = both_ways(tmp_path, image_size=224, validation=0.0)
    batch = same_batches(held, streamed, augment=["crop", "flip"], channels_last=True)[0]
    assert batch.inputs.shape[1:] == (3, 224, 224)
    black = (batch.inputs == -torch.tensor(held.mean)[:, None, None] / torch.tensor(held.std)[:, None, None]).all(1)
    borders = [int(row.all(side).sum()) for row in black for side in (0, 1)]
    assert 5 < max(borders) <= 28


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    for number in range(20):
        photograph(tmp_path / "ab"[number % 2] / f"{number:04}.jpg", 40, 40, number)
    for number in range(20, 800):
        folder = tmp_path / "ab"[number % 2]
        (folder / f"{number:04}.jpg").hardlink_to(folder / f"{number % 20:04}.jpg")
    script = """
        import resource, sys
        import torch
        from distail.config.schema import Data
        from distail.data.sources import load_source
        from distail.data.streaming import ImageStream

        def most(whose):
            return resource.getrusage(whose).ru_maxrss / 1024

        data = load_source(Data(name="folder", root=sys.argv[1], image_size=224, stream="always", workers=1)).train
        before = most(resource.RUSAGE_SELF)
        stream = ImageStream(data, 32)
        images = sum(len(batch) for batch in stream.batches(torch.arange(len(data)).split(32)))
        stream.close()
        print(images, before, most(resource.RUSAGE_SELF), most(resource.RUSAGE_CHILDREN))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], capture_output=True, text=True, check=True
    )
    images, before, parent, worker = map(float, done.stdout.split())
    assert images == 640
    # Decoded all of them take 161 MB; the bound is two batches ahead and the one at hand, of 5 MB each.
    assert parent - before < 40
    assert worker - before < 40


@pytest.mark.parametrize(
    ("stream", "limit", "free", "streams"),
    [
        ("auto", None, 10**9, False),
        ("auto", None, 10**5, True),
        ("auto", 1, 10**9, False),
        ("auto", 1, 10**3, False),
        ("never", None, 0, False),
        ("always", 1000, 10**12, True),
    ],
)
def test_how_images_are_held(
    tree: Path, monkeypatch: pytest.MonkeyPatch, stream: str, limit: int | None, free: int, streams: bool
) -> None:
    # 28 images of 24 x 24 in color take 48,384 bytes.
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    source = load("folder", tree, image_size=24, stream=stream, memory_limit_mb=limit, workers=0)
    assert isinstance(source.train, StreamedImages) == streams
    assert bool(source.notes) == streams


def test_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        photograph(tmp_path / "ab"[number % 2] / f"{number}.jpg", 300, 300, number)
    options = {"image_size": 280, "workers": 0}
    limited = load("folder", tmp_path, memory_limit_mb=1, **options)  # type: ignore[arg-type]
    assert limited.notes[0].startswith(
        "images stay on disk (2 MB decoded, data.memory_limit_mb is 1 MB), decoded batch by batch"
    )
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=4 * 2**20))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    full = load("folder", tmp_path, **options)  # type: ignore[arg-type]
    assert "2 MB decoded, a quarter of the free memory is 0 MB" in full.notes[0]


def test_processes_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(streaming, "usable_cores", lambda: 6)
    assert streaming.decoding_processes(Data(name="any")) == 6
    assert streaming.decoding_processes(Data(name="any", workers=0)) == 0
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert streaming.decoding_processes(Data(name="any")) == 1
    monkeypatch.setattr(streaming, "usable_cores", lambda: 500)
    assert streaming.decoding_processes(Data(name="any")) == 16


def test_only_files_can_be_streamed() -> None:
    with pytest.raises(DataError, match=r"'digits' cannot be streamed .*csv, folder, huggingface, list, tiny-imagenet"):
        load("digits", stream="always")
    assert load("digits", stream="auto", memory_limit_mb=1).notes == ()


def test_a_damaged_cache_is_made_again(tree: Path) -> None:
    first = both_ways(tree)[1]
    (file,) = Path(os.environ["DISTAIL_CACHE"]).glob("folder-*-files.safetensors")
    file.write_bytes(file.read_bytes()[:-3] + b"abc")
    again = both_ways(tree)[1]
    assert any(str(file) in note for note in again.notes)
    assert again.subset_sha256 == first.subset_sha256
    assert (again.mean, again.std) == (first.mean, first.std)
