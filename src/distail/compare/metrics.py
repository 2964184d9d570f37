"""Which metrics a comparison is of: those of images with one class, or of images that may have several."""

from __future__ import annotations

from distail.compare.content import ComparisonContent
from distail.evaluation.groups import TAIL
from distail.evaluation.headline import BALANCED_ACCURACY, MEAN_AVERAGE_PRECISION, is_multi_label
from distail.evaluation.metrics import METRICS


def metrics_of(multi_label: bool) -> tuple[str, ...]:
    """Their paths, in the order in which they are shown."""
    return tuple(path for path, metric in METRICS.items() if metric.multi_label in (None, multi_label))


def main_metrics(multi_label: bool) -> tuple[str, ...]:
    """What is tested, and what sentences are made of; the tables have all."""
    return (MEAN_AVERAGE_PRECISION, TAIL) if multi_label else ("top1", BALANCED_ACCURACY, TAIL)


def of_multi_label(content: ComparisonContent) -> bool:
    """Whether the images of a comparison may have several classes."""
    return any(is_multi_label(figures) for figures in content["figures"].values())


def decides(content: ComparisonContent) -> str:
    """The metric that says which student is the best."""
    return MEAN_AVERAGE_PRECISION if of_multi_label(content) else BALANCED_ACCURACY
