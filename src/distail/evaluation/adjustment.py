"""Logit adjustment after training: log class priors subtracted, with a strength that validation may choose.

Shapes: N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum
from typing import TypedDict

from torch import Tensor

from distail.config.section import AUTO
from distail.config.tau import Tau
from distail.errors import DataError
from distail.evaluation.groups import FEW_IMAGES, images_of_tail
from distail.evaluation.metrics import ClassCounts, MetricValues, evaluate_predictions
from distail.functional import remove_prior
from distail.json_values import as_number, value_at

TAU = 1.0
"""The strength of every row that is called adjusted: for a network that learned the natural posterior, all of it."""
TAUS = tuple(step / 4 for step in range(9))
"""What `auto` chooses from: 0, 0.25, ... 2."""
GIVEN, VALIDATION = "given", "validation"
_SUFFIX = ", adjusted"


class Adjustment(TypedDict):
    """How far logits were adjusted, and who said so: the user (`given`) or the `validation` split."""

    tau: float
    chosen_on: str


def holds_prior(posterior: object, class_counts: Sequence[int]) -> bool:
    """Whether adjusting is for a network with this posterior: not where its terms removed the prior before.

    >>> holds_prior("natural", [9, 1]), holds_prior("balanced", [9, 1]), holds_prior("natural", [5, 5])
    (True, False, False)
    """
    return posterior == "natural" and min(class_counts) < max(class_counts)


def adjusted_name(name: str, tau: float = TAU) -> str:
    """What the row of a model is called whose logits were adjusted.

    >>> adjusted_name("ce"), adjusted_name("kd", 0.5)
    ('ce, adjusted', 'kd, adjusted (tau 0.5)')
    """
    return f"{name}{_SUFFIX}" + ("" if tau == TAU else f" (tau {tau:g})")


def is_adjusted_name(name: str) -> bool:
    """Whether a row is called as `adjusted_name` calls it."""
    return _SUFFIX in name


def describe_adjustment(whose: str, adjustment: Adjustment) -> str:
    """What to tell of logits that were adjusted as somebody asked.

    >>> describe_adjustment("the student", {"tau": 0.5, "chosen_on": "given"})
    "the student's logits are adjusted after training, with tau 0.5"
    """
    chosen = f", chosen by balanced accuracy on the validation split from {TAUS[0]:g}, {TAUS[1]:g}, ... {TAUS[-1]:g}"
    how = chosen if adjustment["chosen_on"] == VALIDATION else ""
    return f"{whose}'s logits are adjusted after training, with tau {adjustment['tau']:g}{how}"


def chosen_on_few(target_N: Tensor, class_counts: Sequence[int]) -> list[str]:
    """A warning, where the validation images (N,) by which tau is chosen hardly have any of the tail third.

    >>> import torch
    >>> chosen_on_few(torch.tensor([0] * 90 + [1] * 9 + [2]), [900, 90, 10])  # doctest: +ELLIPSIS
    ['only 1 of the validation images belongs to the tail third, so that the choice of tau is uncertain; ...']
    """
    tail = images_of_tail(target_N, class_counts)
    if tail >= FEW_IMAGES:
        return []
    return [
        f"only {tail} of the validation images belong{'s' if tail == 1 else ''} to the tail third, so that the choice "
        "of tau is uncertain; expected a number, such as 1, or a larger data.validation"
    ]


def corrects_twice(whose: str, posterior: str | None, class_counts: Sequence[int] = ()) -> list[str]:
    """A warning, where training, by its terms or its sampler, removed the prior already.

    Of classes that are known to be equal there is none to remove.

    >>> corrects_twice("the student", "balanced")
    ['the student is trained for balanced classes already: adjusting it again corrects the priors twice']
    """
    twice = {
        "balanced": "already: adjusting it again corrects the priors twice",
        "mixed": "in part already: adjusting it by more than what is left corrects the priors twice",
    }
    if len({*class_counts}) == 1 or posterior not in twice:
        return []
    return [f"{whose} is trained for balanced classes {twice[posterior]}"]


def corrected_in_part(logits_NC: Tensor, target_N: Tensor, class_counts: Sequence[int], *, taught: bool) -> list[str]:
    """A note, where a student that is trained for balanced classes gains on validation by adjusting it all the same.

    Told where the gain in balanced accuracy is more than twice its standard error over the images; were there no gain,
    each image that changes sides would do so in either direction alike.

    Args:
        logits_NC: (N, C) of the validation split, floating and finite.
        target_N: (N,) int64 labels.
        class_counts: (C,) training images of each class.
        taught: whether there was a teacher.

    >>> import torch
    >>> label = torch.tensor([0] * 50 + [1] * 50)
    >>> logits = torch.tensor([[2.0, 0.0]] * 50 + [[1.0, 0.5]] * 50)
    >>> corrected_in_part(logits, label, [90, 10], taught=False)[0][:64]
    'adjusted after training, with tau 0.25, the student would have 1'
    """
    tau = settle(AUTO, (logits_NC, target_N), class_counts)["tau"]
    before_N, after_N = (
        (remove_prior(logits_NC, class_counts, strength).argmax(1) == target_N).double() for strength in (0.0, tau)
    )
    images_C = target_N.bincount().double()
    weight_N = 1 / (images_C[target_N] * images_C.count_nonzero())  # of an image in balanced accuracy
    change_N = (after_N - before_N) * weight_N
    if change_N.sum() <= 2 * change_N.square().sum().sqrt():
        return []
    before, after = (float(right_N @ weight_N) for right_N in (before_N, after_N))
    more = (
        "where the teacher has memorized its training images, `debias` with `side: student`, or with a larger `tau` "
        "there, corrects more"
    )
    return [
        f"adjusted after training, with tau {tau:g}, the student would have {100 * after:.1f} % balanced accuracy on "
        f"the validation split instead of {100 * before:.1f} %: its training corrected the class priors only in part; "
        f"{more if taught else '`logit_adjusted` with a larger `tau` corrects more'}"
    ]


def evaluate_adjusted(
    logits_NC: Tensor, target_N: Tensor, class_counts: Sequence[int], tau: float = TAU
) -> MetricValues:
    """`evaluate_predictions` of logits from which the prior was removed; with tau 0 of the logits as they are.

    Raises:
        DistailError: as `evaluate_predictions`.
    """
    if target_N.ndim == 2 and tau:
        raise DataError(
            "logit adjustment shifts all scores of a class by the same amount, which does not change average "
            "precision; expected single-label data"
        )
    adjusted_NC = remove_prior(logits_NC, class_counts, tau) if tau else logits_NC
    return evaluate_predictions(adjusted_NC, target_N, class_counts)


def tau_of(result: Mapping[str, object], stage: str) -> float:
    """How far the logits of a network were adjusted for its `test` in a `result.json`; 0 where they were not.

    >>> tau_of({"student": {"adjust": {"tau": 0.5, "chosen_on": "validation"}}}, "student")
    0.5
    """
    return as_number(value_at(result, f"{stage}.adjust.tau")) or 0.0


def settle(adjust: Tau, validation: tuple[Tensor, Tensor] | None, class_counts: Sequence[int]) -> Adjustment:
    """The adjustment that was asked for: a tau as it is, `auto` chosen on these images, which must not be the test's.

    `auto` takes the tau of `TAUS` with the highest balanced accuracy, of equal ones the least.

    Args:
        adjust: a tau, or `auto`.
        validation: logits (N, C) and labels (N,) int64 of the validation split; not needed for a tau.
        class_counts: (C,) training images of each class.

    Raises:
        DataError: `auto` without a validation split.
    """
    if adjust != AUTO:
        return {"tau": float(adjust), "chosen_on": GIVEN}
    if validation is None:
        raise DataError(
            "auto chooses tau on the validation split, but there is none; expected one, or a number, such as 1"
        )
    logits_NC, target_N = validation

    def balanced_accuracy(tau: float) -> float:
        predicted_N = remove_prior(logits_NC, class_counts, tau).argmax(1)
        recalls = ClassCounts.of(predicted_N, target_N, len(class_counts)).recalls()
        known = [recall for recall in recalls if recall is not None]
        return fsum(known) / len(known)

    return {"tau": max(TAUS, key=balanced_accuracy), "chosen_on": VALIDATION}  # of equals max takes the first
