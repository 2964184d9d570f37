"""A network that begins with stored weights: where they are of other classes, its head begins anew, near the uniform.

Shapes: B batch, C classes, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distail.models.feature_tap import fitting_classifiers
from distail.models.layers import CosineClassifier
from distail.models.weights import check_fit, check_numbers, stored_for

Tell = Callable[[str], None]
# Of a new head's weights: logits of features of a length of 30 then have a deviation of 0.03 [ours].
_DEVIATION = 0.001


@torch.no_grad()
def nearly_uniform(head: nn.Module) -> None:
    """Let a linear layer, 1x1 convolution or `CosineClassifier` give all classes nearly the same logit.

    The first cross-entropy is then about ln C, whatever the features: nothing has to be unlearned. Not quite the same,
    because a method that standardizes logits divides by their deviation.

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
    """What a user is told of a head that begins anew; `stored` is None where the file holds none.

    >>> print(new_head_sentence("mine", "r18.pth", ["fc.weight"], 10, 5))
    mine: r18.pth is of 10 classes, the data of 5: its head (fc.weight) is dropped, and a new one begins near ...
    """
    names = ", ".join(tensors)
    if stored is None:
        return f"{what}: {path} holds no head ({names}); a new one of {here:,} classes begins near the uniform answer"
    return (
        f"{what}: {path} is of {stored:,} classes, the data of {here:,}: its head ({names}) is dropped, and a new one "
        "begins near the uniform answer"
    )


def start_from(model: nn.Module, path: str | Path, num_classes: int, *, what: str, tell: Tell) -> None:
    """Fill a network with weights from which its training begins, as `load_weights` does, but for its head.

    A classifier that is missing in the file, or has another number of classes there, begins near the uniform answer,
    and `tell` gets a sentence that says so.

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
