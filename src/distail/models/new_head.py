"""A network that begins with stored weights: a head of other classes is reinitialized to near-uniform predictions.

Shapes: B batch, C classes, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distail.errors import ModelError, some_of
from distail.inputs import Inputs
from distail.models.feature_tap import called_classifier, fitting_classifiers, with_its_equals
from distail.models.layers import CosineClassifier
from distail.models.metadata import Metadata, naming
from distail.models.weights import check_fit, check_numbers, read_metadata, stored_for

Tell = Callable[[str], None]
# Of a new head's weights: logits of features of a length of 30 then have a standard deviation of 0.03 [ours].
_DEVIATION = 0.001


@torch.no_grad()
def nearly_uniform(head: nn.Module) -> None:
    """Let a linear layer, 1x1 convolution or `CosineClassifier` give all classes nearly the same logit.

    The first cross-entropy is then about ln C, whatever the features: nothing has to be unlearned. Not quite the same,
    because a method that standardizes logits divides by their standard deviation.

    >>> _ = torch.manual_seed(0)
    >>> head = nn.Linear(64, 8)
    >>> nearly_uniform(head)
    >>> round(F.cross_entropy(head(torch.randn(5, 64)), torch.arange(5)).item(), 2)  # ln 8 is 2.08
    2.08
    """
    if isinstance(head, CosineClassifier):  # the lengths of its rows mean nothing
        one_D = F.normalize(head.weight.mean(0, keepdim=True))
        head.weight.copy_(F.normalize(one_D + _DEVIATION * torch.randn_like(head.weight)))
    elif isinstance(head, nn.Linear | nn.Conv2d):
        nn.init.normal_(head.weight, 0, _DEVIATION)
        if head.bias is not None:
            nn.init.zeros_(head.bias)


def new_head_sentence(what: str, path: str | Path, tensors: Sequence[str], stored: int | None, here: int) -> str:
    """What a user is told of a reinitialized head; `stored` is None if the file has none.

    >>> print(new_head_sentence("mine", "r18.pth", ["fc.weight"], 10, 5))
    mine: r18.pth has 10 classes, the data 5: its head (fc.weight) is discarded and reinitialized to near-uniform ...
    """
    names = ", ".join(tensors)
    if stored is None:
        return f"{what}: {path} has no head ({names}); a new one for {here:,} classes starts near uniform predictions"
    return (
        f"{what}: {path} has {stored:,} classes, the data {here:,}: its head ({names}) is discarded and reinitialized "
        "to near-uniform predictions"
    )


def start_from(model: nn.Module, path: str | Path, num_classes: int, *, what: str, tell: Tell) -> None:
    """Fill a network with weights from which its training begins, as `load_weights` does, but for its head.

    A classifier that is missing in the file, or has another number of classes there, starts with near-uniform
    predictions, and `tell` gets a sentence that says so.

    Raises:
        CheckpointError: the file is missing, cannot be read, or holds weights that are quantized or not finite.
        ModelError: anything else of it does not fit; all of it is listed.
    """
    path, own = Path(path), model.state_dict()
    stored = stored_for(own, path, what)
    new, sentences = [], []
    for place, head in fitting_classifiers(model, num_classes).items():
        tensors = [f"{place}.{name}" for name in head.state_dict()]
        if _is_new(tensors, own, stored):
            classes = len(stored[tensors[0]]) if tensors[0] in stored else None
            sentences.append(new_head_sentence(what, path, tensors, classes, num_classes))
            # The bias of a linear head, too, where the new one is cosine and has none.
            stored = {name: value for name, value in stored.items() if not name.startswith(f"{place}.")}
            stored |= {name: own[name] for name in tensors}
            new.append(head)
    check_fit(model, own, stored, path, what)
    check_numbers(own, stored, path, what)
    model.load_state_dict(stored)
    for head in new:
        nearly_uniform(head)
    for sentence in sentences:
        tell(sentence)


def _is_new(tensors: Sequence[str], own: dict[str, Tensor], stored: dict[str, Tensor]) -> bool:
    """Whether a classifier's tensors are all missing, or all of another number of outputs."""
    found = [name for name in tensors if name in stored]
    if len(found) < len(tensors):
        return not found
    return all(
        stored[name].ndim == own[name].ndim
        and len(stored[name]) != len(own[name])
        and stored[name].shape[1:] == own[name].shape[1:]
        for name in tensors
    )


@torch.no_grad()
def match_classes(
    model: nn.Module, path: str | Path, class_names: Sequence[str], inputs: Inputs, *, what: str, tell: Tell
) -> None:
    """Let a head that was filled from a file mean the data's classes, where the file names as many, but others.

    The same names in another order: its rows are put into the data's. Other names: it begins near the uniform answer.
    `tell` gets a sentence.

    Raises:
        CheckpointError: what the file says of its classes is damaged.
    """
    told = Metadata(read_metadata(path))
    with naming(path):
        stored = told.optional("class_names", told.names)
    if stored is None or len(stored) != len(class_names) or stored == tuple(class_names):
        return
    classes = len(class_names)
    try:
        heads = with_its_equals(model, called_classifier(model, classes, inputs), classes)
    except ModelError as error:
        tell(f"{what}: the classes of {path} are not the data's, but no head is found that could be changed: {error}")
        return
    reordered = sorted(stored) == sorted(class_names)
    order = [stored.index(name) for name in class_names] if reordered else []
    for head in map(model.get_submodule, heads):
        if not reordered:
            nearly_uniform(head)
            continue
        for tensor in (*head.parameters(), *head.buffers()):
            if tensor.ndim and len(tensor) == classes:
                tensor.copy_(tensor[order])
    named = ", ".join(heads)
    if reordered:
        tell(f"{what}: {path} has the data's classes in another order; its head ({named}) is put into the data's")
        return
    only_there, only_here = sorted({*stored} - {*class_names}), sorted({*class_names} - {*stored})
    tell(
        f"{what}: {path} is of other classes (only there: {some_of(only_there)}; only in the data: "
        f"{some_of(only_here)}): its head ({named}) is discarded and reinitialized to near-uniform predictions"
    )
