"""Models of timm (extra `timm`), fed as they were trained: `timm:NAME`."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from distail.errors import ModelError
from distail.models.feature_tap import fitting_classifiers
from distail.models.imported import try_once
from distail.models.input_normalization import InputNormalization
from distail.models.new_head import Tell, nearly_uniform, new_head_sentence
from distail.models.weights import check_fit, check_numbers, is_counter, read_state_dict, shared_prefixes


class TimmModel(nn.Module):
    """A timm model behind the conversion from the data's normalization to its own.

    `mean` and `std` are what its weights want images normalized with; None where it takes images as they are.
    """

    def __init__(
        self,
        model: nn.Module,
        mean_from: Sequence[float] | None = None,
        std_from: Sequence[float] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.normalization: nn.Module = nn.Identity()
        if mean_from is not None and std_from is not None and mean is not None and std is not None:
            self.normalization = InputNormalization(mean_from, std_from, mean, std)
        self.model = model

    def get_classifier(self) -> Any:
        return self.model.get_classifier()  # type: ignore[operator]

    def no_weight_decay(self) -> set[str]:
        """The names of what does not decay, as timm's optimizers have it: tokens, position embeddings and biases."""
        named = getattr(self.model, "no_weight_decay", None)
        return {f"model.{name}" for name in named()} if callable(named) else set()

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
    tell: Tell = warnings.warn,
) -> nn.Module:
    """The timm model `name`, taking images that were normalized with `mean` and `std`.

    Without `mean` and `std` images reach the model as they are: then normalize them as timm does for this model.
    For another number of channels than timm's, its mean and standard deviation are averaged over channels [ours].
    `weights` is a local file of pretrained weights, safetensors or of `torch.save`. A classifier that is not in it, or
    of another number of classes, starts with near-uniform predictions [ours]; `tell` reports a discarded one.

    Raises:
        ModelError: as `check_timm_model`, and for models that do not take these images, which one forward pass shows.
        CheckpointError: weights are missing, damaged, quantized or not finite.
    """
    check_timm_model(name)
    config = _import_timm().get_pretrained_cfg(name)
    arguments: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels}
    if config is not None and config.fixed_input_size:
        arguments["img_size"] = image_size
    if weights is None:
        model, stored_classes = _build(name, arguments), None
    else:
        stored = _without_wrapper(read_state_dict(Path(weights), f"timm:{name}"))
        stored_classes = _stored_classes(stored, config)
        model = _build_filled(name, arguments, stored, stored_classes, Path(weights))
        filled = {key: tensor for key, tensor in model.state_dict().items() if key in stored}
        check_numbers(filled, stored, Path(weights), f"timm:{name}")
    if stored_classes != num_classes:
        if stored_classes is not None:
            model.reset_classifier(num_classes)  # type: ignore[operator]
        for head in _heads(model, num_classes):
            nearly_uniform(head)
        if weights is not None:
            tensors = [name for name in model.state_dict() if name.startswith(_head_prefixes(model))]
            tell(new_head_sentence(f"timm:{name}", weights, tensors, stored_classes, num_classes))
    try_once(model, f"timm:{name}", torch.zeros(2, in_channels, image_size, image_size), num_classes)
    own: Any = model.pretrained_cfg
    if mean is None or std is None or not own.get("mean"):
        return TimmModel(model)
    return TimmModel(model, mean, std, _per_channel(own["mean"], in_channels), _per_channel(own["std"], in_channels))


def _build(name: str, arguments: Mapping[str, Any], weights: Path | None = None) -> nn.Module:
    try:
        model: nn.Module = _import_timm().create_model(name, **arguments)
    except Exception as error:
        source = "" if weights is None else f" from {weights}"
        size = f" at {arguments['img_size']} pixels" if "img_size" in arguments else ""
        raise ModelError(
            f"timm could not build {name!r}{source} for {arguments['num_classes']} classes and "
            f"{arguments['in_chans']} channels{size}: {error}"
        ) from error
    return model


def _build_filled(
    name: str, arguments: Mapping[str, Any], stored: Mapping[str, Tensor], classes: int | None, weights: Path
) -> nn.Module:
    """A timm model with stored weights: of as many classes as they are, which timm then wants to fit exactly.

    Without a stored classifier (`classes` is None) timm fills what it finds and says nothing of the rest.

    Raises:
        ModelError: anything but the classifier is missing, surplus or of another shape.
    """
    # The tensors, not the file: timm would choose its reader by the file's name, and one of them unpickles.
    overlay = {"state_dict": {**stored}, "custom_load": False, "label_offset": 0, "num_classes": classes or 0}
    wanted = {**arguments, "num_classes": classes or arguments["num_classes"]}
    if classes is None:
        bare = _build(name, wanted)
        own = bare.state_dict()
        # Of another shape may be what timm resizes.
        resized = {key: own[key] for key in own if key in stored or key.startswith(_head_prefixes(bare))}
        check_fit(bare, own, {**_counters(own), **stored, **resized}, weights, f"timm:{name}")
    try:
        model = _build(name, {**wanted, "pretrained": True, "pretrained_cfg_overlay": overlay}, weights)
    except ModelError:
        bare = _build(name, wanted)
        own = bare.state_dict()
        resized = {key: own[key] for key in own if key in stored and key.startswith(_prefixes_of(bare, "first_conv"))}
        check_fit(bare, own, {**_counters(own), **stored, **resized}, weights, f"timm:{name}")
        raise  # it has names of its own for what it reads
    del model.pretrained_cfg["state_dict"]  # type: ignore[union-attr, operator]
    return model


def _counters(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in own.items() if is_counter(tensor)}


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
        f"{torch_version} ({error}). Install the matching version: pip install --force-reinstall --no-deps "
        f"'torchvision==0.{minor + 15}.*'{index}"
    )


def _without_wrapper(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix that all names share, which none of timm's models has, and without a wrapper's counters."""
    weights = {
        name: tensor
        for name, tensor in stored.items()
        if not is_counter(tensor) or name.endswith(".num_batches_tracked")
    }
    prefix = shared_prefixes(weights)[-1]
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items()}


def _stored_classes(stored: Mapping[str, Tensor], config: Any) -> int | None:
    """Outputs of the stored classifier; None where none is stored."""
    names = _as_tuple(config.classifier if config is not None else None)
    return next((len(stored[f"{name}.weight"]) for name in names if f"{name}.weight" in stored), None)


def _heads(model: nn.Module, num_classes: int) -> list[nn.Module]:
    prefixes = _head_prefixes(model)
    fitting = fitting_classifiers(model, num_classes)
    return [head for place, head in fitting.items() if f"{place}.".startswith(prefixes)]


def _head_prefixes(model: nn.Module) -> tuple[str, ...]:
    return _prefixes_of(model, "classifier")


def _prefixes_of(model: nn.Module, part: str) -> tuple[str, ...]:
    """How the names of what timm calls a model's `classifier` or `first_conv` begin."""
    return tuple(f"{name}." for name in _as_tuple(model.pretrained_cfg.get(part)))  # type: ignore[union-attr, operator]


def _as_tuple(names: Any) -> tuple[str, ...]:
    return tuple(names) if isinstance(names, tuple | list) else (names,) if names else ()


def _per_channel(values: Sequence[float], channels: int) -> list[float]:
    return list(values) if len(values) == channels else [sum(values) / len(values)] * channels
