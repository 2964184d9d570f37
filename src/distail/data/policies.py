"""Which operation each image draws, and how strongly: AutoAugment, RandAugment, TrivialAugment, color jitter.

Shapes: B images, k columns of random 32-bit integers, M magnitudes.

Everything is drawn on the host, from integers that are the same whatever the batch, the device or the processes.
Magnitudes are those that torchvision publishes (`AutoAugment(CIFAR10)`, `RandAugment`, `TrivialAugmentWide`,
`ColorJitter`), which differ from the papers' tables in details; nearest pixel, black outside.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distail.config.augment import ColorJitter, RandAugment
from distail.data.operations import Magnitudes, Names, apply_operations

Bits = NDArray[np.int64]

# The reference's: a translation of 150 of 331 pixels at most.
_FARTHEST = 150 / 331
_SIGNED = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast", "sharpness")
_SPACE = ("identity", *_SIGNED, "posterize", "solarize", "autocontrast", "equalize")
WIDE_MAGNITUDES = 31
CIFAR_POLICY = (
    (("invert", 0.1, 0), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 0), ("equalize", 0.9, 0)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 0), ("equalize", 0.5, 0)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 0), ("autocontrast", 0.4, 0)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 0)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 0), ("equalize", 0.6, 0)),
    (("color", 0.9, 9), ("equalize", 0.6, 0)),
    (("autocontrast", 0.8, 0), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 0)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 0), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 0), ("invert", 0.1, 0)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 0)),
)
"""The 25 pairs that AutoAugment found on CIFAR-10: operation, probability, magnitude of 0 to 9 [paper: Cubuk et al.
2019, table 7]."""

TRIVIAL_COLUMNS, AUTO_COLUMNS, JITTER_COLUMNS = 3, 5, 5


def rand_columns(options: RandAugment) -> int:
    """Random integers an image: an operation and a sign, `num_ops` times."""
    return 2 * options.num_ops


def magnitudes(width: int, height: int, count: int) -> dict[str, Magnitudes]:
    """Of every operation that has one, `count` magnitudes (M,) from none to the largest of Auto- and RandAugment.

    >>> magnitudes(32, 32, 31)["rotate"][9].round(3), magnitudes(32, 32, 10)["posterize"].tolist()
    (np.float64(9.0), [8.0, 8.0, 7.0, 7.0, 6.0, 6.0, 5.0, 5.0, 4.0, 4.0])
    """
    return _table(0.3, _FARTHEST * width, _FARTHEST * height, 30.0, 0.9, 4, count)


def wide_magnitudes(width: int, height: int) -> dict[str, Magnitudes]:
    """The 31 magnitudes of TrivialAugment (Wide): stronger, translations of up to 32 pixels whatever the size [paper].

    An image below 32 pixels is moved by its own width or height at most [ours]: else a tenth of images of 8 pixels
    would be black.

    >>> wide_magnitudes(224, 224)["rotate"][-1], wide_magnitudes(8, 64)["translate_x"][-1]
    (np.float64(135.0), np.float64(8.0))
    """
    return _table(0.99, min(32.0, width), min(32.0, height), 135.0, 0.99, 6, WIDE_MAGNITUDES)


def trivial_augment(images_BCHW: Tensor, bits_B3: Bits) -> Tensor:
    """One operation an image, all 14 and their magnitudes equally likely [paper: Müller and Hutter 2021]."""
    height, width = images_BCHW.shape[-2:]
    table = wide_magnitudes(width, height)
    operation_B = _choices(bits_B3[:, 0], _SPACE)
    level_B = chosen(bits_B3[:, 1], WIDE_MAGNITUDES)
    return apply_operations(images_BCHW, operation_B, _magnitude(table, operation_B, level_B, bits_B3[:, 2]))


def rand_augment(images_BCHW: Tensor, bits_Bk: Bits, options: RandAugment) -> Tensor:
    """`num_ops` of 14 operations, one after the other, all at the same magnitude [paper: Cubuk et al. 2020]."""
    height, width = images_BCHW.shape[-2:]
    table = magnitudes(width, height, 31)
    for first in range(0, rand_columns(options), 2):
        operation_B = _choices(bits_Bk[:, first], _SPACE)
        level_B = np.full(len(operation_B), options.magnitude)
        magnitude_B = _magnitude(table, operation_B, level_B, bits_Bk[:, first + 1])
        images_BCHW = apply_operations(images_BCHW, operation_B, magnitude_B)
    return images_BCHW


def auto_augment(images_BCHW: Tensor, bits_B5: Bits) -> Tensor:
    """One of the 25 pairs of the CIFAR policy an image, each of its operations with its probability."""
    height, width = images_BCHW.shape[-2:]
    table = magnitudes(width, height, 10)
    pair_B = chosen(bits_B5[:, 0], len(CIFAR_POLICY))
    for place in (0, 1):
        names, shares, levels = zip(*(pair[place] for pair in CIFAR_POLICY), strict=True)
        applied_B = units(bits_B5[:, 1 + 2 * place]) < np.array(shares)[pair_B]
        operation_B = np.where(applied_B, np.array(names)[pair_B], "identity")
        level_B = np.array(levels)[pair_B]
        magnitude_B = _magnitude(table, operation_B, level_B, bits_B5[:, 2 + 2 * place])
        images_BCHW = apply_operations(images_BCHW, operation_B, magnitude_B)
    return images_BCHW


def color_jitter(images_BCHW: Tensor, bits_B5: Bits, options: ColorJitter) -> Tensor:
    """Brightness, contrast, saturation and hue, each by its own factor (or turn), in an order of the image's own."""
    widths = {
        "brightness": options.brightness,
        "contrast": options.contrast,
        "color": options.saturation,
        "hue": options.hue,
    }
    used = [name for name, width in widths.items() if width]
    if not used:
        return images_BCHW
    orders = np.array(list(itertools.permutations(used)))
    order_BP = orders[chosen(bits_B5[:, 0], len(orders))]
    drawn: dict[str, Magnitudes] = {}
    for column, (name, width) in enumerate(widths.items(), 1):
        low = -width if name == "hue" else max(-1.0, -width)  # a factor is never below 0
        drawn[name] = low + units(bits_B5[:, column]) * (width - low)
    for operation_B in order_BP.T:
        magnitude_B = np.select([operation_B == name for name in used], [drawn[name] for name in used])
        images_BCHW = apply_operations(images_BCHW, operation_B, magnitude_B)
    return images_BCHW


