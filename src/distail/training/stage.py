"""A stage of a run: what is trained, on what and how, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distail.config.schema import Training
from distail.data.batches import TrainingBatches
from distail.evaluation.metrics import MetricValues
from distail.evaluation.run_files import EpochRow
from distail.methods.method import Method
from distail.models.feature_tap import FeatureTap
from distail.training.device import RuntimeDevice
from distail.training.frozen_teacher import Teacher
from distail.training.progress import Reporter
from distail.training.state import Best

Validate = Callable[[FeatureTap], MetricValues]


@dataclass(frozen=True)
class Fitted:
    """What a stage leaves beside the trained student: its time and its best epoch on validation.

    `averaged`: the student was left with the moving average of its weights.
    """

    seconds: float
    history: list[EpochRow]
    best: Best | None
    averaged: bool = False


@dataclass(frozen=True)
class Stage:
    """What is trained, on what, and how."""

    name: str
    student: FeatureTap
    teacher: Teacher | None
    method: Method
    batches: TrainingBatches
    validate: Validate | None
    training: Training
    runtime: RuntimeDevice
    seed: int
    compile: bool = False
    cuda_graph: bool = False
    """On a GPU: record forward and backward pass as a CUDA graph. What student and method decide on the host may only
    change from epoch to epoch, where `Method.host_state` shows it."""
    identity: Mapping[str, Any] = field(default_factory=dict)
    """What the run is (`distail.training.identity`): a checkpoint of another one is refused."""
    prepare: Callable[[], None] | None = None
    """What the method must see before its first step; a resumed method has it in its state."""
    fill: Callable[[Reporter], None] | None = None
    """What must be done before the first step of every start, resumed or not."""
    earlier: Fitted | None = None
    """What the stage before has left, if this one goes on with the same network: its epochs count on from there."""
    later_epochs: int = 0
    """Of the stage after this one: what a method does by the progress of training goes by all epochs together."""
    classifiers: Sequence[str] = ()
    """The paths of the bare network's classifiers, where training treats them otherwise than the rest."""
    frozen_epochs: int = 0
    """So many of its first epochs train the classifier alone."""

    @property
    def title(self) -> str:
        """Its name among the checkpoints, and for the user."""
        return self.name if self.earlier is None else f"{self.name}-classifier"
