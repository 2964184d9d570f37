"""The classes that gained and lost most, with the images that the run kept."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from distail.report.build import report_view
from distail.report.gallery import Answer, data_uri, galleries, joined_samples
from distail.report.samples import Samples
from distail.report.views import ReportView


def test_gains_and_losses_are_the_largest_against_the_teacher(view: ReportView) -> None:
    kd = next(gallery for gallery in galleries(view) if gallery.name == "kd")
    assert kd.against == "teacher"
    teacher, student = (run.metrics["per_class_recall"] for run in view.runs[:2])  # type: ignore[index]
    deltas = [a - b for a, b in zip(student, teacher, strict=True)]
    assert [card.delta for card in kd.gained] == sorted((d for d in deltas if d > 0), reverse=True)[:4]
    assert [card.delta for card in kd.lost] == sorted(d for d in deltas if d < 0)[:4]


def test_below_each_image_stands_what_each_model_took_it_for(view: ReportView) -> None:
    assert view.samples is not None
    teacher, kd = view.runs[:2]
    gallery = galleries(view)[0]
    for card in (*gallery.gained, *gallery.lost):
        c = list(view.class_names).index(card.name)
        row = view.samples.label.tolist().index(c)
        at = int(view.samples.index[row])
        named = [view.class_names[run.predicted[at]] for run in (kd, teacher)]
        expected = [Answer(run.name, name == card.name, name) for run, name in zip((kd, teacher), named, strict=True)]
        assert card.images[0].answers == expected


def test_a_comparison_is_measured_against_its_baseline(make_comparison: Callable[..., Path]) -> None:
    view = report_view([make_comparison()])
    assert [(gallery.name, gallery.against) for gallery in galleries(view)] == [("ce", "kd"), ("bkd", "kd")]
    assert galleries(view)[0].seed == 0


def test_without_samples_classes_are_shown_without_images(view: ReportView) -> None:
    gallery = galleries(replace(view, samples=None))[0]
    assert gallery.gained
    assert all(card.images == [] for card in (*gallery.gained, *gallery.lost))


def test_answers_to_other_test_images_are_not_shown(make_folder: Callable[..., Path]) -> None:
    from distail.evaluation.predictions import load_predictions, save_predictions

    first, other = make_folder("a", method="kd"), make_folder("b", method="bkd")
    stored = load_predictions(other / "predictions.safetensors")
    save_predictions(other / "predictions.safetensors", stored.logits.flip(0), stored.target.flip(0))
    view = report_view([first, other])
    assert view.runs[1].predicted
    assert view.runs[2].name == "bkd"
    assert list(view.runs[2].predicted) == []


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (4, "RGB")])
def test_any_number_of_channels_becomes_a_picture(channels: int, mode: str) -> None:
    image = torch.arange(channels * 20).to(torch.uint8).view(channels, 4, 5)
    content = base64.b64decode(data_uri(image).removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(content)) as picture:
        assert (picture.mode, picture.size) == (mode, (5, 4))
        first = picture.getpixel((1, 0))
    assert (first if isinstance(first, int) else first[0]) == 1  # type: ignore[index]


def test_samples_of_several_runs_are_joined_without_repeats() -> None:
    def stored(index: list[int]) -> ReportView:
        samples = Samples(torch.tensor(index), torch.tensor(index) % 3, torch.full((len(index), 1, 2, 2), 7).byte())
        return ReportView("x", test_labels=[0, 1, 2], samples=samples)

    joined = joined_samples([stored([0, 2]), stored([2, 1]), replace(stored([5]), test_labels=[9])])
    assert joined is not None
    assert joined.index.tolist() == [0, 2, 1]
    assert joined.label.tolist() == [0, 2, 1]
    assert joined_samples([ReportView("x")]) is None
