"""The entries of `data.augment`: a name, or a mapping of its name and parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, PlainSerializer, PlainValidator, ValidationError, model_validator

from distail.config.problems import wrong_keys
from distail.config.section import Count, Number, Positive, Section, Whole
from distail.errors import did_you_mean

_EXAMPLE = {"name": "cutout", "length": 8}
Share = Annotated[Number, Field(ge=0, le=1)]
Factor = Annotated[Number, Field(ge=0, allow_inf_nan=False)]


class RandAugment(Section):
    """`num_ops` operations an image, drawn evenly, all at one magnitude of 0 to 30 (Cubuk et al. 2020)."""

    name: Literal["rand_augment"] = "rand_augment"
    num_ops: Annotated[Whole, Field(ge=1, le=10)] = 2
    magnitude: Annotated[Whole, Field(ge=0, le=30)] = 9


class Cutout(Section):
    """A square of `length` pixels about a random pixel set to the mean color (DeVries and Taylor 2017)."""

    name: Literal["cutout"] = "cutout"
    length: Count | None = None
    """By default half of the shorter side: 16 of 32 pixels."""


class _Boxes(Section):
    scale: tuple[Positive, Positive]
    """The box's least and largest share of the image."""
    ratio: tuple[Positive, Positive]
    """The least and largest ratio of its width to its height; of what is erased of its height to its width [paper]."""

    @model_validator(mode="after")
    def _rise(self) -> _Boxes:
        if self.scale[0] > self.scale[1] or self.scale[1] > 1:
            raise ValueError(f"scale is {list(self.scale)}; expected two shares of the image that rise, at most 1")
        if self.ratio[0] > self.ratio[1]:
            raise ValueError(f"ratio is {list(self.ratio)}; expected two ratios that rise")
        return self


class RandomErasing(_Boxes):
    """A box of some images set to the mean color (Zhong et al. 2020)."""

    name: Literal["random_erasing"] = "random_erasing"
    probability: Share = 0.5
    scale: tuple[Positive, Positive] = (0.02, 0.33)
    ratio: tuple[Positive, Positive] = (0.3, 3.3)


class RandomResizedCrop(_Boxes):
    """A box of the image, resized to the whole (Szegedy et al. 2015)."""

    name: Literal["random_resized_crop"] = "random_resized_crop"
    scale: tuple[Positive, Positive] = (0.08, 1.0)
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)


class ColorJitter(Section):
    """Brightness, contrast and saturation times a factor within these of 1, the hue turned by up to `hue` circles."""

    name: Literal["color_jitter"] = "color_jitter"
    brightness: Factor = 0.4
    contrast: Factor = 0.4
    saturation: Factor = 0.4
    hue: Annotated[Number, Field(ge=0, le=0.5)] = 0.0


class _Plain(Section):
    """An augmentation without parameters."""

    name: str


AUGMENTATIONS: dict[str, type[Section]] = {
    "crop": _Plain,
    "random_resized_crop": RandomResizedCrop,
    "flip": _Plain,
    "rotate": _Plain,
    "color_jitter": ColorJitter,
    "auto_augment": _Plain,
    "rand_augment": RandAugment,
    "trivial_augment": _Plain,
    "cutout": Cutout,
    "random_erasing": RandomErasing,
}
"""In the order in which they are applied, whatever the order of the list."""


POLICIES = ("auto_augment", "rand_augment", "trivial_augment")
"""Those that choose among operations by themselves."""


def augment_name(entry: str | Section) -> str:
    """The name of an entry.

    >>> augment_name("flip"), augment_name(Cutout(length=8))
    ('flip', 'cutout')
    """
    return entry if isinstance(entry, str) else str(getattr(entry, "name", ""))


def read_augment(value: Any) -> Any:
    """An entry as it is kept: the bare name where nothing more was said.

    Raises:
        ValueError: there is no such augmentation or parameter, or a value is out of range.

    >>> read_augment({"name": "flip"}), read_augment({"name": "cutout", "length": 8})
    ('flip', Cutout(name='cutout', length=8))
    """
    if isinstance(value, Section):
        return value
    given = {"name": value} if not isinstance(value, Mapping) else dict(value)
    name = given.get("name")
    if not isinstance(name, str) or name not in AUGMENTATIONS:
        said = name if isinstance(value, Mapping) else value
        if said in ("cutmix", "mixup"):
            raise ValueError(f"{said!r} mixes images with one another; expected training.mix: {said}")
        if "name" not in given:  # {cutout: {length: 8}}, or parameters alone
            key, inner = next(iter(given.items()), ("", None))
            known = {"name": key, **inner} if key in AUGMENTATIONS and isinstance(inner, Mapping) else _EXAMPLE
            example = yaml.safe_dump(known, default_flow_style=True, sort_keys=False).strip()
            raise ValueError(f"{dict(given)} has no name; expected one, such as {example}")
        raise ValueError(f"{said!r} is not valid. {did_you_mean(str(said), AUGMENTATIONS)}")
    if len(given) == 1:
        return name
    section = AUGMENTATIONS[name]
    try:
        return section.model_validate(given)
    except ValidationError as error:
        raise ValueError("; ".join(wrong.problem for wrong in wrong_keys(section, error))) from None


def _written(entry: str | Section) -> Any:
    return entry if isinstance(entry, str) else {"name": augment_name(entry), **entry.model_dump(mode="json")}


AugmentParameters = RandAugment | Cutout | RandomErasing | RandomResizedCrop | ColorJitter
Augment = Annotated[str | AugmentParameters, PlainValidator(read_augment), PlainSerializer(_written)]