def chosen(bits_B: Bits, choices: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """32-bit integers mapped evenly to 0 ... choices - 1.

    >>> chosen(np.array([0, 2**31, 2**32 - 1]), 2).tolist()
    [0, 1, 1]
    """
    return (bits_B * choices) >> 32


def units(bits_B: Bits) -> NDArray[np.float64]:
    """32-bit integers as numbers in [0, 1)."""
    return bits_B.astype(np.float64) * 2.0**-32


def _choices(bits_B: Bits, names: tuple[str, ...]) -> Names:
    return np.array(names)[chosen(bits_B, len(names))]


def _magnitude(table: Mapping[str, Magnitudes], operation_B: Names, level_B: Bits, sign_B: Bits) -> Magnitudes:
    """Of each image's operation; half of those that have a direction go the other way, those without have none."""
    result: Magnitudes = np.zeros(len(operation_B))
    for name, magnitude_M in table.items():
        drew = operation_B == name
        result[drew] = magnitude_M[level_B[drew]]
    turned = np.isin(operation_B, _SIGNED) & (chosen(sign_B, 2) == 1)
    result[turned] *= -1
    return result


def _table(
    shear: float, x: float, y: float, degrees: float, factor: float, posterize: int, count: int
) -> dict[str, Magnitudes]:
    largest = dict(zip(_SIGNED, (shear, shear, x, y, degrees, factor, factor, factor, factor), strict=True))
    return {
        **{name: np.linspace(0.0, most, count) for name, most in largest.items()},
        "posterize": 8 - np.round(np.arange(count) / ((count - 1) / posterize)),
        "solarize": np.linspace(255.0, 0.0, count),
    }
