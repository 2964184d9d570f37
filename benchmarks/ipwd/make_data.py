"""25 classes of balanced CIFAR-100, every fourth, as class folders: `make_data.py FOLDER_OF_CIFAR100 OUTPUT`."""

import sys
from pathlib import Path

from PIL import Image

from distail.config.schema import Data
from distail.data.sources import load_source

EVERY = 4


def main(root: Path, output: Path) -> None:
    source = load_source(Data(name="cifar100", root=root))
    for split in ("train", "test"):
        images = getattr(source, split)
        for number, (pixels, label) in enumerate(zip(images.images, images.labels.tolist(), strict=True)):
            if label % EVERY == 0:
                folder = output / split / source.class_names[label]
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{number:05}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
