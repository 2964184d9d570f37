"""One experiment, as a typed and validated object."""

from distail.config.schema import Data, Experiment, Model, Schedule, Student, Teacher, Trainer, Training

__all__ = ["Data", "Experiment", "Model", "Schedule", "Student", "Teacher", "Trainer", "Training"]
