"""What stands in place of a group's figure: it has no class, or none of its classes has a test image."""

from __future__ import annotations

from collections.abc import Sequence

from distail.evaluation.groups import empty_groups

NO_CLASS = "no such class"
NO_IMAGE = "no test image"
NOT_MEASURED = "not measured"


def unmeasured_group(path: str, class_counts: Sequence[int]) -> str:
    """Why a group of a tested model has no figure.

    Args:
        path: the figure's dotted path, such as ``groups.shots.few``.
        class_counts: (C,) training images of each class; empty where they are not known.

    >>> [unmeasured_group(path, [300, 50, 40]) for path in ("groups.thirds.tail", "groups.shots.few")]
    ['no test image', 'no such class']
    """
    if not class_counts:
        return NOT_MEASURED
    return NO_CLASS if path in empty_groups(class_counts) else NO_IMAGE
