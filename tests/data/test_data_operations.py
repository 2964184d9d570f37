"""Every operation on a batch against Pillow, image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from distail.data.operations import OPERATIONS, apply_operations

MAGNITUDES = {
    "posterize": [2, 4, 7, 8],
    "solarize": [0, 128, 255, 77.5],
    "rotate": [30, -135, 5, 0],
    "translate_x": [14.5, -3.2, 0, 32],
    "translate_y": [14.5, -3.2, 0, 32],
    "shear_x": [0.99, -0.3, 0.1, 0],
    "shear_y": [0.99, -0.3, 0.1, 0],
    "hue": [0.5, -0.5, 0.1, -0.03],
}
FACTORS = [0.9, -0.9, 0.3, -0.99]


def by_pillow(name: str, image: Image.Image, magnitude: float) -> Image.Image:
    def mapped(*numbers: float) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, numbers)

    if name in ("brightness", "contrast", "color", "sharpness"):
        return getattr(ImageEnhance, name.capitalize())(image).enhance(1 + magnitude)
    if name == "hue" and image.mode == "RGB":
        hue, saturation, value = image.convert("HSV").split()
        turned = hue.point(lambda level: (level + int(magnitude * 255)) % 256)
        return Image.merge("HSV", (turned, saturation, value)).convert("RGB")
    return {
        "identity": lambda: image,
        "hue": lambda: image,
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "invert": lambda: ImageOps.invert(image),
        "posterize": lambda: ImageOps.posterize(image, int(magnitude)),
        "solarize": lambda: ImageOps.solarize(image, magnitude),
        "shear_x": lambda: mapped(1, magnitude, 0, 0, 1, 0),
        "shear_y": lambda: mapped(1, 0, 0, magnitude, 1, 0),
        "translate_x": lambda: mapped(1, 0, -int(magnitude), 0, 1, 0),
        "translate_y": lambda: mapped(1, 0, 0, 0, 1, -int(magnitude)),
        "rotate": lambda: image.rotate(magnitude),
    }[name]()


def made_images(count: int, height: int, width: int, channels: int) -> torch.Tensor:
    """Noise, noise of low contrast, smooth paths, and one image of a single level."""
    draw = np.random.default_rng(0)
    levels = draw.integers(0, 256, (count, height, width, channels)).astype(float)
    levels[::3] = levels[::3] * 0.3 + 40
    paths = draw.normal(size=(len(levels[1::3]), height, width, channels)) * 6
    levels[1::3] = np.clip(np.cumsum(paths, axis=1) + 128, 0, 255)
    levels[5] = 77
    return torch.from_numpy(levels.astype(np.uint8)).permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_gives_what_pillow_gives(name: str, channels: int) -> None:
    count, most, share_above_one = 24, 1, 0.0
    if name == "hue":  # a hue of 8 bits that rounds the other way is a step of up to 6 levels
        most, share_above_one = 6, 0.005
    magnitudes = np.array([MAGNITUDES.get(name, FACTORS)[row % 4] for row in range(count)], dtype=float)
    for size in ((32, 32), (12, 20), (2, 3)):
        images = made_images(count, *size, channels)
        before = images.clone()
        result = apply_operations(images, np.array([name] * count), magnitudes)
        assert torch.equal(images, before)
        for row in range(count):
            image = images[row].permute(1, 2, 0).numpy()
            given = Image.fromarray(image if channels == 3 else image[..., 0])
            expected = np.asarray(by_pillow(name, given, magnitudes[row])).reshape(image.shape).astype(int)
            off = np.abs(result[row].permute(1, 2, 0).numpy().astype(int) - expected)
            assert off.max() <= most, (size, row)
            assert (off > 1).mean() <= share_above_one + (name == "hue") * (off.size < 1000)


def test_images_get_their_own_operation_and_magnitude() -> None:
    names = np.array([*OPERATIONS, *OPERATIONS])
    magnitudes = np.array([MAGNITUDES.get(name, FACTORS)[row % 4] for row, name in enumerate(names)], dtype=float)
    images = made_images(len(names), 16, 16, 3)
    together = apply_operations(images, names, magnitudes)
    for row in range(len(names)):
        part = slice(row, row + 1)
        assert torch.equal(apply_operations(images[part], names[part], magnitudes[part]), together[part])


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_memory_format_is_kept_and_changes_nothing(name: str) -> None:
    images = made_images(8, 9, 12, 3)
    names, magnitudes = np.array([name] * 8), np.array([MAGNITUDES.get(name, FACTORS)[0]] * 8, dtype=float)
    plain = apply_operations(images, names, magnitudes)
    interleaved = apply_operations(images.contiguous(memory_format=torch.channels_last), names, magnitudes)
    assert plain.is_contiguous()
    assert interleaved.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, interleaved)


def test_no_images_and_two_channels() -> None:
    nothing = apply_operations(torch.zeros(0, 3, 4, 4, dtype=torch.uint8), np.array([], dtype=str), np.zeros(0))
    assert nothing.shape == (0, 3, 4, 4)
    images = made_images(len(OPERATIONS), 8, 8, 2)
    result = apply_operations(images, np.array(OPERATIONS), np.full(len(OPERATIONS), 0.5))
    assert result.shape == images.shape
    assert torch.equal(result[OPERATIONS.index("hue")], images[OPERATIONS.index("hue")])
