"""Models of timm (extra `timm`), fed as they were trained: `timm:NAME`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from distail.errors import CheckpointError, ModelError, some_of
from distail.models.imported import try_once
from distail.models.input_normalization import InputNormalization


class TimmModel(nn.Module):
    """A timm model behind the conversion from the data's normalization to its own."""

    def __init__(self, normalization: nn.Module, model: nn.Module) -> None:
        super().__init__()
        self.normalization = normalization
        self.model = model

    def get_classifier(self) -> Any:
        return self.model.get_classifier()  # type: ignore[operator]

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits_NC: Tensor = self.model(self.normalization(images_NCHW))
        return logits_NC


def check_timm_model(name: str) -> None:
    """Let pass a model that timm has.

    Raises:
        ModelError: timm is not installed, cannot be imported or has no model `name`.
    """
    timm = _import_timm()
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5)
        nearest = f"Nearest: {', '.join(near)}. " if near else ""
        raise ModelError(f"unknown timm model {name!r}. {nearest}All of them: timm.list_models()")


def create_timm_model(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: int = 32,
    weights: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """The timm model `name`, taking images that were normalized with `mean` and `std`.

    Without `mean` and `std` images reach the model as they are: then normalize them as timm does for this model.
    For another number of channels than timm's, its mean and deviation are averaged over channels [ours].
    `weights` is a local safetensors file of pretrained weights; for another class count the classifier starts anew.

    Raises:
        ModelError: as `check_timm_model`, and for models that do not take these images, which one forward pass shows.
        CheckpointError: weights are missing, damaged or no safetensors.
    """
    check_timm_model(name)
    timm = _import_timm()
    config = timm.get_pretrained_cfg(name)
    arguments: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels}
    if config is not None and config.fixed_input_size:
        arguments["img_size"] = image_size
    shapes: dict[str, tuple[int, ...]] = {}
    if weights is not None:
        shapes = _stored_shapes(Path(weights))
        overlay = {"file": str(weights), "num_classes": _stored_classes(shapes, config)}
        arguments |= {"pretrained": True, "pretrained_cfg_overlay": overlay}
    try:
        model = timm.create_model(name, **arguments)
    except Exception as error:
        source = "" if weights is None else f" from {weights}"
        raise ModelError(
            f"timm could not build {name!r}{source} for {num_classes} classes and {in_channels} channels "
            f"at {image_size} pixels: {error}"
        ) from error
    if weights is not None:
        _check_filled(model, shapes, weights)
    try_once(model, f"timm:{name}", (2, in_channels, image_size, image_size), num_classes)
    return TimmModel(_normalization(model.pretrained_cfg, in_channels, mean, std), model)


def _import_timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise ModelError(
            f"timm:NAME needs timm, which cannot be imported ({error}): pip install 'distail[timm]'"
        ) from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        raise ModelError(_mismatch(torch.__version__, _installed("torchvision"), error)) from error
    return timm  # type: ignore[no-any-return]


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _mismatch(torch_version: str, torchvision_version: str, error: Exception) -> str:
    """Each torch 2.N has its torchvision 0.(N+15), and each build (CPU, CUDA version) its own."""
    release, _, build = torch_version.partition("+")
    minor = int(release.split(".")[1])
    index = f" --index-url https://download.pytorch.org/whl/{build}" if build else ""
    return (
        f"timm needs torchvision, but the installed torchvision {torchvision_version} was built for another torch than "
        f"{torch_version} ({error}). Install the one that belongs to it: pip install --force-reinstall --no-deps "
        f"'torchvision==0.{minor + 15}.*'{index}"
    )


def _stored_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"weights file {str(path)!r} does not exist (current directory {Path.cwd()})")
    try:
        with safe_open(path, framework="pt") as file:
            # timm chooses its reader by this suffix, and its other reader unpickles.
            if path.suffix == ".safetensors":
                return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file, or is damaged: {error}") from error
    raise CheckpointError(f"{path} must be named .safetensors")


def _stored_classes(shapes: Mapping[str, tuple[int, ...]], config: Any) -> int:
    """Outputs of the stored classifier; 0, which timm takes for another class count, where none is stored."""
    classifiers = config.classifier if config is not None else None
    names = classifiers if isinstance(classifiers, tuple | list) else (classifiers,)
    return next((shapes[f"{name}.weight"][0] for name in names if f"{name}.weight" in shapes), 0)


def _check_filled(model: nn.Module, shapes: Mapping[str, tuple[int, ...]], weights: str | Path) -> None:
    """timm fills what it finds and says nothing of the rest, which would leave another network's random weights."""
    classifiers = model.pretrained_cfg.get("classifier")  # type: ignore[union-attr,operator]
    names = tuple(f"{name}." for name in (classifiers if isinstance(classifiers, tuple | list) else (classifiers,)))
    missing = [name for name in model.state_dict() if name not in shapes and not name.startswith(names)]
    if missing:
        raise ModelError(f"{weights} lacks {len(missing)} tensors of the model, such as {some_of(missing)}")


def _normalization(
    config: Mapping[str, Any], in_channels: int, mean: Sequence[float] | None, std: Sequence[float] | None
) -> nn.Module:
    if mean is None or std is None or not config.get("mean"):
        return nn.Identity()
    return InputNormalization(
        mean, std, _per_channel(config["mean"], in_channels), _per_channel(config["std"], in_channels)
    )


def _per_channel(values: Sequence[float], channels: int) -> list[float]:
    return list(values) if len(values) == channels else [sum(values) / len(values)] * channels
