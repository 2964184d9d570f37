"""On which device and in which number formats a run computes: decided when it begins, and kept when it goes on."""

from __future__ import annotations

from dataclasses import replace

from distail.config.precision import Precisions
from distail.config.schema import Experiment, Model
from distail.config.section import AUTO
from distail.data.dataset import smallest_side
from distail.data.prepare import PreparedData
from distail.models import FeatureTap
from distail.runner.checks import teacher_model
from distail.runner.compositions import needs_teacher
from distail.runner.context import STUDENT, TEACHER, TEACHER_INFERENCE
from distail.runner.networks import build_network, seeded, without_weights
from distail.training.device import RuntimeDevice, configure_malloc, select_device
from distail.training.distributed import Processes
from distail.training.precision import depthwise_share, faster_in_training


def select_run_device(
    experiment: Experiment, stored: Experiment | None, data: PreparedData, processes: Processes
) -> tuple[RuntimeDevice, Precisions, list[str]]:
    """The device with the student's number format, all formats, and sentences for the user.

    The formats stay what they were when the run began (`stored`). Where they are `auto`, hardware, image size and the
    networks' structure decide, never a measurement: the same configuration must give the same numbers.
    """
    side = smallest_side(data.train)
    runtime = select_device(experiment.trainer.device, AUTO, side, processes)
    if runtime.device.type == "cpu":
        configure_malloc(side)
    notes: list[str] = []

    def choose(use: str) -> str:
        model = _trained(experiment, use)
        if runtime.precision == "fp32" or runtime.device.type != "cpu" or model is None:
            return runtime.precision
        network = structure_of(experiment, use, model, data)
        chosen = faster_in_training(network, runtime.device)
        if chosen != runtime.precision:
            share = round(100 * depthwise_share(network))
            notes.append(
                f"trainer.precision: auto trains the {use} in {chosen}: {share} % of its layers are depthwise "
                "convolutions, which a CPU trains more slowly in bf16"
            )
        return chosen

    given = Precisions.of((stored or experiment).trainer.precision)
    student = choose(STUDENT) if given.student == AUTO else given.student
    alone = not needs_teacher(experiment)
    formats = given.settled(lambda use: student if alone or use == STUDENT else choose(use))
    return replace(runtime, precision=formats.student), formats, notes


def _trained(experiment: Experiment, use: str) -> Model | None:
    """The network that is trained in a use; None where none is."""
    if use == STUDENT:
        return experiment.student.model
    teacher = experiment.teacher
    if use == TEACHER_INFERENCE or teacher is None or not teacher.trained_here:
        return None
    return teacher_model(experiment)


def structure_of(
    experiment: Experiment, use: str, model: Model, data: PreparedData, *, features: bool = False
) -> FeatureTap:
    """A network as a use has it, with weights that mean nothing."""
    section = experiment.teacher if use == TEACHER else experiment.student
    assert section is not None
    with seeded(experiment.seed, "structure"):
        return build_network(without_weights(model), section.classifier, data, features=features)
