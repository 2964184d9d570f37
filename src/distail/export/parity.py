"""What an exported file answers beside the float student, by groups of classes, on the same test images.

Shapes: N images, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distail.data.dataset import Examples
from distail.data.labels import is_multi_label
from distail.evaluation.average_precision import average_precisions
from distail.evaluation.bootstrap import bootstrap_metrics, image_facts, interval_and_p
from distail.evaluation.metrics import MetricValues, evaluate_predictions, metric_at
from distail.export.calibration import raw_batches
from distail.export.graph import Signature
from distail.export.runtimes import Run
from distail.report.export_tables import metrics_shown

TIE = 1e-4
"""Logits closer to each other than this are a tie: either class may be the answer."""


class DifferenceContent(TypedDict):
    """A metric of the file minus that of the float student, in points, over the same test images drawn again."""

    difference: float
    interval: tuple[float, float] | None
    p: float | None


class Parity(TypedDict):
    """What a file answers beside the float student; `equal_answers` in percent, where ties count as equal."""

    largest_logit_difference: float
    equal_answers: float
    test: MetricValues
    differences: dict[str, DifferenceContent]


def logits_of(run: Run, images: Examples, signature: Signature) -> Tensor:
    """Logits (N, C) of a data set through a file, which gets the images as it takes them."""
    size = signature.batch or 64
    logits = [_run_padded(run, levels, signature) for levels in raw_batches(images, size)]
    return torch.from_numpy(np.concatenate(logits)).float()


def given_as(raw: NDArray[Any], signature: Signature) -> NDArray[Any]:
    """Levels (B, H, W, channels) uint8, or arrays, as a file takes them."""
    if signature.input != "float":
        return raw
    return np.ascontiguousarray((raw.transpose(0, 3, 1, 2) / 255).astype(np.float32))


def _run_padded(run: Run, raw: NDArray[Any], signature: Signature) -> NDArray[np.float32]:
    images = given_as(raw, signature)
    short = (signature.batch or len(images)) - len(images)
    padded = np.concatenate([images, np.repeat(images[-1:], short, axis=0)]) if short else images
    return run(padded)[: len(images)]


def parity(
    logits_NC: Tensor,
    student_NC: Tensor,
    target_N: Tensor,
    class_counts: Sequence[int],
    thresholds: Sequence[float] | None = None,
    *,
    resamples: int = 10_000,
) -> Parity:
    """The file's logits beside the float student's; `thresholds` are of a student of several classes per image."""
    own, base = (evaluate_predictions(each, target_N, class_counts) for each in (logits_NC, student_NC))
    facts = [image_facts(each, target_N, class_counts) for each in (logits_NC, student_NC)]
    drawn = bootstrap_metrics(target_N.numpy(), class_counts, facts, resamples=resamples)
    differences: dict[str, DifferenceContent] = {}
    for path in metrics_shown(own):
        mine, theirs = metric_at(own, path), metric_at(base, path)
        if mine is None or theirs is None:
            continue
        interval, p = interval_and_p(drawn[path][:, 0] - drawn[path][:, 1]) if path in drawn else (None, None)
        differences[path] = {"difference": mine - theirs, "interval": interval, "p": p}
    return {
        "largest_logit_difference": float((logits_NC - student_NC).abs().max()),
        "equal_answers": equal_answers(logits_NC, student_NC, thresholds),
        "test": own,
        "differences": differences,
    }


def equal_answers(logits_NC: Tensor, student_NC: Tensor, thresholds: Sequence[float] | None = None) -> float:
    """Percent of images on which both answer the same, or the student's logits of the two answers are a tie.

    With `thresholds` of probability, one per class, an answer is all classes that reach theirs; a tie lies on one.

    >>> equal_answers(torch.tensor([[2.0, 1.0], [1.0, 1.00001]]), torch.tensor([[2.0, 1.0], [1.0, 1.0]]))
    100.0
    >>> equal_answers(torch.tensor([[2.0, 1.0], [1.0, -1.0]]), torch.tensor([[2.0, 1.0], [1.0, 1.0]]), [0.5, 0.5])
    50.0
    """
    if thresholds is not None:
        border_C = torch.tensor(thresholds, dtype=torch.float64).logit()
        above_NC, base_NC = (each.double() >= border_C for each in (logits_NC, student_NC))
        tied_NC = (student_NC.double() - border_C).abs() < TIE
        return 100 * float(((above_NC == base_NC) | tied_NC).all(1).double().mean())
    answer_N1, base_N1 = (each.argmax(1, keepdim=True) for each in (logits_NC, student_NC))
    gap_N1 = student_NC.gather(1, base_N1) - student_NC.gather(1, answer_N1)
    return 100 * float((gap_N1 < TIE).double().mean())


def tail_loss(logits_NC: Tensor, student_NC: Tensor, target_N: Tensor, tail: Iterable[int]) -> float:
    """What the tail loses at most on these images, in points: what a file gets right by luck is not set against it."""
    lost = tail_drop if is_multi_label(target_N) else tail_flips
    return lost(logits_NC, student_NC, target_N, tail)


def tail_drop(logits_NC: Tensor, student_NC: Tensor, target_NC: Tensor, tail: Iterable[int]) -> float:
    """How far average precision falls, mean over the classes of the tail; one that rises counts as equal."""
    classes = list(tail)
    own, base = (average_precisions(each[:, classes], target_NC[:, classes]) for each in (logits_NC, student_NC))
    falls = [
        max(0.0, before - after) for before, after in zip(base, own, strict=True) if before is not None is not after
    ]
    return sum(falls) / len(falls) if falls else 0.0


def tail_flips(logits_NC: Tensor, student_NC: Tensor, target_N: Tensor, tail: Iterable[int]) -> float:
    """Percent of the images of the tail, mean over its classes, that the student gets right and the file wrong."""
    lost_N = (student_NC.argmax(1) == target_N) & (logits_NC.argmax(1) != target_N)
    shares = [lost_N[target_N == label].double().mean() for label in tail if (target_N == label).any()]
    return 100 * float(torch.stack(shares).mean()) if shares else 0.0
