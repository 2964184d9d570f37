"""Balanced accuracy of finished runs, adjusted more or less, on the test set and on training images that no one saw.

    python benchmarks/recipe/undrawn.py runs/recipe-committee-tau-1.5-seed0 ...    # a minute or more each on one core

CIFAR-100-LT draws 10,847 of 50,000 training images: the others can say whether a strength that was chosen is the best,
without the test set. A class of which all are drawn is left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from distail import load_student
from distail.config.schema import Data, Experiment
from distail.data.dataset import LabeledImages
from distail.data.prepare import channel_statistics, prepare_data
from distail.evaluation.adjustment import evaluate_adjusted

STRENGTHS = (-0.5, -0.25, 0.0, 0.25, 0.5, 1.0)


def main() -> None:
    everything = prepare_data(Data(name="cifar100", validation=0), seed=0).train
    pixels = _pixels(everything)
    for folder in map(Path, sys.argv[1:]):
        run = Experiment.from_yaml(folder / "config.yaml")
        data = prepare_data(run.data, seed=run.seed)
        drawn = {*_pixels(data.train)}
        undrawn = everything.subset(torch.tensor([i for i, each in enumerate(pixels) if each not in drawn]))
        network = load_student(folder).network
        mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in channel_statistics(data.train))
        for name, images in (("test", data.test), ("undrawn", undrawn)):
            with torch.inference_mode():
                logits = torch.cat([network((each.float() / 255 - mean) / std) for each in images.images.split(256)])
            figures = []
            for tau in STRENGTHS:
                found = evaluate_adjusted(logits, images.labels, data.class_counts, tau)
                figures.append(f"{tau:+.2f}: {found['balanced_accuracy']:.1f}")
            print(f"{folder.name}, {len(images):,} {name} images, adjusted by  {'  '.join(figures)}", flush=True)


def _pixels(images: LabeledImages) -> list[bytes]:
    return [image.numpy().tobytes() for image in images.images.contiguous()]


if __name__ == "__main__":
    main()
