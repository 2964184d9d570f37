"""Whether a network counts the classes in another order than its labels do.

Shapes: N samples, K outputs or classes that occur.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distail.errors import some_of

# At most so many samples are looked at: enough for any order that matters, few enough for thousands of classes.
LOOKED_AT = 1024
_TIMES_BETTER, _LEAST_SHARE, _DEVIATIONS = 2, 0.3, 4
_NAMED = 30  # of an order without a name as many classes as one can copy
_ALMOST = 0.9  # of the best: an order that has a reason needs no more


@dataclass(frozen=True)
class OtherOrder:
    """An order in which a network is right more often.

    Attributes:
        order: the class that each output stands for.
        known_as: `text` for the names sorted as text, `from 1` for labels that are one too high; None for any other.
        before, after: percent of the samples on which the network is right, as it stands and in this order.
        samples: how many these are.
    """

    order: tuple[int, ...]
    known_as: str | None
    before: float
    after: float
    samples: int

    def sentence(self, whose: str, class_names: Sequence[str], *, from_file: bool = False) -> str:
        """What a user should know, and how it is put right.

        Args:
            from_file: the labels come from a file of logits, not from a data set.
        """
        names = some_of([repr(class_names[c]) for c in self.order], 4 if self.known_as else _NAMED)
        order, remedy = f"in the order {names}", "list them in a file, one per line, and set data.class_order to it"
        if self.known_as == "text":
            order = f"sorted as text ({names}), as torchvision's ImageFolder does"
            remedy = "data.class_order: text"
        if from_file:
            remedy = "use the same order for labels and columns of logits"
        if from_file and self.known_as == "from 1":
            order, remedy = f"shifted by one ({names}), as with labels that start at 1", "subtract 1 from each label"
        return (
            f"{whose} is right on {self.before:.1f} % of {self.samples:,} images, and on {self.after:.1f} % if its "
            f"outputs are the classes {order}: {remedy}"
        )


def find_other_order(logits_NC: Tensor, target_N: Tensor, class_names: Sequence[str]) -> OtherOrder | None:
    """An order of the classes in which the network is right at least twice as often; None for a network that has none.

    Tried are the names sorted as text, labels that count from 1 and, found on one half of the samples and tried on the
    other, the order that suits the confusion matrix best. A biased network is not mistaken for one: the samples are as
    frequent as they come.

    Args:
        logits_NC: (N, C).
        target_N: (N,) int64, 0 to C - 1.
        class_names: C names.

    >>> names = [str(number) for number in range(1, 13)]
    >>> target = torch.arange(12).repeat(10)
    >>> by_text = torch.tensor([sorted(names).index(name) for name in names])
    >>> found = find_other_order(torch.eye(12)[by_text[target]], target, names)
    >>> found.known_as, round(found.before), round(found.after)
    ('text', 8, 100)
    """
    some_N = spread_over(len(target_N))
    predicted_N, labels_N = logits_NC[some_N].argmax(1).numpy(), target_N[some_N].numpy()
    classes = range(len(class_names))
    known = {
        "text": sorted(classes, key=lambda index: class_names[index]),
        "from 1": [*classes[1:], 0],
    }
    judged = [_judged(order, name, predicted_N, labels_N) for name, order in known.items()]
    best = _best_order(predicted_N[::2], labels_N[::2], len(class_names))
    # What was found on one half may suit that half alone.
    fitted = _judged(best, None, predicted_N[1::2], labels_N[1::2])
    found = max((other for other in judged if other is not None), key=lambda other: other.after, default=None)
    return fitted if found is None or (fitted and found.after < _ALMOST * fitted.after) else found


def spread_over(samples: int) -> Tensor:
    """The places of at most 1,024 samples, evenly spread.

    >>> spread_over(3).tolist(), len(spread_over(5000))
    ([0, 1, 2], 1024)
    """
    chosen = min(samples, LOOKED_AT)
    return torch.arange(chosen) * samples // max(chosen, 1)


def _judged(
    order: Sequence[int], known_as: str | None, predicted_N: NDArray[np.int64], target_N: NDArray[np.int64]
) -> OtherOrder | None:
    order_C = np.asarray(order)
    moved_N = order_C[predicted_N] != predicted_N
    right_before_N, right_after_N = predicted_N == target_N, order_C[predicted_N] == target_N
    before, after = int(right_before_N[moved_N].sum()), int(right_after_N[moved_N].sum())
    convincing = (
        after >= _TIMES_BETTER * before
        and after >= _LEAST_SHARE * moved_N.sum()
        and (after - before) ** 2 >= _DEVIATIONS**2 * (after + before)
        # A network that always answers the same is no network of another order.
        and len(np.unique(target_N[moved_N & right_after_N])) > 1
    )
    if not after or not convincing:
        return None
    share_before, share_after = (100 * float(right_N.mean()) for right_N in (right_before_N, right_after_N))
    return OtherOrder(tuple(order), known_as, share_before, share_after, len(target_N))


def _best_order(predicted_N: NDArray[np.int64], target_N: NDArray[np.int64], classes: int) -> list[int]:
    """The order with the most right answers; outputs that do not occur stay where they are."""
    from scipy.optimize import linear_sum_assignment

    order = np.arange(classes)
    occurring_K = np.union1d(predicted_N, target_N)
    counts_KK = np.zeros((len(occurring_K), len(occurring_K)))
    np.add.at(counts_KK, (np.searchsorted(occurring_K, predicted_N), np.searchsorted(occurring_K, target_N)), 1)
    counts_KK[np.diag_indices_from(counts_KK)] += 0.5  # what nothing speaks for stays as it is
    outputs, chosen = linear_sum_assignment(counts_KK, maximize=True)
    order[occurring_K[outputs]] = occurring_K[chosen]
    return [int(c) for c in order]
