"""What a run knows of its data, and the warnings that come with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distail.config.schema import Data
from distail.data import prepare
from distail.data.dataset import LabeledImages, Source
from distail.data.long_tail import class_counts, long_tail_counts, subset_sha256
from distail.data.prepare import channel_statistics, prepare_data, untested_classes_warning
from distail.errors import DataError

MakeImages = Callable[..., LabeledImages]


def test_everything_describes_the_training_set_after_the_split() -> None:
    data = prepare_data("digits", imbalance_factor=10, validation=0.1, seed=3)
    assert data.validation is not None
    assert data.class_counts == class_counts(data.train.labels, 10)
    assert data.subset_sha256 == subset_sha256(data.train)
    assert (data.mean, data.std) == channel_statistics(data.train)
    before = tuple(
        kept + held_out
        for kept, held_out in zip(data.class_counts, class_counts(data.validation.labels, 10), strict=True)
    )
    whole = prepare_data("digits", imbalance_factor=10, seed=3)
    assert before == whole.class_counts
    assert whole.validation is None
    assert len(whole.test) == len(data.test) == 359
    assert torch.equal(whole.test.images, data.test.images)


def test_without_a_tail_every_image_is_kept() -> None:
    data = prepare_data("digits")
    assert len(data.train) == 1438
    assert data.class_names == tuple("0123456789")


def test_the_long_tail_starts_from_the_largest_class() -> None:
    wanted = long_tail_counts(10, max(prepare_data("digits").class_counts), 20, "step")
    counts = prepare_data("digits", imbalance_factor=20, profile="step").class_counts
    assert all(count <= most for count, most in zip(counts, wanted, strict=True))
    assert counts[5:] == wanted[5:]


def test_the_same_arguments_give_the_same_hash() -> None:
    hashes = [prepare_data("digits", imbalance_factor=10, seed=seed).subset_sha256 for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_validation_and_training_are_disjoint() -> None:
    data = prepare_data("digits", validation=0.25, seed=1)
    assert data.validation is not None
    assert len(data.train) + len(data.validation) == 1438
    assert data.validation.labels.bincount().min() > 20


def test_skipped_images_are_passed_on(tmp_path: Path, write_image: Callable[..., np.ndarray]) -> None:
    for name in "ab":
        for number in range(6):
            write_image(tmp_path / "f" / name / f"{number}.png")
    (tmp_path / "f" / "a" / "bad.png").write_bytes(b"")
    assert prepare_data("folder", root=tmp_path / "f", skip_unreadable=True).skipped == (
        "a/bad.png: the file is empty",
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"imbalance_factor": 0.5}, r"imbalance_factor: .*0\.5"),
        ({"profile": "exq"}, "profile: 'exq' .*exp, step"),
        ({"validation": 1.0}, r"validation: .*1\.0"),
        ({"image_size": -1}, "image_size: .*-1"),
        ({"stream": "allways"}, "Did you mean 'always'"),
        ({"image_sise": 8}, "image_sise.*Did you mean 'image_size'"),
    ],
)
def test_bad_arguments(options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare_data("digits", **options)


def test_a_section_of_an_experiment_is_the_same_as_its_keywords() -> None:
    section = Data(name="digits", imbalance_factor=20, validation=0.25)
    by_section, by_name = (
        prepare_data(section, seed=3),
        prepare_data("digits", seed=3, **section.model_dump(exclude={"name"})),
    )
    assert by_section.subset_sha256 == by_name.subset_sha256
    with pytest.raises(TypeError, match="profile"):
        prepare_data(section, profile="step")


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_against_numpy(random_images: MakeImages, channels: int) -> None:
    images = random_images(20, channels=channels).images // torch.tensor([1, 2, 5])[:channels].view(1, -1, 1, 1)
    images = images.to(torch.uint8)
    mean, std = channel_statistics(LabeledImages(images, torch.zeros(20, dtype=torch.int64)))
    exact = images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(mean, exact.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, exact.std((0, 2, 3)), rtol=1e-12)


def test_a_channel_that_never_changes_keeps_a_usable_deviation() -> None:
    gray = LabeledImages(torch.full((2, 1, 4, 4), 9, dtype=torch.uint8), torch.arange(2))
    assert channel_statistics(gray) == ((9 / 255,), (1 / 255,))


def test_a_class_is_never_left_without_training_images(
    random_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random_images(60, num_classes=6)
    source = Source(data, data, tuple("abcdef"))
    monkeypatch.setattr(prepare, "load_source", lambda *args, **options: source)
    prepared = prepare_data("digits", imbalance_factor=1000, validation=0.9)
    assert min(prepared.class_counts) == 1
    assert prepared.class_counts[-1] == 1


@given(st.lists(st.integers(0, 8), min_size=1, max_size=30))
def test_every_class_without_a_test_image_is_counted_and_the_first_are_named(labels: list[int]) -> None:
    names = tuple(f"class {c}" for c in range(9))
    untested = [c for c in range(9) if c not in labels]
    note = untested_classes_warning(torch.tensor(labels), names)
    if not untested:
        assert note is None
        return
    assert note is not None
    assert note.startswith(f"{len(untested)} of 9 classes ha")
    assert all((f"'class {c}'" in note) == (c in untested[:3]) for c in range(9))
    assert (f" and {len(untested) - 3} more" in note) == (len(untested) > 3)
    assert ("their recall" in note) == (len(untested) > 1)
    assert "\n" not in note
    validated = untested_classes_warning(torch.tensor(labels), names, where="validation")
    assert validated is not None
    assert " no validation image (" in validated
    assert " recall in validation is not known" in validated
