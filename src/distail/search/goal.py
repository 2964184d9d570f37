"""What a search chooses by: a figure of the validation split, and how much top-1 it may cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from distail.evaluation.groups import THIRDS
from distail.evaluation.headline import BALANCED_ACCURACY, HEADLINE_WORDS, MEAN_AVERAGE_PRECISION, headline
from distail.evaluation.metrics import MetricValues, metric_at
from distail.outputs import MULTI_LABEL

WORST_THIRD = "worst_third"


def _worst_third(validation: MetricValues) -> float:
    known = [metric_at(validation, f"groups.thirds.{third}") for third in THIRDS]
    return min(value for value in known if value is not None)


METRICS: Mapping[str, tuple[str, Callable[[MetricValues], float]]] = {
    **{path: (words, headline) for path, words in HEADLINE_WORDS.items()},
    WORST_THIRD: ("the worst of head, medium and tail third", _worst_third),
}
"""Name to its words and how it is computed; percent, higher is better."""


def metrics_for(targets: str) -> tuple[str, ...]:
    """What there is to choose by, the default first, of data with one class per example, or several.

    >>> metrics_for("multi_label")
    ('mean_average_precision', 'worst_third')
    """
    return MEAN_AVERAGE_PRECISION if targets == MULTI_LABEL else BALANCED_ACCURACY, WORST_THIRD


@dataclass(frozen=True)
class Goal:
    """By what trials are compared.

    Attributes:
        metric: a name of `METRICS`.
        top1_loss: how many points of top-1 a trial may lose against plain distillation at the same epoch, on the
            validation split, which has the class shares of the training data; None where an example may have several
            classes, and there is no top-1.

    >>> goal = Goal("balanced_accuracy", top1_loss=2)
    >>> kd = {"top1": 80.0, "balanced_accuracy": 50.0}
    >>> goal.value({"top1": 79.0, "balanced_accuracy": 60.0}, kd)
    60.0
    >>> goal.value({"top1": 75.0, "balanced_accuracy": 70.0}, kd)
    -3.0
    """

    metric: str
    top1_loss: float | None

    def figure(self, validation: MetricValues) -> float:
        """The metric, in percent."""
        return METRICS[self.metric][1](validation)

    def value(self, validation: MetricValues, reference: MetricValues) -> float:
        """What is maximized: the metric, or for a trial that loses too much top-1 by how much it does, below 0.

        So whatever keeps the bound is better than anything that does not.
        """
        loss = self.loss(validation, reference)
        too_much = 0.0 if loss is None or self.top1_loss is None else loss - self.top1_loss
        return -too_much if too_much > 0 else self.figure(validation)

    def loss(self, validation: MetricValues, reference: MetricValues) -> float | None:
        """How many points of top-1 a trial loses; None where there is no bound on it."""
        return None if self.top1_loss is None else reference["top1"] - validation["top1"]

    def allows(self, loss: float | None) -> bool:
        """Whether what a trial loses keeps the bound."""
        return self.top1_loss is None or (loss is not None and loss <= self.top1_loss)

    def rule(self, *, folds: bool) -> str:
        """The whole rule in words; with folds each training example is judged once."""
        bound = (
            ""
            if self.top1_loss is None
            else f", with a loss of at most {self.top1_loss:g} points of top-1 relative to kd"
        )
        judged = "the training data, each fold by the student that held it out," if folds else "the validation split"
        return f"{METRICS[self.metric][0]} on {judged} after the last epoch{bound}"
