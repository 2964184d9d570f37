"""Balanced accuracy of finished runs, adjusted more or less, on the test set and on training images that no one saw.

    python benchmarks/recipe/undrawn.py runs/recipe-committee-tau-1.5-seed0 ...    # a minute or more each on one core

CIFAR-100-LT draws 10,847 of 50,000 training images: the others can say whether a strength that was chosen is the best,
without the test set. A class of which all are drawn is left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file

from distail.config.schema import Data
from distail.data.dataset import LabeledImages
from distail.data.prepare import channel_statistics, prepare_data
from distail.functional import remove_prior
from distail.models import create_model

STRENGTHS = (-0.5, -0.25, 0.0, 0.25, 0.5, 1.0)


def main() -> None:
    everything = prepare_data(Data(name="cifar100", validation=0), seed=0).train
    pixels = _pixels(everything)
    for folder in map(Path, sys.argv[1:]):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        factor, seed = config["data"]["imbalance_factor"], config["seed"]
        data = prepare_data(Data(name="cifar100", imbalance_factor=factor, profile="exp", validation=0), seed=seed)
        drawn = {*_pixels(data.train)}
        undrawn = everything.subset(torch.tensor([i for i, each in enumerate(pixels) if each not in drawn]))
        student = config["student"]["model"]
        named = {"shortcut": student["shortcut"]} if student["shortcut"] else {}
        network = create_model(student["name"], num_classes=100, **named).eval()
        network.load_state_dict(load_file(folder / "student.safetensors"))
        mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in channel_statistics(data.train))
        counts = torch.bincount(data.train.labels, minlength=100)
        for name, images in (("test", data.test), ("undrawn", undrawn)):
            with torch.inference_mode():
                logits = torch.cat([network((each.float() / 255 - mean) / std) for each in images.images.split(256)])
            figures = []
            for tau in STRENGTHS:
                right = remove_prior(logits, counts, tau).argmax(dim=1) == images.labels
                recalls = [right[images.labels == c].float().mean() for c in images.labels.unique()]
                figures.append(f"{tau:+.2f}: {100 * sum(recalls) / len(recalls):.1f}")
            print(f"{folder.name}, {len(images):,} {name} images, adjusted by  {'  '.join(figures)}", flush=True)


def _pixels(images: LabeledImages) -> list[bytes]:
    return [image.numpy().tobytes() for image in images.images.contiguous()]


if __name__ == "__main__":
    main()
