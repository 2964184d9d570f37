"""What the stages of a run share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from distail.config.precision import Precisions
from distail.config.schema import Experiment
from distail.config.section import AUTO
from distail.data.prepare import PreparedData
from distail.runner.run_folder import RunFolder
from distail.training.checkpoint import CheckpointFolder
from distail.training.device import RuntimeDevice
from distail.training.history import History
from distail.training.identity import Identity
from distail.training.loop import fit
from distail.training.progress import Reporter
from distail.training.stage import Fitted, Stage

Fit = Callable[[Stage, CheckpointFolder, History, Reporter, int], Fitted]
TEACHER, STUDENT = "teacher", "student"
TEACHER_INFERENCE = "teacher_inference"
"""What a run does with a teacher, beside training it: a use with a number format of its own."""


@dataclass(frozen=True)
class RunContext:
    """What the stages of a run share."""

    experiment: Experiment
    folder: RunFolder
    data: PreparedData
    runtime: RuntimeDevice
    history: History
    reporter: Reporter
    identity: Identity
    require_folder: Callable[[], None]
    """Refuses where the folder is no longer this run's: called by the main process before it writes."""
    fit: Fit = fit
    """What trains a stage; a plan of a run only times a few steps."""
    notes: list[str] = field(default_factory=list)
    """What is odd about the networks; what is odd about the data is in `data.notes`."""
    formats: Precisions = field(default_factory=Precisions)

    def note(self, *sentences: str) -> None:
        """Tell the user once, and keep it for the result."""
        for sentence in sentences:
            if sentence not in self.notes:
                self.notes.append(sentence)
                self.reporter.message(sentence)

    def runtime_for(self, use: str) -> RuntimeDevice:
        """The device, with the number format of a use: training the student or the teacher, or asking the teacher."""
        chosen = str(getattr(self.formats, use))
        return self.runtime if chosen == AUTO else replace(self.runtime, precision=chosen)

    def draws_as(self, stage: str) -> str:
        """The name by which a stage draws its first weights and its order."""
        return self.experiment.role if stage == STUDENT else stage
