"""What the network of a file wants its inputs normalized with, and what becomes of inputs that are not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from distail.data.prepare import PreparedData
from distail.errors import some_of
from distail.models import FeatureTap
from distail.models.input_normalization import InputNormalization
from distail.models.metadata import Metadata, naming
from distail.models.timm_bridge import TimmModel
from distail.models.weights import read_metadata

Normalization = tuple[Sequence[float], Sequence[float]]
"""Means and deviations of channels or columns."""
_SMALL = 0.05


def match_normalization(tap: FeatureTap, weights: Path, data: PreparedData) -> None:
    """Let a loaded network see the data's images normalized as those that it was trained on, where its file says how.

    Raises:
        CheckpointError: what the file says is damaged.
    """
    convert = other_normalization(tap, weights, data)
    if convert is not None:
        convert = convert.to(next(tap.parameters()).device)
        tap.model.register_forward_pre_hook(lambda _, inputs: (convert(inputs[0]), *inputs[1:]))


def normalization_notes(network: nn.Module, weights: Path, data: PreparedData, whose: str) -> list[str]:
    """A sentence for the user where a network goes on training on inputs that are normalized as it does not know them.

    They are not converted, as a loaded teacher's are: the student's own file says that it wants the data's mean and
    deviation. Differences of less than a twentieth of a deviation are those of another part of the same data [ours].

    Raises:
        CheckpointError: what the file says is damaged.
    """
    stored = stored_normalization(weights)
    here: Normalization = (data.mean, data.std)
    if isinstance(network, TimmModel):  # which converts by itself
        here = (network.mean or data.mean, network.std or data.std)
    if stored is None or _nearly_equal(stored, here):
        return []
    theirs, ours = (
        f"mean {some_of([f'{value:.3g}' for value in mean])} and std {some_of([f'{value:.3g}' for value in std])}"
        for mean, std in (stored, here)
    )
    return [
        f"{whose}: {weights} was trained on inputs normalized with {theirs}; here they are normalized with {ours}: "
        "training adapts the network to that, but nothing of it that stays frozen"
    ]


def _nearly_equal(one: Normalization, other: Normalization) -> bool:
    if len({len(values) for values in (*one, *other)}) > 1:
        return False
    return all(
        abs(mean - wanted) <= _SMALL * deviation and abs(std - deviation) <= _SMALL * deviation
        for mean, std, wanted, deviation in zip(*one, *other, strict=True)
    )


def stored_normalization(weights: Path) -> Normalization | None:
    """Mean and deviation that a file of weights names."""
    told = Metadata(read_metadata(weights))
    with naming(weights):
        mean, std = (told.optional(key, told.numbers) for key in ("mean", "std"))
    return None if mean is None or std is None else (mean, std)


def other_normalization(tap: FeatureTap, weights: Path, data: PreparedData) -> InputNormalization | None:
    """From the data's normalization to that which a file of weights names; None where it is the same."""
    stored = stored_normalization(weights)
    if stored is None or isinstance(tap.model, TimmModel):  # which converts by itself
        return None
    mean, std = stored
    same = (mean, std) == (data.mean, data.std)
    return None if same else InputNormalization(data.mean, data.std, mean, std)
