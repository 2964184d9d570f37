"""Classes that are trained on but that no test image shows."""

from __future__ import annotations

from torch import Tensor

from distail.data.long_tail import class_counts

_NAMED = 3


def untested_note(test_labels_N: Tensor, class_names: tuple[str, ...], *, where: str = "test") -> str | None:
    """How many classes have no image ``where`` they are tested, which, and what follows; None where all have one.

    >>> import torch
    >>> untested_note(torch.tensor([0, 0, 2]), ("cat", "dog", "cow"))
    "1 of 3 classes has no test image ('dog'): its recall is not known, and no mean over classes counts it"
    """
    counts = class_counts(test_labels_N, len(class_names))
    untested = [repr(name) for name, images in zip(class_names, counts, strict=True) if images == 0]
    if not untested:
        return None
    more = len(untested) - _NAMED
    named = ", ".join(untested[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    have, their, them = ("has", "its", "it") if len(untested) == 1 else ("have", "their", "them")
    there = "" if where == "test" else f"in {where} "
    return (
        f"{len(untested)} of {len(class_names)} classes {have} no {where} image ({named}): "
        f"{their} recall {there}is not known, and no mean over classes counts {them}"
    )
