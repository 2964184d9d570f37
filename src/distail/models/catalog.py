"""All networks that distail builds itself."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from distail.models import densenet, googlenet, mlp, mobilenet, resnet, shufflenet, vgg, wide_resnet

# A builder takes num_classes, in_channels and classifier, and of `create_model`'s other options what it knows,
# by keyword; one that takes input_shape is not for images alone.
MODELS: dict[str, Callable[..., nn.Module]] = {
    **resnet.BUILDERS,
    **wide_resnet.BUILDERS,
    **vgg.BUILDERS,
    **mobilenet.BUILDERS,
    **shufflenet.BUILDERS,
    **googlenet.BUILDERS,
    **densenet.BUILDERS,
    **mlp.BUILDERS,
}


def builder_of(name: str) -> Callable[..., nn.Module] | None:
    """What builds the network of this name, in which case and `_` for `-` do not matter; None for others' networks.

    >>> builder_of("WRN_16_2") is builder_of("wrn-16-2"), builder_of("mine:network") is None
    (True, True)
    """
    return MODELS.get(name.lower().replace("_", "-"))


def list_models() -> tuple[str, ...]:
    """Names of all networks in the catalog, sorted.

    >>> "resnet32" in list_models()
    True
    """
    return tuple(sorted(MODELS))
